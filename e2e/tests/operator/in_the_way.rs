//! Objects of somebody else where the operator wants to put its own: they are named, left alone, and once they are
//! gone all goes on by itself.

use anyhow::{Context, Result, ensure};
use e2e::{
    Bench, History,
    pods::usage::secret_of,
    testing::bench::same,
    wait::{Kind, is_active, is_ready, ready_condition},
};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use serde_json::json;
use vpn_types::{
    FINALIZER, Mask, MaskConsumer, MaskConsumerSpec, MaskProvider, MaskReservation, MaskReservationSpec, secret_name,
};

const THEIRS: &str = "example.com/theirs";

fn message<K: Kind>(object: &K) -> String {
    ready_condition(object).map(|ready| ready.message).unwrap_or_default()
}

/// Puts somebody's finalizer on an object, before ours or after it.
async fn hold<K: Kind>(bench: &Bench, object: &K, first: bool) -> Result<K> {
    let mut finalizers = object.finalizers().to_vec();
    finalizers.insert(if first { 0 } else { finalizers.len() }, THEIRS.to_owned());
    bench.patch(&object.name_any(), json!({ "metadata": { "finalizers": finalizers } })).await
}

async fn let_go<K: Kind>(bench: &Bench, object: &K) -> Result<()> {
    bench.patch::<K>(&object.name_any(), json!({ "metadata": { "finalizers": null } })).await.map(drop)
}

#[tokio::test]
async fn a_secret_of_the_copys_name_costs_nobody_a_slot() -> Result<()> {
    Bench::test("their-secret", async |bench| {
        let provider = bench.provider("vpn", 1).await?;
        let name = secret_name("blocked", &provider.uid().context("no uid")?);
        bench.kubectl(&["create", "secret", "generic", &name, "--from-literal=theirs=yes"]).await?;
        let theirs = bench.api::<Secret>().get(&name).await?;
        let mut history = History::start(&bench.client, Some(bench.name())).await?;

        bench.mask("blocked").await?;
        let blocked = bench.says::<MaskConsumer>("blocked", "SecretNameTaken").await?;
        ensure!(message(&blocked).contains(&name), "the Secret is not named: {}", message(&blocked));
        let phase = bench.kubectl(&["get", "maskconsumer", "blocked", "-o", "jsonpath={.status.phase}"]).await?;
        same("phase", phase.trim(), "Waiting")?;
        bench.says::<Mask>("blocked", "SecretNameTaken").await?;
        bench.told::<Mask>("blocked", "SecretNameTaken", &[&name]).await?;

        // The only slot goes to whoever can use it.
        let other = bench.active_mask("other").await?;
        let mine = |all: &[MaskReservation]| all.len() == 1 && Some(&all[0].spec.uid) == other.uid().as_ref();
        bench.until_all("one reservation, for the other", mine).await?;
        same("their Secret", bench.api::<Secret>().get(&name).await?, theirs)?;

        bench.kubectl(&["delete", "secret", &name]).await?;
        bench.delete::<Mask>("other").await?;
        let served = bench.active("blocked").await?;
        same("the same MaskConsumer", served.uid(), blocked.uid())?;
        let copy = bench.api::<Secret>().get(&name).await?;
        ensure!(copy.owner_references().iter().any(|owner| Some(&owner.uid) == served.uid().as_ref()), "not the copy");
        same("most users at once", history.judge().await?.into_values().max(), Some(1))
    })
    .await
}

