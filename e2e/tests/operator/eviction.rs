//! When what a slot rests on is changed or taken away.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use e2e::{
    Bench, History,
    pods::usage::{secret_of, user_pod},
    testing::bench::same,
    wait::{is_active, ready_condition},
};
use k8s_openapi::{
    ByteString,
    api::core::v1::{Pod, Secret},
};
use kube::ResourceExt;
use serde_json::{Value, json};
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskReservation};

/// The slots in use, by the names of the MaskConsumers.
fn slots(consumers: &[MaskConsumer]) -> BTreeMap<String, usize> {
    let active = consumers.iter().filter(|consumer| is_active(consumer));
    let slot = |consumer: &MaskConsumer| Some(consumer.status.as_ref()?.provider.as_ref()?.slot);
    active.filter_map(|consumer| Some((consumer.name_any(), slot(consumer)?))).collect()
}

#[tokio::test]
async fn fewer_slots_are_reached_as_any_workload_is_scaled_down() -> Result<()> {
    Bench::test("scale", async |bench| {
        bench.provider("vpn", 3).await?;
        let mut history = History::start(&bench.client, Some(bench.name())).await?;
        for name in ["a", "b", "c"] {
            let consumer = bench.active_mask(name).await?;
            bench.run_pod(user_pod(name, &consumer, 2)?).await?;
        }
        let before = slots(&bench.api().list(&Default::default()).await?.items);
        bench.kubectl(&["scale", "maskprovider/vpn", "--replicas=1"]).await?;
        bench.mask("newcomer").await?;
        // The Pods take their time, and meanwhile nothing is assigned.
        bench.says::<MaskProvider>("vpn", "ProviderDraining").await?;
        bench.told::<MaskProvider>("vpn", "ProviderDraining", &["maxSlots is 1"]).await?;
        for name in before.iter().filter(|(_, slot)| **slot > 0).map(|(name, _)| name) {
            bench.told::<Mask>(name, "Evicted", &["beyond its maxSlots 1"]).await?;
        }
        bench
            .until("vpn", "drained", |provider: &MaskProvider| {
                let status = provider.status.clone().unwrap_or_default();
                status.active_slots == Some(1) && status.observed_generation == provider.metadata.generation
            })
            .await?;
        // The lowest slot stays; the others wait again, and before the newcomer.
        let stays: BTreeMap<_, _> = before.into_iter().filter(|(_, slot)| *slot == 0).collect();
        let waits = |consumers: &[MaskConsumer]| consumers.len() == 4 && slots(consumers) == stays;
        bench.until_all("one active, three waiting", waits).await?;
        same("Pods left", bench.api::<Pod>().list(&Default::default()).await?.items.len(), 1)?;
        bench.kubectl(&["scale", "maskprovider/vpn", "--replicas=3"]).await?;
        let old_ones_only = |consumers: &[MaskConsumer]| slots(consumers).keys().eq(["a", "b", "c"].iter());
        bench.until_all("the three of before", old_ones_only).await?;
        same("most users at once", history.judge().await?.into_values().max(), Some(3))
    })
    .await
}

