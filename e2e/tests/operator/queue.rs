//! The order in which Masks get free slots.

use anyhow::{Context, Result, ensure};
use e2e::{
    Framework, History,
    history::Object,
    testing::framework::ensure_eq,
    wait::{is_active, ready_condition},
};
use kube::ResourceExt;
use serde_json::json;
use vpn_types::{Mask, MaskConsumer, MaskSpec};

/// Returns the names of the MaskConsumers in the order of their assignment.
async fn assigned(history: &mut History) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for change in history.changes().await? {
        if let Object::Consumer(consumer) = &change.object
            && is_active(consumer)
            && !names.contains(&consumer.name_any())
        {
            names.push(consumer.name_any());
        }
    }
    Ok(names)
}

async fn wait_for_place(f: &Framework, name: &str, place: usize) -> Result<MaskConsumer> {
    let wanted = format!("place {place} in line");
    let says =
        |consumer: &MaskConsumer| ready_condition(consumer).is_some_and(|ready| ready.message.ends_with(&wanted));
    f.wait_until(name, &wanted, says).await
}

#[tokio::test]
async fn first_come_first_served_but_priority_before() -> Result<()> {
    Framework::test("order", async |f| {
        f.create_provider("vpn", 1).await?;
        let mut history = History::start(&f.client, Some(f.name())).await?;
        f.create_active_mask("holder").await?;
        // Masks that are created within one second count as equally old, so the name decides.
        for (name, priority) in [("a", None), ("b", None), ("c", None), ("low", Some(-1)), ("high", Some(7))] {
            f.create(Mask::new(name, MaskSpec { priority, ..Default::default() })).await?;
            f.wait_for_reason::<MaskConsumer>(name, "NoFreeSlot").await?;
        }
        for (place, name) in ["high", "a", "b", "c", "low"].into_iter().enumerate() {
            wait_for_place(f, name, place + 1).await?;
            let mask = f.wait_until("low", "in line", |mask: &Mask| ready_condition(mask).is_some()).await?;
            ensure_eq("reason", ready_condition(&mask).map(|ready| ready.reason), Some("NoFreeSlot".into()))?;
        }
        let order = ["holder", "high", "a", "b", "c", "low"];
        for pair in order.windows(2) {
            f.delete::<Mask>(pair[0]).await?;
            f.wait_active(pair[1]).await?;
        }
        ensure_eq("order", assigned(&mut history).await?, order.map(String::from).to_vec())?;
        ensure_eq("most users at once", history.check_slot_limits().await?.into_values().max(), Some(1))
    })
    .await
}

#[tokio::test]
async fn one_free_slot_goes_to_one_waiter_and_the_others_move_up() -> Result<()> {
    Framework::test("one-slot", async |f| {
        f.create_provider("vpn", 2).await?;
        let mut history = History::start(&f.client, Some(f.name())).await?;
        for name in ["x", "y"] {
            f.create_active_mask(name).await?;
        }
        let waiters = ["a", "b", "c", "d"];
        for name in waiters {
            f.create_mask(name).await?;
            f.wait_for_reason::<MaskConsumer>(name, "NoFreeSlot").await?;
        }
        let before: Vec<MaskConsumer> = f.wait_until_all("six", |all: &[MaskConsumer]| all.len() == 6).await?;
        f.delete::<Mask>("x").await?;
        f.wait_active("a").await?;
        for (index, name) in ["b", "c", "d"].into_iter().enumerate() {
            let waiter = wait_for_place(f, name, index + 1).await?;
            let same_one = before.iter().any(|consumer| consumer.uid() == waiter.uid());
            ensure!(same_one, "{name} waits, but in another MaskConsumer than before");
        }
        ensure_eq("assigned", assigned(&mut history).await?, ["x", "y", "a"].map(String::from).to_vec())
    })
    .await
}

#[tokio::test]
async fn a_waiter_that_cannot_be_served_blocks_nobody() -> Result<()> {
    Framework::test("unblocked", async |f| {
        for name in ["london", "paris"] {
            f.create_provider_with(name, 1, |spec| spec.tags = Some(vec![name.to_owned()])).await?;
            f.create_mask_with_tags(&format!("in-{name}"), &[name]).await?;
            f.wait_active(&format!("in-{name}")).await?;
        }
        // First in the queue, but with tags that do not match the provider.
        let providers = Some(vec!["london".to_owned()]);
        f.create(Mask::new("first", MaskSpec { providers, priority: Some(9), ..Default::default() })).await?;
        f.wait_for_reason::<MaskConsumer>("first", "NoFreeSlot").await?;
        f.create_mask_with_tags("second", &["paris"]).await?;
        f.wait_for_reason::<MaskConsumer>("second", "NoFreeSlot").await?;
        f.delete::<Mask>("in-paris").await?;
        let second = f.wait_active("second").await?;
        let provider = second.status.and_then(|status| status.provider).context("no provider")?;
        ensure_eq("provider", &*provider.name, "paris")?;
        let first = f.api::<MaskConsumer>().get("first").await?;
        ensure!(!is_active(&first), "assigned to a provider that it did not ask for");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_edited_priority_moves_who_waits() -> Result<()> {
    Framework::test("edited-priority", async |f| {
        f.create_provider("vpn", 1).await?;
        f.create_active_mask("holder").await?;
        for (index, name) in ["a", "b"].into_iter().enumerate() {
            f.create_mask(name).await?;
            wait_for_place(f, name, index + 1).await?;
        }
        f.patch::<Mask>("b", json!({ "spec": { "priority": 5 } })).await?;
        wait_for_place(f, "b", 1).await?;
        wait_for_place(f, "a", 2).await?;
        f.delete::<Mask>("holder").await?;
        f.wait_active("b").await.map(drop)
    })
    .await
}
