//! From a Mask to a slot and its Secret.

use anyhow::{Context, Result, ensure};
use e2e::{Bench, Namespace, pods::usage::secret_of, testing::bench::same, wait::ready_condition};
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{Resource, ResourceExt};
use serde_json::json;
use vpn_types::{
    FINALIZER, Mask, MaskConsumer, MaskConsumerPhase, MaskPhase, MaskProvider, MaskProviderPhase, MaskReservation,
    MaskReservationPhase, MaskSpec, OWNER_LABEL, RESERVATION_ANNOTATION,
};

/// The one that controls an object.
fn owner_of<K: Resource>(object: &K) -> Result<OwnerReference> {
    let mut controllers = object.owner_references().iter().filter(|owner| owner.controller == Some(true));
    controllers.next().cloned().context("nothing controls it")
}

#[tokio::test]
async fn a_mask_gets_a_slot_and_its_secret() -> Result<()> {
    Bench::test("slot", async |bench| {
        let provider = bench.provider("vpn", 1).await?;
        same("phase of an unused provider", provider.status.and_then(|s| s.phase), Some(MaskProviderPhase::Ready))?;
        let mask = bench.mask("mine").await?;
        let consumer = bench.active("mine").await?;
        let provider_uid = provider.metadata.uid.clone().context("no uid")?;

        let owner = owner_of(&consumer)?;
        same("owner of the consumer", (&*owner.kind, Some(&owner.uid)), ("Mask", mask.meta().uid.as_ref()))?;
        ensure!(
            owner.block_owner_deletion == Some(true) && consumer.finalizers().contains(&FINALIZER.to_owned()),
            "W1"
        );

        let assigned = consumer.status.clone().and_then(|status| status.provider).context("no provider")?;
        same("assigned", (&*assigned.name, &*assigned.namespace, assigned.slot), ("vpn", bench.name(), 0))?;
        same("provider's uid", &assigned.uid, &provider_uid)?;

        let reservation = bench.api::<MaskReservation>().get("vpn-0").await?;
        same("reservation's uid", reservation.uid().as_ref(), Some(&assigned.reservation))?;
        same("label", reservation.labels().get(OWNER_LABEL), Some(&provider_uid))?;
        same("finalizers", reservation.finalizers(), &[FINALIZER.to_owned()])?;
        same("owner", &owner_of(&reservation)?.uid, &provider_uid)?;
        let spec = &reservation.spec;
        same(
            "consumer",
            (&*spec.name, &*spec.namespace, Some(&spec.uid)),
            ("mine", bench.name(), consumer.uid().as_ref()),
        )?;

        same("name of the copy", &assigned.secret, &format!("mine-{provider_uid}"))?;
        let copy = bench.api::<Secret>().get(&assigned.secret).await?;
        let source = bench.api::<Secret>().get("vpn-credentials").await?;
        same("data of the copy", &copy.data, &source.data)?;
        same("label of the copy", copy.labels().get(OWNER_LABEL), Some(&provider_uid))?;
        same("annotation of the copy", copy.annotations().get(RESERVATION_ANNOTATION), Some(&assigned.reservation))?;
        same("owner of the copy", Some(owner_of(&copy)?.uid), consumer.uid())?;

        // What follows from it, each in its own time.
        let mask: Mask = bench
            .until("mine", "Active", |mask: &Mask| {
                mask.status.as_ref().and_then(|s| s.phase) == Some(MaskPhase::Active)
            })
            .await?;
        same("Mask.status.provider", mask.status.and_then(|status| status.provider), Some(assigned))?;
        bench
            .until("vpn-0", "Active", |reservation: &MaskReservation| {
                reservation.status.as_ref().and_then(|s| s.phase) == Some(MaskReservationPhase::Active)
            })
            .await?;
        bench
            .until("vpn", "one slot in use", |provider: &MaskProvider| {
                provider.status.as_ref().is_some_and(|status| {
                    status.phase == Some(MaskProviderPhase::Active) && status.active_slots == Some(1)
                })
            })
            .await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn provider_and_mask_may_be_in_different_namespaces() -> Result<()> {
    Bench::test("provider-side", async |bench| {
        let user = Namespace::new("user-side").await?;
        bench.provider_with("vpn", 1, |spec| spec.namespaces = Some(vec![user.name().to_owned()])).await?;
        // The provider's own namespace is not on its list.
        bench.mask("not-admitted").await?;
        bench.says::<MaskConsumer>("not-admitted", "NoProviderFits").await?;

        let there = Bench { namespace: user, client: bench.client.clone() };
        let consumer = there.active_mask("mine").await?;
        let reservation = bench.api::<MaskReservation>().get("vpn-0").await?;
        same("where the consumer is", &*reservation.spec.namespace, there.name())?;
        ensure!(there.api::<MaskReservation>().get_opt("vpn-0").await?.is_none(), "a reservation beside the consumer");
        there.api::<Secret>().get(&secret_of(&consumer)?).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_tag_that_matches_is_enough() -> Result<()> {
    Bench::test("tags", async |bench| {
        for (name, tags) in [("alpha", ["london", "fast"]), ("beta", ["paris", "slow"])] {
            bench.provider_with(name, 1, |spec| spec.tags = Some(tags.map(String::from).into())).await?;
        }
        bench.mask_tagged("one", &["nowhere", "slow"]).await?;
        let consumer = bench.active("one").await?;
        same("provider", consumer.status.and_then(|s| s.provider).map(|p| p.name), Some("beta".into()))?;
        bench.mask_tagged("two", &["nowhere"]).await?;
        let consumer: MaskConsumer = bench.says("two", "NoProviderFits").await?;
        same("phase", consumer.status.and_then(|s| s.phase), Some(MaskConsumerPhase::ErrNoProviders))?;
        bench.told::<Mask>("two", "NoProviderFits", &["nowhere"]).await?;
        // An edited Mask reaches its waiting consumer.
        bench.patch::<Mask>("two", json!({ "spec": { "providers": ["fast"] } })).await?;
        let consumer = bench.active("two").await?;
        same("provider", consumer.status.and_then(|s| s.provider).map(|p| p.name), Some("alpha".into()))
    })
    .await
}

#[tokio::test]
async fn having_no_provider_ends_when_one_becomes_usable() -> Result<()> {
    Bench::test("no-provider", async |bench| {
        bench.mask("mine").await?;
        let mask: Mask = bench.says("mine", "NoProviderFits").await?;
        same("phase", mask.status.and_then(|status| status.phase), Some(MaskPhase::ErrNoProviders))?;

        // One that fits, but whose Secret is not there yet.
        bench.create(bench.new_provider("vpn", 1)).await?;
        let provider: MaskProvider = bench.says("vpn", "SecretNotFound").await?;
        same("phase", provider.status.and_then(|status| status.phase), Some(MaskProviderPhase::ErrSecretNotFound))?;
        bench.told::<MaskProvider>("vpn", "SecretNotFound", &["vpn-credentials"]).await?;
        let mask: Mask = bench.says("mine", "NoProviderUsable").await?;
        bench.told::<Mask>("mine", "NoProviderUsable", &["vpn-credentials"]).await?;
        let message = ready_condition(&mask).context("no condition")?.message;
        ensure!(message.contains("vpn-credentials"), "{message:?} does not name the missing Secret");

        bench.credentials("vpn").await?;
        bench.active("mine").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_provider_that_is_not_verified_is_not_used() -> Result<()> {
    Bench::test("unverified", async |bench| {
        bench.credentials("vpn").await?;
        let mut provider = bench.new_provider("vpn", 1);
        provider.spec.verify = None;
        bench.create(provider).await?;
        bench.says::<MaskProvider>("vpn", "Verifying").await?;
        bench.mask("mine").await?;
        bench.says::<MaskConsumer>("mine", "NoProviderUsable").await?;
        let of_mine = |reservation: &MaskReservation| reservation.spec.name == "mine";
        let reservations = bench.api::<MaskReservation>().list(&Default::default()).await?;
        ensure!(!reservations.iter().any(of_mine), "assigned to an account that nobody has verified");

        bench.patch::<MaskProvider>("vpn", json!({ "spec": { "verify": { "skip": true } } })).await?;
        bench.active("mine").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_consumer_made_by_hand_is_served() -> Result<()> {
    Bench::test("by-hand", async |bench| {
        bench.provider("vpn", 1).await?;
        bench.create(MaskConsumer::new("mine", Default::default())).await?;
        let consumer = bench.active("mine").await?;
        bench.told::<MaskConsumer>("mine", "Assigned", &["slot 0"]).await?;
        bench.api::<Secret>().get(&secret_of(&consumer)?).await?;
        // No Mask has anything to do with it, and one of its name does not take it.
        bench.create(Mask::new("mine", MaskSpec::default())).await?;
        bench.says::<Mask>("mine", "ConsumerNameTaken").await?;
        bench.delete::<MaskConsumer>("mine").await?;
        bench.gone(&consumer).await?;
        let next = bench.active("mine").await?;
        same("owner", &*owner_of(&next)?.kind, "Mask")
    })
    .await
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_left_alone() -> Result<()> {
    Bench::test("foreign-secret", async |bench| {
        let provider = bench.provider("vpn", 1).await?;
        let name = format!("mine-{}", provider.uid().context("no uid")?);
        let foreign: Secret = serde_json::from_value(json!({
            "metadata": { "name": name }, "stringData": { "theirs": "yes" },
        }))?;
        let foreign = bench.create(foreign).await?;
        bench.mask("mine").await?;
        bench.says::<MaskConsumer>("mine", "SecretNameTaken").await?;
        same("the Secret", bench.api::<Secret>().get(&name).await?, foreign)?;
        // The slot is not wasted on it.
        bench.active_mask("other").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_second_use_of_a_name_is_a_new_mask() -> Result<()> {
    Bench::test("again", async |bench| {
        bench.provider("vpn", 1).await?;
        let first = bench.active_mask("mine").await?;
        bench.delete::<Mask>("mine").await?;
        bench.gone(&first).await?;
        let second = bench.active_mask("mine").await?;
        ensure!(first.uid() != second.uid(), "the same consumer");
        let copy = bench.api::<Secret>().get(&secret_of(&second)?).await?;
        same("owner of the copy", Some(owner_of(&copy)?.uid), second.uid())?;
        Ok(())
    })
    .await
}
