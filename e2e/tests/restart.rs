//! Crashes at any moment, and two operators at once: no slot is leaked, none is given twice.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e::{
    Bench, Cluster, History, Layout, Operator,
    bench::{LIMIT, is_active, our_cluster, same},
    users::user_pod,
};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{ResourceExt, api::ListParams};
use tokio::sync::Mutex;
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskProviderReleaseSpec, MaskReservation, OWNER_LABEL};

const SLOTS: usize = 4;
const MASKS: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

/// One at a time: an operator works in all namespaces.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Waits until `active` MaskConsumers are assigned, and each has its lock and its Secret, and there are no others.
async fn all_is_well(bench: &Bench, active: usize) -> Result<Vec<MaskConsumer>> {
    // The garbage collector may not have come yet to a consumer whose Mask was deleted.
    let masks = bench.api::<Mask>().list(&ListParams::default()).await?;
    let masks: BTreeSet<_> = masks.iter().filter_map(ResourceExt::uid).collect();
    let is_wanted = |consumer: &MaskConsumer| {
        let owners = consumer.owner_references();
        consumer.metadata.deletion_timestamp.is_none() && owners.iter().all(|owner| masks.contains(&owner.uid))
    };
    let assigned = |all: &[MaskConsumer]| {
        all.iter().all(is_wanted) && all.iter().filter(|consumer| is_active(consumer)).count() == active
    };
    let mut consumers = bench.until_all("assigned", assigned).await?;
    consumers.retain(is_active);
    let holders: BTreeSet<_> = consumers.iter().filter_map(ResourceExt::uid).collect();
    let locks = |all: &[MaskReservation]| {
        let uids: BTreeSet<_> = all.iter().map(|reservation| reservation.spec.uid.clone()).collect();
        all.len() == active && uids == holders
    };
    bench.until_all("one reservation for each", locks).await?;
    let copies = |all: &[Secret]| {
        let copies: Vec<_> = all.iter().filter(|secret| secret.labels().contains_key(OWNER_LABEL)).collect();
        let owners = copies.iter().flat_map(|secret| secret.owner_references());
        copies.len() == active && owners.map(|owner| owner.uid.clone()).collect::<BTreeSet<_>>() == holders
    };
    bench.until_all("one Secret for each", copies).await?;
    Ok(consumers)
}

/// A Pod for each MaskConsumer that has none yet.
async fn run_pods(bench: &Bench, consumers: &[MaskConsumer]) -> Result<()> {
    let pods = bench.api::<Pod>().list(&ListParams::default()).await?;
    for consumer in consumers {
        let owned = |pod: &Pod| pod.owner_references().iter().any(|owner| Some(&owner.uid) == consumer.uid().as_ref());
        if !pods.iter().any(owned) {
            let uid = consumer.uid().context("no uid")?;
            bench.run_pod(user_pod(&format!("{}-{uid}", consumer.name_any()), consumer, 1)?).await?;
        }
    }
    Ok(())
}

/// Kills the operator at the `moment`th change after something was asked of it, and starts it again.
async fn crash(cluster: &Cluster, operator: &mut Operator, changes: &mut History, moment: usize) -> Result<()> {
    changes.wait_for_changes(moment).await?;
    operator.kill().await?;
    operator.restart(cluster).await
}

async fn crashes(layout: Layout, moments: &[usize]) -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = our_cluster().await? else { return Ok(()) };
    let mut operator = Operator::start(cluster, layout).await?;
    for &moment in moments {
        let bench = Bench::new(cluster, "crash").await?;
        bench.add_logs(&operator);
        bench.dump_on_error(one_round(cluster, &mut operator, &bench, moment)).await?;
    }
    operator.stop().await
}

