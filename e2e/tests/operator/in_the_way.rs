//! Foreign objects with names that the operator needs. The operator reports them and leaves them alone. Once they are
//! gone, it continues by itself.

use anyhow::{Context, Result, ensure};
use e2e::{
    Framework, History,
    pods::usage::slot_secret_name,
    testing::framework::ensure_eq,
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

/// Adds another owner's finalizer to an object, before or after the operator's.
async fn hold<K: Kind>(f: &Framework, object: &K, first: bool) -> Result<K> {
    let mut finalizers = object.finalizers().to_vec();
    finalizers.insert(if first { 0 } else { finalizers.len() }, THEIRS.to_owned());
    f.patch(&object.name_any(), json!({ "metadata": { "finalizers": finalizers } })).await
}

async fn let_go<K: Kind>(f: &Framework, object: &K) -> Result<()> {
    f.patch::<K>(&object.name_any(), json!({ "metadata": { "finalizers": null } })).await.map(drop)
}

#[tokio::test]
async fn a_secret_of_the_copys_name_costs_nobody_a_slot() -> Result<()> {
    Framework::test("their-secret", async |f| {
        let provider = f.create_provider("vpn", 1).await?;
        let name = secret_name("blocked", &provider.uid().context("no uid")?);
        f.kubectl(&["create", "secret", "generic", &name, "--from-literal=theirs=yes"]).await?;
        let theirs = f.api::<Secret>().get(&name).await?;
        let mut history = History::start(&f.client, Some(f.name())).await?;

        f.create_mask("blocked").await?;
        let blocked = f.wait_for_reason::<MaskConsumer>("blocked", "SecretNameTaken").await?;
        ensure!(message(&blocked).contains(&name), "the Secret is not named: {}", message(&blocked));
        let phase = f.kubectl(&["get", "maskconsumer", "blocked", "-o", "jsonpath={.status.phase}"]).await?;
        ensure_eq("phase", phase.trim(), "Waiting")?;
        f.wait_for_reason::<Mask>("blocked", "SecretNameTaken").await?;
        f.wait_for_event::<Mask>("blocked", "SecretNameTaken", &[&name]).await?;

        // The only slot goes to a Mask that can use it.
        let other = f.create_active_mask("other").await?;
        let mine = |all: &[MaskReservation]| all.len() == 1 && Some(&all[0].spec.uid) == other.uid().as_ref();
        f.wait_until_all("one reservation, for the other", mine).await?;
        ensure_eq("their Secret", f.api::<Secret>().get(&name).await?, theirs)?;

        f.kubectl(&["delete", "secret", &name]).await?;
        f.delete::<Mask>("other").await?;
        let served = f.wait_active("blocked").await?;
        ensure_eq("the same MaskConsumer", served.uid(), blocked.uid())?;
        let copy = f.api::<Secret>().get(&name).await?;
        ensure!(copy.owner_references().iter().any(|owner| Some(&owner.uid) == served.uid().as_ref()), "not the copy");
        ensure_eq("most users at once", history.check_slot_limits().await?.into_values().max(), Some(1))
    })
    .await
}

#[tokio::test]
async fn a_secret_in_the_way_is_seen_to_be_gone_without_other_changes() -> Result<()> {
    Framework::test("secret-goes", async |f| {
        let provider = f.create_provider("vpn", 1).await?;
        let name = secret_name("mine", &provider.uid().context("no uid")?);
        f.kubectl(&["create", "secret", "generic", &name]).await?;
        f.create_mask("mine").await?;
        f.wait_for_reason::<Mask>("mine", "SecretNameTaken").await?;
        f.kubectl(&["delete", "secret", &name]).await?;
        f.kubectl(&["wait", "--for=condition=Ready", "mask/mine", "--timeout=60s"]).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_consumer_made_by_hand_is_no_masks() -> Result<()> {
    Framework::test("their-consumer", async |f| {
        f.create_provider("vpn", 2).await?;
        let spec = MaskConsumerSpec { priority: Some(3), ..Default::default() };
        f.create(MaskConsumer::new("mine", spec.clone())).await?;
        let theirs = f.wait_active("mine").await?;
        let mask = f.create_mask("mine").await?;
        let told = f.wait_for_reason::<Mask>("mine", "ConsumerNameTaken").await?;
        ensure!(message(&told).contains("MaskConsumer mine already exists"), "{}", message(&told));
        f.wait_for_event::<Mask>("mine", "ConsumerNameTaken", &["MaskConsumer mine already exists"]).await?;

        let now = f.api::<MaskConsumer>().get("mine").await?;
        ensure_eq("spec", &now.spec, &spec)?;
        ensure_eq("owners", now.owner_references().len(), 0)?;
        ensure_eq("status", now.status, theirs.status.clone())?;
        // Deleting the Mask does not release the slot.
        f.delete::<Mask>("mine").await?;
        f.wait_deleted(&mask).await?;
        let now = f.api::<MaskConsumer>().get("mine").await?;
        ensure_eq("after the Mask", (now.uid(), now.metadata.deletion_timestamp.is_none()), (theirs.uid(), true))?;

        let mask = f.create_mask("mine").await?;
        f.wait_for_reason::<Mask>("mine", "ConsumerNameTaken").await?;
        f.kubectl(&["delete", "maskconsumer", "mine"]).await?;
        let served = f.wait_until("mine", "Ready", |mask: &Mask| is_ready(mask)).await?;
        ensure_eq("the same Mask", served.uid(), mask.uid())?;
        let consumer = f.wait_active("mine").await?;
        ensure_eq("owner", consumer.owner_references().first().map(|owner| &*owner.uid), mask.uid().as_deref())
    })
    .await
}

#[tokio::test]
async fn a_reservation_made_by_hand_blocks_its_slot_and_no_other() -> Result<()> {
    Framework::test("their-lock", async |f| {
        let spec = MaskReservationSpec { name: "nobody".into(), namespace: f.name().into(), uid: "none".into() };
        let theirs = f.create(MaskReservation::new("vpn-0", spec)).await?;
        f.create_provider("vpn", 2).await?;
        let consumer = f.create_active_mask("mine").await?;
        let slot = consumer.status.and_then(|status| status.provider).map(|provider| provider.slot);
        ensure_eq("slot", slot, Some(1))?;
        let named = |provider: &MaskProvider| message(provider).contains("MaskReservation vpn-0 was not created by");
        f.wait_until("vpn", "the reservation is named", named).await?;
        f.wait_for_event::<MaskProvider>("vpn", "SlotBlocked", &["MaskReservation vpn-0"]).await?;
        f.create_mask("second").await?;
        f.wait_for_reason::<MaskConsumer>("second", "NoFreeSlot").await?;
        ensure_eq("their reservation", f.api::<MaskReservation>().get("vpn-0").await?, theirs)?;

        f.kubectl(&["delete", "maskreservation", "vpn-0"]).await?;
        let second = f.wait_active("second").await?;
        let slot = second.status.and_then(|status| status.provider).map(|provider| provider.slot);
        ensure_eq("slot of the second", slot, Some(0))?;
        f.wait_until("vpn", "the condition no longer names the reservation", |provider| !named(provider)).await?;
        // It is not deleted with the provider either.
        let spec = MaskReservationSpec { name: "nobody".into(), namespace: f.name().into(), uid: "none".into() };
        let theirs = f.create(MaskReservation::new("vpn-7", spec)).await?;
        for mask in ["mine", "second"] {
            f.delete::<Mask>(mask).await?;
        }
        let provider = f.api::<MaskProvider>().get("vpn").await?;
        f.delete::<MaskProvider>("vpn").await?;
        f.wait_deleted(&provider).await?;
        ensure_eq("their reservation", f.api::<MaskReservation>().get("vpn-7").await?, theirs)
    })
    .await
}

#[tokio::test]
async fn somebodys_finalizer_on_the_copy_holds_the_slot() -> Result<()> {
    Framework::test("held-copy", async |f| {
        f.create_provider("vpn", 1).await?;
        let mut history = History::start(&f.client, Some(f.name())).await?;
        let first = f.create_active_mask("first").await?;
        let copy = f.api::<Secret>().get(&slot_secret_name(&first)?).await?;
        let copy = hold(f, &copy, true).await?;
        f.create_mask("second").await?;
        f.wait_for_reason::<MaskConsumer>("second", "NoFreeSlot").await?;
        f.delete::<Mask>("first").await?;
        let held: MaskConsumer = f.wait_for_reason("first", "HeldByFinalizer").await?;
        ensure!(message(&held).contains(&copy.name_any()), "{}", message(&held));
        f.wait_for_event::<Mask>("first", "HeldByFinalizer", &[&copy.name_any()]).await?;
        let now = f.api::<Secret>().get(&copy.name_any()).await?;
        ensure_eq("finalizers", now.finalizers(), &[THEIRS.to_owned()])?;
        ensure!(!is_active(&f.api::<MaskConsumer>().get("second").await?), "the slot was reassigned");
        let_go(f, &copy).await?;
        f.wait_active("second").await?;
        f.wait_deleted(&first).await?;
        ensure_eq("most users at once", history.check_slot_limits().await?.into_values().max(), Some(1))
    })
    .await
}

#[tokio::test]
async fn somebodys_finalizer_on_the_consumer_holds_the_slot() -> Result<()> {
    for (prefix, before_ours) in [("held-before", true), ("held-after", false)] {
        Framework::test(prefix, async |f| {
            f.create_provider("vpn", 1).await?;
            let mut history = History::start(&f.client, Some(f.name())).await?;
            let first = f.create_active_mask("first").await?;
            hold(f, &first, before_ours).await?;
            f.create_mask("second").await?;
            f.wait_for_reason::<MaskConsumer>("second", "NoFreeSlot").await?;
            f.delete::<Mask>("first").await?;
            let ours_is_off = |consumer: &MaskConsumer| !consumer.finalizers().iter().any(|name| name == FINALIZER);
            let held = f.wait_until("first", "without our finalizer", ours_is_off).await?;
            ensure!(held.finalizers().contains(&THEIRS.to_owned()), "{:?}", held.finalizers());
            f.wait_for_reason::<MaskReservation>("vpn-0", "HeldByFinalizer").await?;
            f.wait_for_event::<MaskReservation>("vpn-0", "HeldByFinalizer", &["MaskConsumer"]).await?;
            ensure!(!is_active(&f.api::<MaskConsumer>().get("second").await?), "the slot was reassigned");
            let_go(f, &first).await?;
            f.wait_active("second").await?;
            ensure_eq("most users at once", history.check_slot_limits().await?.into_values().max(), Some(1))
        })
        .await?;
    }
    Ok(())
}
