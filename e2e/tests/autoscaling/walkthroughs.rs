//! The walkthroughs of the document with the metrics API, with few slots and with many.

use anyhow::{Context, Result};
use e2e::{
    Cluster, Framework,
    testing::{documents::blocks, figures::report, framework::ensure_eq},
    wait::{TIMEOUT, is_active, wait_until_all},
};
use futures::future::try_join_all;
use serde_json::{Value, json};
use tokio::time::Instant;
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskSpec};

use crate::{
    DOCUMENT, SYNC, alone, apply, apply_text, changes, replicas, replicas_over_syncs, seen_over_syncs,
    simulator::simulated, wait_for_running,
};

/// The numbers of slots.
const SLOTS: [usize; 4] = [3, 5, 20, 184];
/// How many syncs nothing changes.
const SYNCS: u32 = 20;

#[tokio::test]
async fn a_deployment_takes_the_slots_that_are_left_and_gives_them_back() -> Result<()> {
    alone(async |_, f, _| {
        f.create_provider("vpn", 5).await?;
        apply(f, "## Take the slots that are left").await?;
        wait_for_running(f, 4).await?;
        ensure_eq("replicas while nothing changes", replicas_over_syncs(f, "worker", 10).await?, [4].into())?;

        // The reserve is there for others.
        f.create_active_mask("first").await?;
        wait_for_running(f, 3).await?;

        // A Mask with a higher priority gets a slot even where none is free.
        let mut urgent = Mask::new("urgent", Default::default());
        urgent.spec.priority = Some(10);
        let low = Mask::new("low", vpn_types::MaskSpec { priority: Some(-1), ..Default::default() });
        f.create(urgent).await?;
        f.wait_active("urgent").await?;
        wait_for_running(f, 2).await?;
        // It takes the reserve, which is then made up for.
        f.create(low).await?;
        f.wait_active("low").await?;
        wait_for_running(f, 1).await?;
        ensure_eq("replicas with others", replicas_over_syncs(f, "worker", 5).await?, [1].into())?;

        f.delete::<Mask>("first").await?;
        f.delete::<Mask>("urgent").await?;
        f.delete::<Mask>("low").await?;
        wait_for_running(f, 4).await
    })
    .await
}

#[tokio::test]
async fn the_contract_grows_with_demand_and_never_below_what_is_used() -> Result<()> {
    alone(async |_, f, _| {
        f.create_provider("vpn", 2).await?;
        apply(f, "## Let the contract follow the demand").await?;
        for number in 0..7 {
            f.create_mask(&format!("mask-{number}")).await?;
        }
        let active =
            |count: usize| move |all: &[MaskConsumer]| all.iter().filter(|one| is_active(one)).count() == count;
        f.wait_until_all::<MaskConsumer>("five slots, as the contract has", active(5)).await?;
        let at_once = r#"{"spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}}"#;
        f.kubectl(&["patch", "hpa", "contract", "--type=merge", "--patch", at_once]).await?;
        for number in 0..6 {
            f.delete::<Mask>(&format!("mask-{number}")).await?;
        }
        let slots = |wanted: i64| move |provider: &MaskProvider| provider.spec.max_slots as i64 == wanted;
        f.wait_until("vpn", "the contract shrinks to what is used", slots(1)).await?;
        ensure_eq("the last Mask", is_active(&f.wait_active("mask-6").await?), true)?;
        Ok(())
    })
    .await
}

/// Each number of slots has its own namespace, whose MaskProvider the others may not use.
async fn with_each_number_of_slots(
    prefix: &str,
    body: impl AsyncFn(&Cluster, &Framework, usize) -> Result<()>,
) -> Result<()> {
    alone(async |cluster, _, _| {
        let (prefix, body) = (prefix, &body);
        try_join_all(SLOTS.map(async |slots| {
            let f = Framework::new(cluster, &format!("{prefix}-{slots}")).await?;
            f.dump_on_error(body(cluster, &f, slots)).await.with_context(|| format!("with {slots} slots"))
        }))
        .await
        .map(drop)
    })
    .await
}

/// Returns the number of syncs since `began`.
fn syncs_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() / SYNC.as_secs_f64()
}

fn as_i32(slots: usize) -> Result<i32> {
    Ok(i32::try_from(slots)?)
}

