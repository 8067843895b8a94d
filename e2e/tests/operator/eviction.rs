//! Evictions: an object that a slot depends on is changed or deleted.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use e2e::{
    Framework, History,
    pods::usage::{owned_pod, slot_secret_name},
    testing::framework::ensure_eq,
    wait::{is_active, ready_condition},
};
use k8s_openapi::{
    ByteString,
    api::core::v1::{Pod, Secret},
};
use kube::ResourceExt;
use serde_json::{Value, json};
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskReservation};

/// Returns the slots in use, by MaskConsumer name.
fn slots(consumers: &[MaskConsumer]) -> BTreeMap<String, usize> {
    let active = consumers.iter().filter(|consumer| is_active(consumer));
    let slot = |consumer: &MaskConsumer| Some(consumer.status.as_ref()?.provider.as_ref()?.slot);
    active.filter_map(|consumer| Some((consumer.name_any(), slot(consumer)?))).collect()
}

#[tokio::test]
async fn fewer_slots_are_reached_as_any_workload_is_scaled_down() -> Result<()> {
    Framework::test("scale", async |f| {
        f.create_provider("vpn", 3).await?;
        let mut history = History::start(&f.client, Some(f.name())).await?;
        for name in ["a", "b", "c"] {
            let consumer = f.create_active_mask(name).await?;
            // Long enough that the status shows it.
            f.run_pod(owned_pod(name, &consumer, 5)?).await?;
        }
        let before = slots(&f.api().list(&Default::default()).await?.items);
        f.kubectl(&["scale", "maskprovider/vpn", "--replicas=1"]).await?;
        f.create_mask("newcomer").await?;
        // The Pods take some time to stop, and nothing is assigned until then.
        f.wait_for_reason::<MaskProvider>("vpn", "ProviderDraining").await?;
        f.wait_for_event::<MaskProvider>("vpn", "ProviderDraining", &["maxSlots is 1"]).await?;
        for name in before.iter().filter(|(_, slot)| **slot > 0).map(|(name, _)| name) {
            f.wait_for_event::<Mask>(name, "Evicted", &["beyond its maxSlots 1"]).await?;
        }
        f.wait_until("vpn", "drained", |provider: &MaskProvider| {
            let status = provider.status.clone().unwrap_or_default();
            status.active_slots == Some(1) && status.observed_generation == provider.metadata.generation
        })
        .await?;
        // The lowest slot stays assigned. The other Masks wait again, ahead of the new one.
        let stays: BTreeMap<_, _> = before.into_iter().filter(|(_, slot)| *slot == 0).collect();
        let waits = |consumers: &[MaskConsumer]| consumers.len() == 4 && slots(consumers) == stays;
        f.wait_until_all("one active, three waiting", waits).await?;
        ensure_eq("Pods left", f.api::<Pod>().list(&Default::default()).await?.items.len(), 1)?;
        f.kubectl(&["scale", "maskprovider/vpn", "--replicas=3"]).await?;
        let old_ones_only = |consumers: &[MaskConsumer]| slots(consumers).keys().eq(["a", "b", "c"].iter());
        f.wait_until_all("only the three old MaskConsumers", old_ones_only).await?;
        ensure_eq("most users at once", history.check_slot_limits().await?.into_values().max(), Some(3))
    })
    .await
}

