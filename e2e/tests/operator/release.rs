//! A slot is free only when its last user is gone. Judged on the order of events, whatever the clock says.

use anyhow::{Context, Result, ensure};
use e2e::{
    Bench, History,
    pods::usage::{stranger_pod, user_pod},
    testing::bench::same,
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

/// Seconds that a Pod takes to stop.
const GRACE: u32 = 2;

/// One slot, held by the Mask `first`, for which the Mask `second` waits.
async fn contended(bench: &Bench, release: Option<MaskProviderReleaseSpec>) -> Result<(History, MaskConsumer)> {
    bench.provider_with("vpn", 1, |spec| spec.release = release).await?;
    let history = History::start(&bench.client, Some(bench.name())).await?;
    let first = bench.active_mask("first").await?;
    bench.mask("second").await?;
    bench.says::<MaskConsumer>("second", "NoFreeSlot").await?;
    Ok((history, first))
}

/// Waits until `second` has the slot, and makes sure that at no moment two had it.
async fn handed_over(bench: &Bench, mut history: History, first: &MaskConsumer) -> Result<MaskConsumer> {
    let second = bench.active("second").await?;
    bench.gone(first).await?;
    let most = history.judge().await?;
    same("most users at once", most.into_values().collect::<Vec<_>>(), vec![1])?;
    Ok(second)
}

#[tokio::test]
async fn a_pod_holds_the_slot_until_it_has_stopped() -> Result<()> {
    for (prefix, propagation) in [
        ("background", PropagationPolicy::Background),
        ("foreground", PropagationPolicy::Foreground),
        ("orphan", PropagationPolicy::Orphan),
    ] {
        Bench::test(prefix, async |bench| {
            let (history, first) = contended(bench, None).await?;
            let pod = bench.run_pod(user_pod("user", &first, GRACE)?).await?;
            bench.delete_with::<Mask>("first", propagation.clone()).await?;
            handed_over(bench, history, &first).await?;
            // Without its Mask it is told of the MaskConsumer.
            if propagation == PropagationPolicy::Orphan {
                bench.told::<MaskConsumer>("first", "Evicted", &["--cascade=orphan"]).await?;
                bench.told::<MaskConsumer>("first", "SlotFree", &["slot 0"]).await?;
            } else {
                bench.told::<Mask>("first", "SlotFree", &["slot 0"]).await?;
            }
            bench.gone(&pod).await
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_consumer_deleted_by_hand_is_released_and_made_again() -> Result<()> {
    Bench::test("consumer-by-hand", async |bench| {
        let (mut history, first) = contended(bench, None).await?;
        bench.run_pod(user_pod("user", &first, GRACE)?).await?;
        bench.delete::<MaskConsumer>("first").await?;
        bench.told::<Mask>("first", "PreviousConsumerTerminating", &["MaskConsumer first"]).await?;
        bench.gone(&first).await?;
        bench.told::<Mask>("first", "SlotFree", &["slot 0"]).await?;
        // Its Mask is still the older one: the new consumer is first in line again. The slot is its own, unless it went
        // to the other one in the moment before the new consumer was there; that one gives it back then.
        let one_of_them = |all: &[MaskConsumer]| all.len() == 2 && all.iter().filter(|one| is_active(one)).count() == 1;
        let both = bench.until_all("one of the two served", one_of_them).await?;
        ensure!(both.iter().all(|one| one.uid() != first.uid()), "the same consumer");
        if !both.iter().any(|one| one.name_any() == "first" && is_active(one)) {
            bench.says::<MaskConsumer>("first", "NoFreeSlot").await?;
            bench.delete::<Mask>("second").await?;
        }
        bench.active("first").await?;
        same("most users at once", history.judge().await?.into_values().max(), Some(1))
    })
    .await
}

/// The garbage collector takes the reference off such a Pod and leaves it running.
#[tokio::test]
async fn a_pod_with_a_second_owner_goes_too() -> Result<()> {
    Bench::test("two-owners", async |bench| {
        let (history, first) = contended(bench, None).await?;
        let other: ConfigMap =
            bench.create(serde_json::from_value(json!({ "metadata": { "name": "other" } }))?).await?;
        let mut pod = user_pod("user", &first, GRACE)?;
        pod.owner_references_mut().push(OwnerReference {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            name: other.name_any(),
            uid: other.uid().context("no uid")?,
            ..Default::default()
        });
        let pod = bench.run_pod(pod).await?;
        bench.delete::<Mask>("first").await?;
        handed_over(bench, history, &first).await?;
        bench.gone(&pod).await
    })
    .await
}

#[tokio::test]
async fn a_deployment_that_the_consumer_owns_goes_too() -> Result<()> {
    Bench::test("deployment", async |bench| {
        let (history, first) = contended(bench, None).await?;
        let template = stranger_pod("unnamed", &first, GRACE)?.spec.context("no spec")?;
        let labels = json!({ "app": "user" });
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": { "name": "user", "ownerReferences": [owner_reference_for(&first)] },
            "spec": {
                "replicas": 2,
                "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": template },
            },
        }))?;
        bench.create(deployment).await?;
        let all_run = |pods: &[Pod]| {
            let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
            pods.len() == 2 && pods.iter().all(|pod| phase(pod).as_deref() == Some("Running"))
        };
        bench.until_all::<Pod>("two running Pods", all_run).await?;
        bench.delete::<Mask>("first").await?;
        handed_over(bench, history, &first).await?;
        bench.until_all::<Deployment>("none", <[_]>::is_empty).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_without_owner_reference_is_named_and_waited_for() -> Result<()> {
    Bench::test("stranger", async |bench| {
        let (history, first) = contended(bench, None).await?;
        let pod = bench.run_pod(stranger_pod("stranger", &first, GRACE)?).await?;
        bench.delete::<Mask>("first").await?;
        let held: MaskConsumer = bench.says("first", "HeldByPods").await?;
        let message = ready_condition(&held).context("no condition")?.message;
        ensure!(message.contains("Pod stranger") && message.contains("kwok-node-0"), "{message:?}");
        let users = |reservation: &MaskReservation| -> Vec<Option<String>> {
            let users = reservation.status.iter().flat_map(|status| status.users.iter().flatten());
            users.map(|user| Some(user.uid.clone())).collect()
        };
        bench
            .until("vpn-0", "naming the Pod", |reservation: &MaskReservation| users(reservation) == [pod.uid()])
            .await?;
        bench.told::<Mask>("first", "HeldByPods", &["Pod stranger", "kwok-node-0"]).await?;
        // It is nobody's to delete but the user's.
        let pod_now = bench.api::<Pod>().get("stranger").await?;
        ensure!(pod_now.metadata.deletion_timestamp.is_none(), "the operator deleted somebody's Pod");
        bench.delete::<Pod>("stranger").await?;
        handed_over(bench, history, &first).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_mask_made_again_at_once_waits_for_its_predecessor() -> Result<()> {
    Bench::test("recreated", async |bench| {
        bench.provider("vpn", 1).await?;
        let mut history = History::start(&bench.client, Some(bench.name())).await?;
        let first = bench.active_mask("mine").await?;
        let pod = bench.run_pod(user_pod("user", &first, GRACE)?).await?;
        bench.delete::<Mask>("mine").await?;
        let mask = bench.mask("mine").await?;
        let waits: Mask = bench.says("mine", "PreviousConsumerTerminating").await?;
        same("the Mask", waits.uid(), mask.uid())?;
        bench.told::<Mask>("mine", "PreviousConsumerTerminating", &["MaskConsumer mine"]).await?;
        bench.gone(&first).await?;
        let second = bench.active("mine").await?;
        ensure!(second.uid() != first.uid(), "the same consumer");
        bench.gone(&pod).await?;
        same("most users at once", history.judge().await?.into_values().max(), Some(1))
    })
    .await
}

/// Waits until the reservation of the only slot says until when it is held.
async fn held_until(bench: &Bench) -> Result<MaskReservationStatus> {
    let until = |reservation: &MaskReservation| reservation.status.as_ref().is_some_and(|s| s.hold_until.is_some());
    let held = bench.until("vpn-0", "held until some time", until).await?;
    held.status.context("no status")
}

/// Whether a MaskConsumer was assigned no earlier than a hold ended, by the operator's own clock.
fn at_or_after(consumer: &MaskConsumer, held: &MaskReservationStatus) -> Result<()> {
    let until = held.hold_until.context("no holdUntil")?.timestamp();
    let assigned = ready_condition(consumer).context("no condition")?.last_transition_time.0.as_second();
    ensure!(assigned >= until, "assigned {} s before the end of the hold", until - assigned);
    Ok(())
}

#[tokio::test]
async fn a_pod_deleted_by_force_leaves_its_slot_held() -> Result<()> {
    Bench::test("forced", async |bench| {
        let release = MaskProviderReleaseSpec { delay: None, unclean_delay: Some("3s".into()) };
        let (history, first) = contended(bench, Some(release)).await?;
        bench.run_pod(user_pod("user", &first, 600)?).await?;
        bench.delete::<Mask>("first").await?;
        bench.until("user", "being deleted", |pod: &Pod| pod.metadata.deletion_timestamp.is_some()).await?;
        bench.kubectl(&["delete", "pod", "user", "--force", "--grace-period=0"]).await?;
        let held = held_until(bench).await?;
        bench.told::<Mask>("first", "HeldUntilDeadline", &["vpn-0 is held until"]).await?;
        let second = handed_over(bench, history, &first).await?;
        at_or_after(&second, &held)
    })
    .await
}

#[tokio::test]
async fn a_slot_may_rest_after_a_clean_end() -> Result<()> {
    Bench::test("delay", async |bench| {
        let release = MaskProviderReleaseSpec { delay: Some("2s".into()), unclean_delay: None };
        let (history, first) = contended(bench, Some(release)).await?;
        bench.run_pod(user_pod("user", &first, 1)?).await?;
        bench.delete::<Mask>("first").await?;
        let held = held_until(bench).await?;
        bench.told::<Mask>("first", "HeldUntilDeadline", &["vpn-0 is held until"]).await?;
        let second = handed_over(bench, history, &first).await?;
        at_or_after(&second, &held)
    })
    .await
}
