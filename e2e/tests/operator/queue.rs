//! Who gets the next free slot.

use anyhow::{Context, Result, ensure};
use e2e::{
    Bench, History,
    history::Seen,
    testing::bench::same,
    wait::{is_active, ready_condition},
};
use kube::ResourceExt;
use serde_json::json;
use vpn_types::{Mask, MaskConsumer, MaskSpec};

/// The names of the MaskConsumers in the order in which they were assigned.
async fn assigned(history: &mut History) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for moment in history.moments().await? {
        if let Seen::Consumer(consumer) = &moment.seen
            && is_active(consumer)
            && !names.contains(&consumer.name_any())
        {
            names.push(consumer.name_any());
        }
    }
    Ok(names)
}

async fn wait_for_place(bench: &Bench, name: &str, place: usize) -> Result<MaskConsumer> {
    let wanted = format!("place {place} in line");
    let says =
        |consumer: &MaskConsumer| ready_condition(consumer).is_some_and(|ready| ready.message.ends_with(&wanted));
    bench.until(name, &wanted, says).await
}

#[tokio::test]
async fn first_come_first_served_but_priority_before() -> Result<()> {
    Bench::test("order", async |bench| {
        bench.provider("vpn", 1).await?;
        let mut history = History::start(&bench.client, Some(bench.name())).await?;
        bench.active_mask("holder").await?;
        // Made within a second they count as equally old: then the name decides.
        for (name, priority) in [("a", None), ("b", None), ("c", None), ("low", Some(-1)), ("high", Some(7))] {
            bench.create(Mask::new(name, MaskSpec { priority, ..Default::default() })).await?;
            bench.says::<MaskConsumer>(name, "NoFreeSlot").await?;
        }
        for (place, name) in ["high", "a", "b", "c", "low"].into_iter().enumerate() {
            wait_for_place(bench, name, place + 1).await?;
            let mask = bench.until("low", "in line", |mask: &Mask| ready_condition(mask).is_some()).await?;
            same("reason", ready_condition(&mask).map(|ready| ready.reason), Some("NoFreeSlot".into()))?;
        }
        let order = ["holder", "high", "a", "b", "c", "low"];
        for pair in order.windows(2) {
            bench.delete::<Mask>(pair[0]).await?;
            bench.active(pair[1]).await?;
        }
        same("order", assigned(&mut history).await?, order.map(String::from).to_vec())?;
        same("most users at once", history.judge().await?.into_values().max(), Some(1))
    })
    .await
}

#[tokio::test]
async fn one_free_slot_goes_to_one_waiter_and_the_others_move_up() -> Result<()> {
    Bench::test("one-slot", async |bench| {
        bench.provider("vpn", 2).await?;
        let mut history = History::start(&bench.client, Some(bench.name())).await?;
        for name in ["x", "y"] {
            bench.active_mask(name).await?;
        }
        let waiters = ["a", "b", "c", "d"];
        for name in waiters {
            bench.mask(name).await?;
            bench.says::<MaskConsumer>(name, "NoFreeSlot").await?;
        }
        let before: Vec<MaskConsumer> = bench.until_all("six", |all: &[MaskConsumer]| all.len() == 6).await?;
        bench.delete::<Mask>("x").await?;
        bench.active("a").await?;
        for (index, name) in ["b", "c", "d"].into_iter().enumerate() {
            let waiter = wait_for_place(bench, name, index + 1).await?;
            let same_one = before.iter().any(|consumer| consumer.uid() == waiter.uid());
            ensure!(same_one, "{name} waits, but in another MaskConsumer than before");
        }
        same("assigned", assigned(&mut history).await?, ["x", "y", "a"].map(String::from).to_vec())
    })
    .await
}

#[tokio::test]
async fn a_waiter_that_cannot_be_served_blocks_nobody() -> Result<()> {
    Bench::test("unblocked", async |bench| {
        for name in ["london", "paris"] {
            bench.provider_with(name, 1, |spec| spec.tags = Some(vec![name.to_owned()])).await?;
            bench.mask_tagged(&format!("in-{name}"), &[name]).await?;
            bench.active(&format!("in-{name}")).await?;
        }
        // First in every respect, but for the wrong account.
        let providers = Some(vec!["london".to_owned()]);
        bench.create(Mask::new("first", MaskSpec { providers, priority: Some(9) })).await?;
        bench.says::<MaskConsumer>("first", "NoFreeSlot").await?;
        bench.mask_tagged("second", &["paris"]).await?;
        bench.says::<MaskConsumer>("second", "NoFreeSlot").await?;
        bench.delete::<Mask>("in-paris").await?;
        let second = bench.active("second").await?;
        let provider = second.status.and_then(|status| status.provider).context("no provider")?;
        same("provider", &*provider.name, "paris")?;
        let first = bench.api::<MaskConsumer>().get("first").await?;
        ensure!(!is_active(&first), "assigned to a provider that it did not ask for");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_edited_priority_moves_who_waits() -> Result<()> {
    Bench::test("edited-priority", async |bench| {
        bench.provider("vpn", 1).await?;
        bench.active_mask("holder").await?;
        for (index, name) in ["a", "b"].into_iter().enumerate() {
            bench.mask(name).await?;
            wait_for_place(bench, name, index + 1).await?;
        }
        bench.patch::<Mask>("b", json!({ "spec": { "priority": 5 } })).await?;
        wait_for_place(bench, "b", 1).await?;
        wait_for_place(bench, "a", 2).await?;
        bench.delete::<Mask>("holder").await?;
        bench.active("b").await.map(drop)
    })
    .await
}
