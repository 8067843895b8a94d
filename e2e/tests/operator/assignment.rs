//! From a Mask to an assigned slot and its Secret.

use anyhow::{Context, Result, ensure};
use e2e::{Framework, Namespace, pods::usage::slot_secret_name, testing::framework::ensure_eq, wait::ready_condition};
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{Resource, ResourceExt};
use serde_json::json;
use vpn_types::{
    FINALIZER, Mask, MaskConsumer, MaskConsumerPhase, MaskPhase, MaskProvider, MaskProviderPhase, MaskReservation,
    MaskReservationPhase, MaskSpec, OWNER_LABEL, RESERVATION_ANNOTATION,
};

/// Returns the controller reference of an object.
fn owner_of<K: Resource>(object: &K) -> Result<OwnerReference> {
    let mut controllers = object.owner_references().iter().filter(|owner| owner.controller == Some(true));
    controllers.next().cloned().context("nothing controls it")
}

#[tokio::test]
async fn a_mask_gets_a_slot_and_its_secret() -> Result<()> {
    Framework::test("slot", async |f| {
        let provider = f.create_provider("vpn", 1).await?;
        ensure_eq(
            "phase of an unused provider",
            provider.status.and_then(|s| s.phase),
            Some(MaskProviderPhase::Ready),
        )?;
        let mask = f.create_mask("mine").await?;
        let consumer = f.wait_active("mine").await?;
        let provider_uid = provider.metadata.uid.clone().context("no uid")?;

        let owner = owner_of(&consumer)?;
        ensure_eq("owner of the consumer", (&*owner.kind, Some(&owner.uid)), ("Mask", mask.meta().uid.as_ref()))?;
        ensure!(
            owner.block_owner_deletion == Some(true) && consumer.finalizers().contains(&FINALIZER.to_owned()),
            "W1"
        );

        let assigned = consumer.status.clone().and_then(|status| status.provider).context("no provider")?;
        ensure_eq("assigned", (&*assigned.name, &*assigned.namespace, assigned.slot), ("vpn", f.name(), 0))?;
        ensure_eq("provider's uid", &assigned.uid, &provider_uid)?;

        let reservation = f.api::<MaskReservation>().get("vpn-0").await?;
        ensure_eq("reservation's uid", reservation.uid().as_ref(), Some(&assigned.reservation))?;
        ensure_eq("label", reservation.labels().get(OWNER_LABEL), Some(&provider_uid))?;
        ensure_eq("finalizers", reservation.finalizers(), &[FINALIZER.to_owned()])?;
        ensure_eq("owner", &owner_of(&reservation)?.uid, &provider_uid)?;
        let spec = &reservation.spec;
        ensure_eq(
            "consumer",
            (&*spec.name, &*spec.namespace, Some(&spec.uid)),
            ("mine", f.name(), consumer.uid().as_ref()),
        )?;

        ensure_eq("name of the copy", &assigned.secret, &format!("mine-{provider_uid}"))?;
        let copy = f.api::<Secret>().get(&assigned.secret).await?;
        let source = f.api::<Secret>().get("vpn-credentials").await?;
        ensure_eq("data of the copy", &copy.data, &source.data)?;
        ensure_eq("label of the copy", copy.labels().get(OWNER_LABEL), Some(&provider_uid))?;
        ensure_eq(
            "annotation of the copy",
            copy.annotations().get(RESERVATION_ANNOTATION),
            Some(&assigned.reservation),
        )?;
        ensure_eq("owner of the copy", Some(owner_of(&copy)?.uid), consumer.uid())?;

        // Dependent statuses follow in any order.
        let mask: Mask = f
            .wait_until("mine", "Active", |mask: &Mask| {
                mask.status.as_ref().and_then(|s| s.phase) == Some(MaskPhase::Active)
            })
            .await?;
        ensure_eq("Mask.status.provider", mask.status.and_then(|status| status.provider), Some(assigned))?;
        f.wait_until("vpn-0", "Active", |reservation: &MaskReservation| {
            reservation.status.as_ref().and_then(|s| s.phase) == Some(MaskReservationPhase::Active)
        })
        .await?;
        f.wait_until("vpn", "one slot in use", |provider: &MaskProvider| {
            provider
                .status
                .as_ref()
                .is_some_and(|status| status.phase == Some(MaskProviderPhase::Active) && status.active_slots == Some(1))
        })
        .await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn provider_and_mask_may_be_in_different_namespaces() -> Result<()> {
    Framework::test("provider-side", async |f| {
        let user = Namespace::new("user-side").await?;
        f.create_provider_with("vpn", 1, |spec| spec.namespaces = Some(vec![user.name().to_owned()])).await?;
        // The provider's own namespace is not in its `namespaces`.
        f.create_mask("not-admitted").await?;
        f.wait_for_reason::<MaskConsumer>("not-admitted", "NoProviderFits").await?;

        let there = Framework { namespace: user, client: f.client.clone() };
        let consumer = there.create_active_mask("mine").await?;
        let reservation = f.api::<MaskReservation>().get("vpn-0").await?;
        ensure_eq("where the consumer is", &*reservation.spec.namespace, there.name())?;
        ensure!(there.api::<MaskReservation>().get_opt("vpn-0").await?.is_none(), "a reservation beside the consumer");
        there.api::<Secret>().get(&slot_secret_name(&consumer)?).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_tag_that_matches_is_enough() -> Result<()> {
    Framework::test("tags", async |f| {
        for (name, tags) in [("alpha", ["london", "fast"]), ("beta", ["paris", "slow"])] {
            f.create_provider_with(name, 1, |spec| spec.tags = Some(tags.map(String::from).into())).await?;
        }
        f.create_mask_with_tags("one", &["nowhere", "slow"]).await?;
        let consumer = f.wait_active("one").await?;
        ensure_eq("provider", consumer.status.and_then(|s| s.provider).map(|p| p.name), Some("beta".into()))?;
        f.create_mask_with_tags("two", &["nowhere"]).await?;
        let consumer: MaskConsumer = f.wait_for_reason("two", "NoProviderFits").await?;
        ensure_eq("phase", consumer.status.and_then(|s| s.phase), Some(MaskConsumerPhase::ErrNoProviders))?;
        f.wait_for_event::<Mask>("two", "NoProviderFits", &["nowhere"]).await?;
        // A change of the Mask reaches its waiting MaskConsumer.
        f.patch::<Mask>("two", json!({ "spec": { "providers": ["fast"] } })).await?;
        let consumer = f.wait_active("two").await?;
        ensure_eq("provider", consumer.status.and_then(|s| s.provider).map(|p| p.name), Some("alpha".into()))
    })
    .await
}

#[tokio::test]
async fn having_no_provider_ends_when_one_becomes_usable() -> Result<()> {
    Framework::test("no-provider", async |f| {
        f.create_mask("mine").await?;
        let mask: Mask = f.wait_for_reason("mine", "NoProviderFits").await?;
        ensure_eq("phase", mask.status.and_then(|status| status.phase), Some(MaskPhase::ErrNoProviders))?;

        // A provider matches, but its Secret does not exist yet.
        f.create(f.new_provider("vpn", 1)).await?;
        let provider: MaskProvider = f.wait_for_reason("vpn", "SecretNotFound").await?;
        ensure_eq(
            "phase",
            provider.status.and_then(|status| status.phase),
            Some(MaskProviderPhase::ErrSecretNotFound),
        )?;
        f.wait_for_event::<MaskProvider>("vpn", "SecretNotFound", &["vpn-credentials"]).await?;
        let mask: Mask = f.wait_for_reason("mine", "NoProviderUsable").await?;
        f.wait_for_event::<Mask>("mine", "NoProviderUsable", &["vpn-credentials"]).await?;
        let message = ready_condition(&mask).context("no condition")?.message;
        ensure!(message.contains("vpn-credentials"), "{message:?} does not name the missing Secret");

        f.create_credentials("vpn").await?;
        f.wait_active("mine").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_provider_that_is_not_verified_is_not_used() -> Result<()> {
    Framework::test("unverified", async |f| {
        f.create_credentials("vpn").await?;
        let mut provider = f.new_provider("vpn", 1);
        provider.spec.verify = None;
        f.create(provider).await?;
        f.wait_for_reason::<MaskProvider>("vpn", "Verifying").await?;
        f.create_mask("mine").await?;
        f.wait_for_reason::<MaskConsumer>("mine", "NoProviderUsable").await?;
        let of_mine = |reservation: &MaskReservation| reservation.spec.name == "mine";
        let reservations = f.api::<MaskReservation>().list(&Default::default()).await?;
        ensure!(!reservations.iter().any(of_mine), "assigned to an unverified account");

        f.patch::<MaskProvider>("vpn", json!({ "spec": { "verify": { "skip": true } } })).await?;
        f.wait_active("mine").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_consumer_made_by_hand_is_served() -> Result<()> {
    Framework::test("by-hand", async |f| {
        f.create_provider("vpn", 1).await?;
        f.create(MaskConsumer::new("mine", Default::default())).await?;
        let consumer = f.wait_active("mine").await?;
        f.wait_for_event::<MaskConsumer>("mine", "Assigned", &["slot 0"]).await?;
        f.api::<Secret>().get(&slot_secret_name(&consumer)?).await?;
        // No Mask owns it, and a Mask with the same name does not adopt it.
        f.create(Mask::new("mine", MaskSpec::default())).await?;
        f.wait_for_reason::<Mask>("mine", "ConsumerNameTaken").await?;
        f.delete::<MaskConsumer>("mine").await?;
        f.wait_deleted(&consumer).await?;
        let next = f.wait_active("mine").await?;
        ensure_eq("owner", &*owner_of(&next)?.kind, "Mask")
    })
    .await
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_left_alone() -> Result<()> {
    Framework::test("foreign-secret", async |f| {
        let provider = f.create_provider("vpn", 1).await?;
        let name = format!("mine-{}", provider.uid().context("no uid")?);
        let foreign: Secret = serde_json::from_value(json!({
            "metadata": { "name": name }, "stringData": { "theirs": "yes" },
        }))?;
        let foreign = f.create(foreign).await?;
        f.create_mask("mine").await?;
        f.wait_for_reason::<MaskConsumer>("mine", "SecretNameTaken").await?;
        ensure_eq("the Secret", f.api::<Secret>().get(&name).await?, foreign)?;
        // The slot is not blocked.
        f.create_active_mask("other").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_second_use_of_a_name_is_a_new_mask() -> Result<()> {
    Framework::test("again", async |f| {
        f.create_provider("vpn", 1).await?;
        let first = f.create_active_mask("mine").await?;
        f.delete::<Mask>("mine").await?;
        f.wait_deleted(&first).await?;
        let second = f.create_active_mask("mine").await?;
        ensure!(first.uid() != second.uid(), "the same consumer");
        let copy = f.api::<Secret>().get(&slot_secret_name(&second)?).await?;
        ensure_eq("owner of the copy", Some(owner_of(&copy)?.uid), second.uid())?;
        Ok(())
    })
    .await
}