#[tokio::test]
async fn a_deleted_provider_stays_until_its_last_user_is_gone() -> Result<()> {
    Bench::test("provider-gone", async |bench| {
        let provider = bench.provider("vpn", 1).await?;
        let mut history = History::start(&bench.client, Some(bench.name())).await?;
        let consumer = bench.active_mask("mine").await?;
        let pod = bench.run_pod(user_pod("user", &consumer, 2)?).await?;
        bench.delete::<MaskProvider>("vpn").await?;
        bench.says::<MaskProvider>("vpn", "Deleting").await?;
        bench.told::<MaskProvider>("vpn", "Deleting", &["slots still have to be given back"]).await?;
        bench.told::<Mask>("mine", "Evicted", &["is being deleted"]).await?;
        bench.gone(&provider).await?;
        ensure!(bench.api::<Pod>().get_opt("user").await?.is_none_or(|now| now.uid() != pod.uid()), "its Pod runs on");
        bench.gone(&consumer).await?;
        bench.says::<Mask>("mine", "NoProviderFits").await?;
        bench.told::<Mask>("mine", "NoProviderFits", &[]).await?;
        bench.until_all::<MaskReservation>("none", <[_]>::is_empty).await?;
        same("most users at once", history.judge().await?.into_values().max(), Some(1))?;
        // One of the same name is another account.
        bench.create(bench.new_provider("vpn", 1)).await?;
        bench.active("mine").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn changed_credentials_reach_the_copies_while_pods_run_on() -> Result<()> {
    Bench::test("rotation", async |bench| {
        bench.provider("vpn", 1).await?;
        let consumer = bench.active_mask("mine").await?;
        let pod = bench.run_pod(user_pod("user", &consumer, 1)?).await?;
        let changed = json!({ "data": Value::Null, "stringData": { "OPENVPN_PASSWORD": "new" } });
        bench.patch::<Secret>("vpn-credentials", changed).await?;
        let new = BTreeMap::from([("OPENVPN_PASSWORD".to_owned(), ByteString(b"new".to_vec()))]);
        let follows = |copy: &Secret| copy.data.as_ref() == Some(&new);
        bench.until(&secret_of(&consumer)?, "the new data, and nothing of the old", follows).await?;
        bench.told::<Mask>("mine", "CredentialsChanged", &[&secret_of(&consumer)?, "vpn"]).await?;
        let now = bench.api::<Pod>().get("user").await?;
        same("Pod", (now.uid(), now.metadata.deletion_timestamp), (pod.uid(), None))?;
        same("consumer", bench.active("mine").await?.uid(), consumer.uid())
    })
    .await
}

#[tokio::test]
async fn a_copied_secret_deleted_by_hand_is_made_again() -> Result<()> {
    Bench::test("copy-gone", async |bench| {
        bench.provider("vpn", 1).await?;
        let consumer = bench.active_mask("mine").await?;
        let name = secret_of(&consumer)?;
        let copy = bench.api::<Secret>().get(&name).await?;
        bench.delete::<Secret>(&name).await?;
        let again = bench.until(&name, "another one", |secret: &Secret| secret.uid() != copy.uid()).await?;
        same("data", again.data, copy.data)?;
        same("owners", again.metadata.owner_references, copy.metadata.owner_references)?;
        bench.told::<Mask>("mine", "Restored", &["Secret", &name]).await?;
        same("consumer", bench.active("mine").await?.uid(), consumer.uid())
    })
    .await
}

#[tokio::test]
async fn a_reservation_deleted_by_hand_still_holds_its_slot() -> Result<()> {
    Bench::test("reservation-gone", async |bench| {
        bench.provider("vpn", 1).await?;
        let mut history = History::start(&bench.client, Some(bench.name())).await?;
        let consumer = bench.active_mask("mine").await?;
        bench.run_pod(user_pod("user", &consumer, 1)?).await?;
        let reservation = bench.api::<MaskReservation>().get("vpn-0").await?;
        bench.delete::<MaskReservation>("vpn-0").await?;
        bench.told::<MaskReservation>("vpn-0", "SlotInUse", &["to be deleted", "MaskConsumer"]).await?;
        bench.mask("other").await?;
        bench.says::<MaskConsumer>("other", "NoFreeSlot").await?;
        let now = bench.api::<MaskReservation>().get("vpn-0").await?;
        ensure!(now.uid() == reservation.uid() && now.metadata.deletion_timestamp.is_some(), "{now:?}");
        same("consumer", bench.active("mine").await?.uid(), consumer.uid())?;

        bench.delete::<Mask>("mine").await?;
        bench.active("other").await?;
        bench.gone(&reservation).await?;
        same("most users at once", history.judge().await?.into_values().max(), Some(1))
    })
    .await
}

#[tokio::test]
async fn a_reservation_forced_away_is_posted_again() -> Result<()> {
    Bench::test("forced-away", async |bench| {
        bench.provider("vpn", 1).await?;
        let mut history = History::start(&bench.client, Some(bench.name())).await?;
        let consumer = bench.active_mask("mine").await?;
        bench.run_pod(user_pod("user", &consumer, 1)?).await?;
        // Somebody waits for the slot, and must not get it while its lock is missing.
        bench.mask("other").await?;
        let waits = |mask: &Mask| ready_condition(mask).is_some_and(|ready| ready.reason == "NoFreeSlot");
        bench.until("other", "in line", waits).await?;
        let reservation = bench.api::<MaskReservation>().get("vpn-0").await?;
        bench.delete::<MaskReservation>("vpn-0").await?;
        bench.patch::<MaskReservation>("vpn-0", json!({ "metadata": { "finalizers": Value::Null } })).await?;
        let again = bench.until("vpn-0", "another one", |now: &MaskReservation| now.uid() != reservation.uid()).await?;
        same("its consumer", Some(again.spec.uid.clone()), consumer.uid())?;
        let names_it = |consumer: &MaskConsumer| {
            let provider = consumer.status.as_ref().and_then(|status| status.provider.as_ref());
            provider.is_some_and(|provider| Some(&provider.reservation) == again.metadata.uid.as_ref())
        };
        bench.told::<Mask>("mine", "Restored", &["MaskReservation", "vpn-0"]).await?;
        let kept = bench.until("mine", "naming the new reservation", names_it).await?;
        same("consumer", kept.uid(), consumer.uid())?;

        bench.delete::<Mask>("mine").await?;
        let other = bench.active("other").await?;
        let provider = other.status.and_then(|status| status.provider).context("no provider")?;
        ensure!(Some(provider.reservation) != again.uid(), "an old reservation for a new consumer");
        same("most users at once", history.judge().await?.into_values().max(), Some(1))
    })
    .await
}

#[tokio::test]
async fn no_slots_at_all() -> Result<()> {
    Bench::test("no-slots", async |bench| {
        bench.provider("vpn", 1).await?;
        let first = bench.active_mask("mine").await?;
        bench.patch::<MaskProvider>("vpn", json!({ "spec": { "maxSlots": 0 } })).await?;
        bench.gone(&first).await?;
        bench.told::<Mask>("mine", "Evicted", &["beyond its maxSlots 0"]).await?;
        bench.says::<MaskProvider>("vpn", "NoSlots").await?;
        bench.told::<MaskProvider>("vpn", "NoSlots", &["maxSlots is 0"]).await?;
        bench.says::<Mask>("mine", "NoProviderUsable").await?;
        bench.told::<Mask>("mine", "NoProviderUsable", &["maxSlots is 0"]).await?;
        bench.kubectl(&["scale", "maskprovider/vpn", "--replicas=1"]).await?;
        bench.active("mine").await?;
        bench.told::<MaskProvider>("vpn", "Available", &[]).await
    })
    .await
}

#[tokio::test]
async fn credentials_that_go_and_come_back() -> Result<()> {
    Bench::test("credentials-gone", async |bench| {
        bench.provider("vpn", 2).await?;
        let consumer = bench.active_mask("mine").await?;
        let pod = bench.run_pod(user_pod("user", &consumer, 1)?).await?;
        let copy = bench.api::<Secret>().get(&secret_of(&consumer)?).await?;
        bench.delete::<Secret>("vpn-credentials").await?;
        bench.says::<MaskProvider>("vpn", "SecretNotFound").await?;
        bench.told::<MaskProvider>("vpn", "SecretNotFound", &["vpn-credentials"]).await?;
        bench.mask("other").await?;
        bench.says::<Mask>("other", "NoProviderUsable").await?;
        bench.told::<Mask>("other", "NoProviderUsable", &["vpn-credentials"]).await?;
        // Whoever has a slot keeps all of it.
        let now = bench.api::<Secret>().get(&copy.name_any()).await?;
        same("copy", (now.uid(), now.data), (copy.uid(), copy.data))?;
        let now = bench.api::<Pod>().get("user").await?;
        same("Pod", (now.uid(), now.metadata.deletion_timestamp), (pod.uid(), None))?;
        bench.credentials("vpn").await?;
        bench.active("other").await?;
        same("consumer", bench.active("mine").await?.uid(), consumer.uid())
    })
    .await
}

/// Who has a slot was let in; what fits is asked of those who come.
#[tokio::test]
async fn tags_and_namespaces_edited_under_use() -> Result<()> {
    Bench::test("edited", async |bench| {
        bench.provider_with("vpn", 3, |spec| spec.tags = Some(vec!["old".to_owned()])).await?;
        bench.mask_tagged("mine", &["old"]).await?;
        let consumer = bench.active("mine").await?;
        bench.patch::<MaskProvider>("vpn", json!({ "spec": { "tags": ["new"] } })).await?;
        bench.mask_tagged("late", &["old"]).await?;
        bench.says::<Mask>("late", "NoProviderFits").await?;
        bench.told::<Mask>("late", "NoProviderFits", &["old"]).await?;
        bench.mask_tagged("next", &["new"]).await?;
        bench.active("next").await?;
        bench.patch::<MaskProvider>("vpn", json!({ "spec": { "namespaces": ["elsewhere"] } })).await?;
        bench.mask_tagged("last", &["new"]).await?;
        bench.says::<Mask>("last", "NoProviderFits").await?;
        bench.told::<Mask>("last", "NoProviderFits", &[bench.name()]).await?;
        same("consumer", bench.active("mine").await?.uid(), consumer.uid())?;
        bench.patch::<MaskProvider>("vpn", json!({ "spec": { "namespaces": [bench.name()] } })).await?;
        bench.active("last").await.map(drop)
    })
    .await
}