#[tokio::test]
async fn a_deleted_provider_stays_until_its_last_user_is_gone() -> Result<()> {
    Framework::test("provider-gone", async |f| {
        let provider = f.create_provider("vpn", 1).await?;
        let mut history = History::start(&f.client, Some(f.name())).await?;
        let consumer = f.create_active_mask("mine").await?;
        // Long enough that the status shows it.
        let pod = f.run_pod(owned_pod("user", &consumer, 5)?).await?;
        f.delete::<MaskProvider>("vpn").await?;
        f.wait_for_reason::<MaskProvider>("vpn", "Deleting").await?;
        f.wait_for_event::<MaskProvider>("vpn", "Deleting", &["slots still to be released"]).await?;
        f.wait_for_event::<Mask>("mine", "Evicted", &["is being deleted"]).await?;
        f.wait_deleted(&provider).await?;
        ensure!(f.api::<Pod>().get_opt("user").await?.is_none_or(|now| now.uid() != pod.uid()), "its Pod runs on");
        f.wait_deleted(&consumer).await?;
        f.wait_for_reason::<Mask>("mine", "NoProviderFits").await?;
        f.wait_for_event::<Mask>("mine", "NoProviderFits", &[]).await?;
        f.wait_until_all::<MaskReservation>("none", <[_]>::is_empty).await?;
        ensure_eq("most users at once", history.check_slot_limits().await?.into_values().max(), Some(1))?;
        // A provider with the same name is another account.
        f.create(f.new_provider("vpn", 1)).await?;
        f.wait_active("mine").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn changed_credentials_reach_the_copies_while_pods_run_on() -> Result<()> {
    Framework::test("rotation", async |f| {
        f.create_provider("vpn", 1).await?;
        let consumer = f.create_active_mask("mine").await?;
        let pod = f.run_pod(owned_pod("user", &consumer, 1)?).await?;
        let changed = json!({ "data": Value::Null, "stringData": { "OPENVPN_PASSWORD": "new" } });
        f.patch::<Secret>("vpn-credentials", changed).await?;
        let new = BTreeMap::from([("OPENVPN_PASSWORD".to_owned(), ByteString(b"new".to_vec()))]);
        let follows = |copy: &Secret| copy.data.as_ref() == Some(&new);
        f.wait_until(&slot_secret_name(&consumer)?, "the new data, and nothing of the old", follows).await?;
        f.wait_for_event::<Mask>("mine", "CredentialsChanged", &[&slot_secret_name(&consumer)?, "vpn"]).await?;
        let now = f.api::<Pod>().get("user").await?;
        ensure_eq("Pod", (now.uid(), now.metadata.deletion_timestamp), (pod.uid(), None))?;
        ensure_eq("consumer", f.wait_active("mine").await?.uid(), consumer.uid())
    })
    .await
}

#[tokio::test]
async fn a_copied_secret_deleted_by_hand_is_made_again() -> Result<()> {
    Framework::test("copy-gone", async |f| {
        f.create_provider("vpn", 1).await?;
        let consumer = f.create_active_mask("mine").await?;
        let name = slot_secret_name(&consumer)?;
        let copy = f.api::<Secret>().get(&name).await?;
        f.delete::<Secret>(&name).await?;
        let again = f.wait_until(&name, "another one", |secret: &Secret| secret.uid() != copy.uid()).await?;
        ensure_eq("data", again.data, copy.data)?;
        ensure_eq("owners", again.metadata.owner_references, copy.metadata.owner_references)?;
        f.wait_for_event::<Mask>("mine", "Restored", &["Secret", &name]).await?;
        ensure_eq("consumer", f.wait_active("mine").await?.uid(), consumer.uid())
    })
    .await
}

#[tokio::test]
async fn a_reservation_deleted_by_hand_still_holds_its_slot() -> Result<()> {
    Framework::test("reservation-gone", async |f| {
        f.create_provider("vpn", 1).await?;
        let mut history = History::start(&f.client, Some(f.name())).await?;
        let consumer = f.create_active_mask("mine").await?;
        f.run_pod(owned_pod("user", &consumer, 1)?).await?;
        let reservation = f.api::<MaskReservation>().get("vpn-0").await?;
        f.delete::<MaskReservation>("vpn-0").await?;
        f.wait_for_event::<MaskReservation>("vpn-0", "SlotInUse", &["Marked for deletion", "MaskConsumer"]).await?;
        f.create_mask("other").await?;
        f.wait_for_reason::<MaskConsumer>("other", "NoFreeSlot").await?;
        let now = f.api::<MaskReservation>().get("vpn-0").await?;
        ensure!(now.uid() == reservation.uid() && now.metadata.deletion_timestamp.is_some(), "{now:?}");
        ensure_eq("consumer", f.wait_active("mine").await?.uid(), consumer.uid())?;

        f.delete::<Mask>("mine").await?;
        f.wait_active("other").await?;
        f.wait_deleted(&reservation).await?;
        ensure_eq("most users at once", history.check_slot_limits().await?.into_values().max(), Some(1))
    })
    .await
}

#[tokio::test]
async fn a_reservation_forced_away_is_posted_again() -> Result<()> {
    Framework::test("forced-away", async |f| {
        f.create_provider("vpn", 1).await?;
        let mut history = History::start(&f.client, Some(f.name())).await?;
        let consumer = f.create_active_mask("mine").await?;
        f.run_pod(owned_pod("user", &consumer, 1)?).await?;
        // Another Mask waits for the slot, and must not get it while the MaskReservation is missing.
        f.create_mask("other").await?;
        let waits = |mask: &Mask| ready_condition(mask).is_some_and(|ready| ready.reason == "NoFreeSlot");
        f.wait_until("other", "in line", waits).await?;
        let reservation = f.api::<MaskReservation>().get("vpn-0").await?;
        f.delete::<MaskReservation>("vpn-0").await?;
        f.patch::<MaskReservation>("vpn-0", json!({ "metadata": { "finalizers": Value::Null } })).await?;
        let again =
            f.wait_until("vpn-0", "another one", |now: &MaskReservation| now.uid() != reservation.uid()).await?;
        ensure_eq("its consumer", Some(again.spec.uid.clone()), consumer.uid())?;
        let names_it = |consumer: &MaskConsumer| {
            let provider = consumer.status.as_ref().and_then(|status| status.provider.as_ref());
            provider.is_some_and(|provider| Some(&provider.reservation) == again.metadata.uid.as_ref())
        };
        f.wait_for_event::<Mask>("mine", "Restored", &["MaskReservation", "vpn-0"]).await?;
        let kept = f.wait_until("mine", "naming the new reservation", names_it).await?;
        ensure_eq("consumer", kept.uid(), consumer.uid())?;

        f.delete::<Mask>("mine").await?;
        let other = f.wait_active("other").await?;
        let provider = other.status.and_then(|status| status.provider).context("no provider")?;
        ensure!(Some(provider.reservation) != again.uid(), "an old reservation for a new consumer");
        ensure_eq("most users at once", history.check_slot_limits().await?.into_values().max(), Some(1))
    })
    .await
}

#[tokio::test]
async fn no_slots_at_all() -> Result<()> {
    Framework::test("no-slots", async |f| {
        f.create_provider("vpn", 1).await?;
        let first = f.create_active_mask("mine").await?;
        f.patch::<MaskProvider>("vpn", json!({ "spec": { "maxSlots": 0 } })).await?;
        f.wait_deleted(&first).await?;
        f.wait_for_event::<Mask>("mine", "Evicted", &["beyond its maxSlots 0"]).await?;
        f.wait_for_reason::<MaskProvider>("vpn", "NoSlots").await?;
        f.wait_for_event::<MaskProvider>("vpn", "NoSlots", &["maxSlots is 0"]).await?;
        f.wait_for_reason::<Mask>("mine", "NoProviderUsable").await?;
        f.wait_for_event::<Mask>("mine", "NoProviderUsable", &["maxSlots is 0"]).await?;
        f.kubectl(&["scale", "maskprovider/vpn", "--replicas=1"]).await?;
        f.wait_active("mine").await?;
        f.wait_for_event::<MaskProvider>("vpn", "Available", &[]).await
    })
    .await
}

#[tokio::test]
async fn credentials_that_go_and_come_back() -> Result<()> {
    Framework::test("credentials-gone", async |f| {
        f.create_provider("vpn", 2).await?;
        let consumer = f.create_active_mask("mine").await?;
        let pod = f.run_pod(owned_pod("user", &consumer, 1)?).await?;
        let copy = f.api::<Secret>().get(&slot_secret_name(&consumer)?).await?;
        f.delete::<Secret>("vpn-credentials").await?;
        f.wait_for_reason::<MaskProvider>("vpn", "SecretNotFound").await?;
        f.wait_for_event::<MaskProvider>("vpn", "SecretNotFound", &["vpn-credentials"]).await?;
        f.create_mask("other").await?;
        f.wait_for_reason::<Mask>("other", "NoProviderUsable").await?;
        f.wait_for_event::<Mask>("other", "NoProviderUsable", &["vpn-credentials"]).await?;
        // A Mask that has a slot keeps it, with its Secret and Pod.
        let now = f.api::<Secret>().get(&copy.name_any()).await?;
        ensure_eq("copy", (now.uid(), now.data), (copy.uid(), copy.data))?;
        let now = f.api::<Pod>().get("user").await?;
        ensure_eq("Pod", (now.uid(), now.metadata.deletion_timestamp), (pod.uid(), None))?;
        f.create_credentials("vpn").await?;
        f.wait_active("other").await?;
        ensure_eq("consumer", f.wait_active("mine").await?.uid(), consumer.uid())
    })
    .await
}

/// Changes of tags and namespaces apply to new Masks, not to those that have a slot.
#[tokio::test]
async fn tags_and_namespaces_edited_under_use() -> Result<()> {
    Framework::test("edited", async |f| {
        f.create_provider_with("vpn", 3, |spec| spec.tags = Some(vec!["old".to_owned()])).await?;
        f.create_mask_with_tags("mine", &["old"]).await?;
        let consumer = f.wait_active("mine").await?;
        f.patch::<MaskProvider>("vpn", json!({ "spec": { "tags": ["new"] } })).await?;
        f.create_mask_with_tags("late", &["old"]).await?;
        f.wait_for_reason::<Mask>("late", "NoProviderFits").await?;
        f.wait_for_event::<Mask>("late", "NoProviderFits", &["old"]).await?;
        f.create_mask_with_tags("next", &["new"]).await?;
        f.wait_active("next").await?;
        f.patch::<MaskProvider>("vpn", json!({ "spec": { "namespaces": ["elsewhere"] } })).await?;
        f.create_mask_with_tags("last", &["new"]).await?;
        f.wait_for_reason::<Mask>("last", "NoProviderFits").await?;
        f.wait_for_event::<Mask>("last", "NoProviderFits", &[f.name()]).await?;
        ensure_eq("consumer", f.wait_active("mine").await?.uid(), consumer.uid())?;
        f.patch::<MaskProvider>("vpn", json!({ "spec": { "namespaces": [f.name()] } })).await?;
        f.wait_active("last").await.map(drop)
    })
    .await
}