#[tokio::test]
async fn a_secret_in_the_way_is_seen_to_be_gone_without_other_changes() -> Result<()> {
    Bench::test("secret-goes", async |bench| {
        let provider = bench.provider("vpn", 1).await?;
        let name = secret_name("mine", &provider.uid().context("no uid")?);
        bench.kubectl(&["create", "secret", "generic", &name]).await?;
        bench.mask("mine").await?;
        bench.says::<Mask>("mine", "SecretNameTaken").await?;
        bench.kubectl(&["delete", "secret", &name]).await?;
        bench.kubectl(&["wait", "--for=condition=Ready", "mask/mine", "--timeout=60s"]).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_consumer_made_by_hand_is_no_masks() -> Result<()> {
    Bench::test("their-consumer", async |bench| {
        bench.provider("vpn", 2).await?;
        let spec = MaskConsumerSpec { priority: Some(3), ..Default::default() };
        bench.create(MaskConsumer::new("mine", spec.clone())).await?;
        let theirs = bench.active("mine").await?;
        let mask = bench.mask("mine").await?;
        let told = bench.says::<Mask>("mine", "ConsumerNameTaken").await?;
        ensure!(message(&told).contains("a MaskConsumer mine exists"), "{}", message(&told));
        bench.told::<Mask>("mine", "ConsumerNameTaken", &["a MaskConsumer mine exists"]).await?;

        let now = bench.api::<MaskConsumer>().get("mine").await?;
        same("spec", &now.spec, &spec)?;
        same("owners", now.owner_references().len(), 0)?;
        same("status", now.status, theirs.status.clone())?;
        // Deleting the Mask is no reason to take its slot.
        bench.delete::<Mask>("mine").await?;
        bench.gone(&mask).await?;
        let now = bench.api::<MaskConsumer>().get("mine").await?;
        same("after the Mask", (now.uid(), now.metadata.deletion_timestamp.is_none()), (theirs.uid(), true))?;

        let mask = bench.mask("mine").await?;
        bench.says::<Mask>("mine", "ConsumerNameTaken").await?;
        bench.kubectl(&["delete", "maskconsumer", "mine"]).await?;
        let served = bench.until("mine", "Ready", |mask: &Mask| is_ready(mask)).await?;
        same("the same Mask", served.uid(), mask.uid())?;
        let consumer = bench.active("mine").await?;
        same("owner", consumer.owner_references().first().map(|owner| &*owner.uid), mask.uid().as_deref())
    })
    .await
}

#[tokio::test]
async fn a_reservation_made_by_hand_blocks_its_slot_and_no_other() -> Result<()> {
    Bench::test("their-lock", async |bench| {
        let spec = MaskReservationSpec { name: "nobody".into(), namespace: bench.name().into(), uid: "none".into() };
        let theirs = bench.create(MaskReservation::new("vpn-0", spec)).await?;
        bench.provider("vpn", 2).await?;
        let consumer = bench.active_mask("mine").await?;
        let slot = consumer.status.and_then(|status| status.provider).map(|provider| provider.slot);
        same("slot", slot, Some(1))?;
        let named = |provider: &MaskProvider| message(provider).contains("MaskReservation vpn-0 was not made by");
        bench.until("vpn", "the reservation is named", named).await?;
        bench.told::<MaskProvider>("vpn", "SlotBlocked", &["MaskReservation vpn-0"]).await?;
        bench.mask("second").await?;
        bench.says::<MaskConsumer>("second", "NoFreeSlot").await?;
        same("their reservation", bench.api::<MaskReservation>().get("vpn-0").await?, theirs)?;

        bench.kubectl(&["delete", "maskreservation", "vpn-0"]).await?;
        let second = bench.active("second").await?;
        let slot = second.status.and_then(|status| status.provider).map(|provider| provider.slot);
        same("slot of the second", slot, Some(0))?;
        bench.until("vpn", "it is named no more", |provider| !named(provider)).await?;
        // Nor is one deleted with the provider.
        let spec = MaskReservationSpec { name: "nobody".into(), namespace: bench.name().into(), uid: "none".into() };
        let theirs = bench.create(MaskReservation::new("vpn-7", spec)).await?;
        for mask in ["mine", "second"] {
            bench.delete::<Mask>(mask).await?;
        }
        let provider = bench.api::<MaskProvider>().get("vpn").await?;
        bench.delete::<MaskProvider>("vpn").await?;
        bench.gone(&provider).await?;
        same("their reservation", bench.api::<MaskReservation>().get("vpn-7").await?, theirs)
    })
    .await
}

#[tokio::test]
async fn somebodys_finalizer_on_the_copy_holds_the_slot() -> Result<()> {
    Bench::test("held-copy", async |bench| {
        bench.provider("vpn", 1).await?;
        let mut history = History::start(&bench.client, Some(bench.name())).await?;
        let first = bench.active_mask("first").await?;
        let copy = bench.api::<Secret>().get(&secret_of(&first)?).await?;
        let copy = hold(bench, &copy, true).await?;
        bench.mask("second").await?;
        bench.says::<MaskConsumer>("second", "NoFreeSlot").await?;
        bench.delete::<Mask>("first").await?;
        let held: MaskConsumer = bench.says("first", "HeldByFinalizer").await?;
        ensure!(message(&held).contains(&copy.name_any()), "{}", message(&held));
        bench.told::<Mask>("first", "HeldByFinalizer", &[&copy.name_any()]).await?;
        let now = bench.api::<Secret>().get(&copy.name_any()).await?;
        same("finalizers", now.finalizers(), &[THEIRS.to_owned()])?;
        ensure!(!is_active(&bench.api::<MaskConsumer>().get("second").await?), "the slot was given away");
        let_go(bench, &copy).await?;
        bench.active("second").await?;
        bench.gone(&first).await?;
        same("most users at once", history.judge().await?.into_values().max(), Some(1))
    })
    .await
}

#[tokio::test]
async fn somebodys_finalizer_on_the_consumer_holds_the_slot() -> Result<()> {
    for (prefix, before_ours) in [("held-before", true), ("held-after", false)] {
        Bench::test(prefix, async |bench| {
            bench.provider("vpn", 1).await?;
            let mut history = History::start(&bench.client, Some(bench.name())).await?;
            let first = bench.active_mask("first").await?;
            hold(bench, &first, before_ours).await?;
            bench.mask("second").await?;
            bench.says::<MaskConsumer>("second", "NoFreeSlot").await?;
            bench.delete::<Mask>("first").await?;
            let ours_is_off = |consumer: &MaskConsumer| !consumer.finalizers().iter().any(|name| name == FINALIZER);
            let held = bench.until("first", "without our finalizer", ours_is_off).await?;
            ensure!(held.finalizers().contains(&THEIRS.to_owned()), "{:?}", held.finalizers());
            bench.says::<MaskReservation>("vpn-0", "HeldByFinalizer").await?;
            bench.told::<MaskReservation>("vpn-0", "HeldByFinalizer", &["MaskConsumer"]).await?;
            ensure!(!is_active(&bench.api::<MaskConsumer>().get("second").await?), "the slot was given away");
            let_go(bench, &first).await?;
            bench.active("second").await?;
            same("most users at once", history.judge().await?.into_values().max(), Some(1))
        })
        .await?;
    }
    Ok(())
}
