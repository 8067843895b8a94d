//! A slot is free only when its last Pod is gone. The tests compare the order of events, not timestamps.

use anyhow::{Context, Result, ensure};
use e2e::{
    Framework, History,
    pods::usage::{owned_pod, unowned_pod},
    testing::framework::ensure_eq,
    wait::{is_active, ready_condition},
};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Pod},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{ResourceExt, api::PropagationPolicy};
use serde_json::json;
use vpn_types::{
    Mask, MaskConsumer, MaskProviderReleaseSpec, MaskReservation, MaskReservationStatus, owner_reference_for,
};

/// The time in seconds that a Pod takes to stop.
const GRACE: u32 = 2;

/// Returns one slot that the Mask `first` holds and for which the Mask `second` waits.
async fn contended(f: &Framework, release: Option<MaskProviderReleaseSpec>) -> Result<(History, MaskConsumer)> {
    f.create_provider_with("vpn", 1, |spec| spec.release = release).await?;
    let history = History::start(&f.client, Some(f.name())).await?;
    let first = f.create_active_mask("first").await?;
    f.create_mask("second").await?;
    f.wait_for_reason::<MaskConsumer>("second", "NoFreeSlot").await?;
    Ok((history, first))
}

/// Waits until `second` has the slot, and checks that the two never had it at the same time.
async fn handed_over(f: &Framework, mut history: History, first: &MaskConsumer) -> Result<MaskConsumer> {
    let second = f.wait_active("second").await?;
    f.wait_deleted(first).await?;
    let most = history.check_slot_limits().await?;
    ensure_eq("most users at once", most.into_values().collect::<Vec<_>>(), vec![1])?;
    Ok(second)
}