#[tokio::test]
async fn a_deployment_settles_whatever_the_number_of_slots() -> Result<()> {
    with_each_number_of_slots("worker", async |cluster, f, slots| {
        f.create_provider("vpn", slots).await?;
        let text = blocks(&std::fs::read_to_string(DOCUMENT)?, Some("## Take the slots that are left"), "yaml");
        let text = text.concat();
        let (deployment, hpa) = text.split_once("---\n").context("one object")?;
        apply_text(f, deployment).await?;
        wait_for_running(f, 1).await?;

        let wanted = simulated(cluster, hpa, slots, usize::MAX).await?;
        ensure_eq("the last count of the simulator", wanted.last(), Some(&as_i32(slots - 1)?))?;
        let began = Instant::now();
        let all = changes(f, "worker", replicas, |seen| seen.len() == wanted.len());
        let (_, seen) = tokio::try_join!(apply_text(f, hpa), all)?;
        let syncs = syncs_since(began);
        ensure_eq("replicas", &seen, &wanted)?;
        wait_for_running(f, slots - 1).await?;
        let settled = [as_i32(slots - 1)?].into();
        ensure_eq("replicas while nothing changes", replicas_over_syncs(f, "worker", SYNCS).await?, settled)?;

        // Two others: one takes the reserve, and then there is none.
        let left = (as_i32(slots)? - 3).max(1);
        let began = Instant::now();
        let fewer = changes(f, "worker", replicas, |seen| seen.last() == Some(&left));
        let others = async {
            for name in ["first", "second"] {
                f.create(Mask::new(name, MaskSpec { priority: Some(10), ..Default::default() })).await?;
            }
            Ok(())
        };
        tokio::try_join!(others, fewer)?;
        let syncs_back = syncs_since(began);
        f.wait_active("first").await?;
        f.wait_active("second").await?;
        wait_for_running(f, left.unsigned_abs() as usize).await?;
        ensure_eq("replicas with others", replicas_over_syncs(f, "worker", SYNCS).await?, [left].into())?;
        report(&format!(
            "{slots} slots: all taken after {syncs:.1} syncs in {} steps, given back after {syncs_back:.1}",
            seen.len()
        ));
        Ok(())
    })
    .await
}

/// Returns the HorizontalPodAutoscaler for the contract, with what the text above it says about more slots.
fn contract(slots: usize) -> Result<String> {
    let text = blocks(&std::fs::read_to_string(DOCUMENT)?, Some("## Let the contract follow the demand"), "yaml");
    let mut hpa: Value = serde_yaml::from_str(&text.concat())?;
    hpa["spec"]["maxReplicas"] = json!(slots);
    hpa["spec"]["behavior"] = json!({
        "scaleUp": {"tolerance": "0"},
        "scaleDown": {"tolerance": "0", "stabilizationWindowSeconds": 0},
    });
    Ok(hpa.to_string())
}

#[tokio::test]
async fn a_contract_settles_whatever_the_number_of_slots() -> Result<()> {
    with_each_number_of_slots("contract", async |_, f, slots| {
        f.create_provider("vpn", 1).await?;
        apply_text(f, &contract(slots)?).await?;
        // One more than the contract allows has to wait.
        for number in 0..=slots {
            f.create_mask(&format!("mask-{number}")).await?;
        }
        let active = |all: &[MaskConsumer]| all.iter().filter(|one| is_active(one)).count();
        // The number of slots doubles every 15 s, so the largest contract takes most of the usual timeout.
        wait_until_all(f.api(), 2 * TIMEOUT, "all slots are used", |all| active(all) == slots).await?;
        let max_slots = |provider: &MaskProvider| i32::try_from(provider.spec.max_slots).ok();
        let over_syncs = async || seen_over_syncs::<MaskProvider>(f, "vpn", SYNCS, max_slots).await;
        ensure_eq("slots while nothing changes", over_syncs().await?, [as_i32(slots)?].into())?;

        // The last one in line gets the first slot that is free, and two are used in the end.
        for number in 1..slots {
            f.delete::<Mask>(&format!("mask-{number}")).await?;
        }
        f.wait_until::<MaskProvider>("vpn", "two slots", |provider| provider.spec.max_slots == 2).await?;
        f.wait_active("mask-0").await?;
        f.wait_active(&format!("mask-{slots}")).await?;
        // A Mask whose slot is beyond the contract gets another one.
        let slot = |one: &MaskConsumer| one.status.as_ref()?.provider.as_ref().map(|assigned| assigned.slot);
        let within = |all: &[MaskConsumer]| all.iter().all(|one| slot(one).is_none_or(|slot| slot < 2));
        f.wait_until_all("the two slots of the contract", |all| active(all) == 2 && within(all)).await?;
        ensure_eq("slots with two Masks", over_syncs().await?, [2].into())?;
        let all = f.wait_until_all::<MaskConsumer>("nobody lost a slot", |all| active(all) == 2).await?;
        ensure_eq("MaskConsumers", all.len(), 2)
    })
    .await
}