async fn one_round(cluster: &Cluster, operator: &mut Operator, bench: &Bench, moment: usize) -> Result<()> {
    // A Pod that ends while no operator is there to see how leaves its slot held.
    let release = MaskProviderReleaseSpec { delay: None, unclean_delay: Some("1s".into()) };
    bench.provider_with("vpn", SLOTS, |spec| spec.release = Some(release)).await?;
    let mut history = History::start(&bench.client, Some(bench.name())).await?;

    // During assignment.
    let mut changes = History::start(&bench.client, Some(bench.name())).await?;
    for name in MASKS {
        bench.mask(name).await?;
    }
    crash(cluster, operator, &mut changes, moment).await?;
    bench.add_logs(operator);
    let consumers = all_is_well(bench, SLOTS).await?;
    run_pods(bench, &consumers).await?;

    // During release: of an assigned one with its Pod, of the lowered limit, and of one that waits.
    let mut changes = History::start(&bench.client, Some(bench.name())).await?;
    bench.kubectl(&["scale", "maskprovider/vpn", "--replicas=3"]).await?;
    let assigned: BTreeSet<_> = consumers.iter().map(ResourceExt::name_any).collect();
    let waiting = MASKS.iter().find(|name| !assigned.contains(**name)).context("none waits")?;
    for name in [assigned.first().context("none assigned")?.as_str(), waiting] {
        bench.delete::<Mask>(name).await?;
    }
    crash(cluster, operator, &mut changes, moment).await?;
    bench.add_logs(operator);
    let drained = |provider: &MaskProvider| {
        let status = provider.status.clone().unwrap_or_default();
        status.observed_generation == provider.metadata.generation && status.active_slots == Some(3)
    };
    bench.until("vpn", "drained", drained).await?;
    let consumers = all_is_well(bench, 3).await?;
    run_pods(bench, &consumers).await?;

    // All gone: nothing is left of anything.
    bench.clear(LIMIT).await?;
    all_is_well(bench, 0).await?;
    same("most users at once", history.judge().await?.into_values().max(), Some(SLOTS))
}

#[tokio::test]
async fn a_crash_of_the_only_process() -> Result<()> {
    crashes(Layout::Combined, &[1, 4, 7, 10, 12]).await
}

#[tokio::test]
async fn a_crash_of_all_four_processes() -> Result<()> {
    crashes(Layout::FourProcesses, &[3, 9]).await
}

/// Without one of its processes the operator holds what is held.
#[tokio::test]
async fn a_missing_process_is_made_up_for_when_it_returns() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = our_cluster().await? else { return Ok(()) };
    let mut operator = Operator::start(cluster, Layout::FourProcesses).await?;
    for part in ["masks", "consumers", "reservations", "providers"] {
        let bench = Bench::new(cluster, part).await?;
        bench.add_logs(&operator);
        let operator = &mut operator;
        bench
            .dump_on_error(async {
                let release = MaskProviderReleaseSpec { delay: None, unclean_delay: Some("1s".into()) };
                bench.provider_with("vpn", 1, |spec| spec.release = Some(release)).await?;
                let mut history = History::start(&bench.client, Some(bench.name())).await?;
                let first = bench.active_mask("first").await?;
                run_pods(&bench, std::slice::from_ref(&first)).await?;
                operator.kill_part(part).await?;
                bench.delete::<Mask>("first").await?;
                bench.mask("second").await?;
                // What is done without that process, in its own time; then the rest.
                history.wait_for_changes(1).await?;
                operator.restart(cluster).await?;
                bench.add_logs(operator);
                bench.active("second").await?;
                bench.gone(&first).await?;
                all_is_well(&bench, 1).await?;
                bench.clear(LIMIT).await?;
                same("most users at once", history.judge().await?.into_values().max(), Some(1))
            })
            .await?;
    }
    operator.stop().await
}

/// Nothing but names, UIDs and versions keeps two operators from giving a slot twice.
#[tokio::test]
async fn two_operators_at_once() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = our_cluster().await? else { return Ok(()) };
    let operators =
        [Operator::start(cluster, Layout::Combined).await?, Operator::start(cluster, Layout::Combined).await?];
    let bench = Bench::new(cluster, "two").await?;
    operators.iter().for_each(|operator| bench.add_logs(operator));
    bench
        .dump_on_error(async {
            bench.provider("vpn", 10).await?;
            let mut history = History::start(&bench.client, Some(bench.name())).await?;
            let names: Vec<_> = (0..20).map(|index| format!("mask-{index:02}")).collect();
            futures::future::try_join_all(names.iter().map(|name| bench.mask(name))).await?;
            let consumers = all_is_well(&bench, 10).await?;
            run_pods(&bench, &consumers).await?;
            for consumer in &consumers[..5] {
                bench.delete::<Mask>(&consumer.name_any()).await?;
            }
            for consumer in &consumers[..5] {
                bench.gone(consumer).await?;
            }
            let consumers = all_is_well(&bench, 10).await?;
            run_pods(&bench, &consumers).await?;
            same("most users at once", history.judge().await?.into_values().max(), Some(10))?;
            // Nobody was deleted but by the user.
            let ever = history.consumers();
            ensure!(ever == names.len(), "{ever} MaskConsumers for {} Masks", names.len());
            bench.clear(LIMIT).await?;
            all_is_well(&bench, 0).await.map(drop)
        })
        .await?;
    for operator in operators {
        operator.stop().await?;
    }
    Ok(())
}