#[tokio::test]
async fn a_pod_holds_the_slot_until_it_has_stopped() -> Result<()> {
    for (prefix, propagation) in [
        ("background", PropagationPolicy::Background),
        ("foreground", PropagationPolicy::Foreground),
        ("orphan", PropagationPolicy::Orphan),
    ] {
        Framework::test(prefix, async |f| {
            let (history, first) = contended(f, None).await?;
            let pod = f.run_pod(owned_pod("user", &first, GRACE)?).await?;
            f.delete_with::<Mask>("first", propagation.clone()).await?;
            handed_over(f, history, &first).await?;
            // Without a Mask, Events are on the MaskConsumer.
            if propagation == PropagationPolicy::Orphan {
                f.wait_for_event::<MaskConsumer>("first", "Evicted", &["--cascade=orphan"]).await?;
                f.wait_for_event::<MaskConsumer>("first", "SlotFree", &["slot 0"]).await?;
            } else {
                f.wait_for_event::<Mask>("first", "SlotFree", &["slot 0"]).await?;
            }
            f.wait_deleted(&pod).await
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_consumer_deleted_by_hand_is_released_and_made_again() -> Result<()> {
    Framework::test("consumer-by-hand", async |f| {
        let (mut history, first) = contended(f, None).await?;
        f.run_pod(owned_pod("user", &first, GRACE)?).await?;
        f.delete::<MaskConsumer>("first").await?;
        f.wait_for_event::<Mask>("first", "PreviousConsumerTerminating", &["MaskConsumer first"]).await?;
        f.wait_deleted(&first).await?;
        f.wait_for_event::<Mask>("first", "SlotFree", &["slot 0"]).await?;
        // Its Mask is still the older one, so the new MaskConsumer is first in the queue again. It gets the slot,
        // unless `second` got it before the new MaskConsumer existed. In that case, `second` releases it.
        let one_of_them = |all: &[MaskConsumer]| all.len() == 2 && all.iter().filter(|one| is_active(one)).count() == 1;
        let both = f.wait_until_all("one of the two served", one_of_them).await?;
        ensure!(both.iter().all(|one| one.uid() != first.uid()), "the same consumer");
        if !both.iter().any(|one| one.name_any() == "first" && is_active(one)) {
            f.wait_for_reason::<MaskConsumer>("first", "NoFreeSlot").await?;
            f.delete::<Mask>("second").await?;
        }
        f.wait_active("first").await?;
        ensure_eq("most users at once", history.check_slot_limits().await?.into_values().max(), Some(1))
    })
    .await
}

/// The garbage collector removes the owner reference from such a Pod and leaves it running.
#[tokio::test]
async fn a_pod_with_a_second_owner_goes_too() -> Result<()> {
    Framework::test("two-owners", async |f| {
        let (history, first) = contended(f, None).await?;
        let other: ConfigMap = f.create(serde_json::from_value(json!({ "metadata": { "name": "other" } }))?).await?;
        let mut pod = owned_pod("user", &first, GRACE)?;
        pod.owner_references_mut().push(OwnerReference {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            name: other.name_any(),
            uid: other.uid().context("no uid")?,
            ..Default::default()
        });
        let pod = f.run_pod(pod).await?;
        f.delete::<Mask>("first").await?;
        handed_over(f, history, &first).await?;
        f.wait_deleted(&pod).await
    })
    .await
}

#[tokio::test]
async fn a_deployment_that_the_consumer_owns_goes_too() -> Result<()> {
    Framework::test("deployment", async |f| {
        let (history, first) = contended(f, None).await?;
        let template = unowned_pod("unnamed", &first, GRACE)?.spec.context("no spec")?;
        let labels = json!({ "app": "user" });
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": { "name": "user", "ownerReferences": [owner_reference_for(&first)] },
            "spec": {
                "replicas": 2,
                "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": template },
            },
        }))?;
        f.create(deployment).await?;
        let all_run = |pods: &[Pod]| {
            let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
            pods.len() == 2 && pods.iter().all(|pod| phase(pod).as_deref() == Some("Running"))
        };
        f.wait_until_all::<Pod>("two running Pods", all_run).await?;
        f.delete::<Mask>("first").await?;
        handed_over(f, history, &first).await?;
        f.wait_until_all::<Deployment>("none", <[_]>::is_empty).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_without_owner_reference_is_named_and_waited_for() -> Result<()> {
    Framework::test("stranger", async |f| {
        let (history, first) = contended(f, None).await?;
        let pod = f.run_pod(unowned_pod("stranger", &first, GRACE)?).await?;
        f.delete::<Mask>("first").await?;
        let held: MaskConsumer = f.wait_for_reason("first", "HeldByPods").await?;
        let message = ready_condition(&held).context("no condition")?.message;
        ensure!(message.contains("Pod stranger") && message.contains("kwok-node-0"), "{message:?}");
        let users = |reservation: &MaskReservation| -> Vec<Option<String>> {
            let users = reservation.status.iter().flat_map(|status| status.users.iter().flatten());
            users.map(|user| Some(user.uid.clone())).collect()
        };
        f.wait_until("vpn-0", "naming the Pod", |reservation: &MaskReservation| users(reservation) == [pod.uid()])
            .await?;
        f.wait_for_event::<Mask>("first", "HeldByPods", &["Pod stranger", "kwok-node-0"]).await?;
        // Only the user may delete the Pod.
        let pod_now = f.api::<Pod>().get("stranger").await?;
        ensure!(pod_now.metadata.deletion_timestamp.is_none(), "the operator deleted a Pod that it does not own");
        f.delete::<Pod>("stranger").await?;
        handed_over(f, history, &first).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_mask_made_again_at_once_waits_for_its_predecessor() -> Result<()> {
    Framework::test("recreated", async |f| {
        f.create_provider("vpn", 1).await?;
        let mut history = History::start(&f.client, Some(f.name())).await?;
        let first = f.create_active_mask("mine").await?;
        // Long enough to create the other Mask meanwhile.
        let pod = f.run_pod(owned_pod("user", &first, 5)?).await?;
        f.delete::<Mask>("mine").await?;
        let mask = f.create_mask("mine").await?;
        let waits: Mask = f.wait_for_reason("mine", "PreviousConsumerTerminating").await?;
        ensure_eq("the Mask", waits.uid(), mask.uid())?;
        f.wait_for_event::<Mask>("mine", "PreviousConsumerTerminating", &["MaskConsumer mine"]).await?;
        f.wait_deleted(&first).await?;
        let second = f.wait_active("mine").await?;
        ensure!(second.uid() != first.uid(), "the same consumer");
        f.wait_deleted(&pod).await?;
        ensure_eq("most users at once", history.check_slot_limits().await?.into_values().max(), Some(1))
    })
    .await
}

/// Waits until the MaskReservation of the only slot shows its hold.
async fn held_until(f: &Framework) -> Result<MaskReservationStatus> {
    let until = |reservation: &MaskReservation| reservation.status.as_ref().is_some_and(|s| s.hold_until.is_some());
    let held = f.wait_until("vpn-0", "held until some time", until).await?;
    held.status.context("no status")
}

/// Whether a MaskConsumer was assigned no earlier than the end of the hold, by the operator's clock.
fn at_or_after(consumer: &MaskConsumer, held: &MaskReservationStatus) -> Result<()> {
    let until = held.hold_until.context("no holdUntil")?.timestamp();
    let assigned = ready_condition(consumer).context("no condition")?.last_transition_time.0.as_second();
    ensure!(assigned >= until, "assigned {} s before the end of the hold", until - assigned);
    Ok(())
}

#[tokio::test]
async fn a_pod_deleted_by_force_leaves_its_slot_held() -> Result<()> {
    Framework::test("forced", async |f| {
        let release = MaskProviderReleaseSpec { delay: None, unclean_delay: Some("8s".into()) };
        let (history, first) = contended(f, Some(release)).await?;
        f.run_pod(owned_pod("user", &first, 600)?).await?;
        f.delete::<Mask>("first").await?;
        f.wait_until("user", "being deleted", |pod: &Pod| pod.metadata.deletion_timestamp.is_some()).await?;
        let force = ["delete", "pod", "user", "--force", "--grace-period=0"];
        let (_, held) = tokio::try_join!(f.kubectl(&force), held_until(f))?;
        let why = ["vpn-0 is held until", "because Pod user was removed before its node confirmed"];
        f.wait_for_event::<Mask>("first", "HeldUntilDeadline", &why).await?;
        let second = handed_over(f, history, &first).await?;
        at_or_after(&second, &held)
    })
    .await
}

/// The API server removes such a Pod as soon as it is deleted, unless the request has a grace period.
#[tokio::test]
async fn the_end_of_a_pod_without_grace_period_is_seen() -> Result<()> {
    Framework::test("no-grace", async |f| {
        let (history, first) = contended(f, None).await?;
        f.run_pod(owned_pod("user", &first, 0)?).await?;
        f.delete::<Mask>("first").await?;
        // It would be held for 5 minutes, which is longer than this waits.
        handed_over(f, history, &first).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_slot_may_rest_after_a_clean_end() -> Result<()> {
    Framework::test("delay", async |f| {
        let release = MaskProviderReleaseSpec { delay: Some("8s".into()), unclean_delay: None };
        let (history, first) = contended(f, Some(release)).await?;
        f.run_pod(owned_pod("user", &first, 1)?).await?;
        f.delete::<Mask>("first").await?;
        let held = held_until(f).await?;
        f.wait_for_event::<Mask>("first", "HeldUntilDeadline", &["vpn-0 is held until"]).await?;
        let second = handed_over(f, history, &first).await?;
        at_or_after(&second, &held)
    })
    .await
}
