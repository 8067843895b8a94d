//! The Masks of Pods. A Mask that a Pod controls is deleted with the Pod. If Pods share a Mask, `status.pod` of its
//! MaskConsumer names the Pod that may use the slot.
//!
//! Order: that name is written before the Pod loses its gate, with a guard on the resourceVersion. So of two operators, only
//! one names a Pod, and no Pod is named once the MaskConsumer is being deleted.

use std::time::Duration;

use serde_json::{Value, json};

use super::{line, memory::Unwatched};
use crate::{
    controllers::Context,
    model::{Kind, ObjectKey, Operation, Propagation, Step, Uid, delete},
    state::{ConsumerView, InjectedPod, PodStage, SlotPodView},
};

/// How often a Pod that lost its label is read.
const REREAD: Duration = Duration::from_secs(60);

/// Returns the next step for the Mask of that name.
pub fn decide(ctx: &Context, key: &ObjectKey) -> Step {
    let Some(mask) = ctx.state.masks.get(key).filter(|mask| !mask.meta.deleting) else { return Step::Idle };
    if let Some(owner) = &mask.pod {
        let pod = ObjectKey { namespace: key.namespace.clone(), name: owner.name.clone() };
        return match state_of(ctx, &pod, &owner.uid) {
            PodState::Alive(pod) if !pod.meta.deleting => Step::Idle,
            PodState::Unlabeled { until, gated: false } => Step::WaitUntil(until),
            PodState::Unknown => Step::send(Operation::Get(Kind::InjectedPod, pod)),
            // Nobody removes the gate of a Pod without its label. The release waits for the containers of the others, and
            // holds the slot if it cannot know that they have ended.
            PodState::Alive(_) | PodState::Unlabeled { gated: true, .. } | PodState::Ended | PodState::Gone(_) => {
                Step::send(delete(Kind::Mask, &mask.meta, Some(Propagation::Background)))
            }
        };
    }
    match ctx.state.consumers.get(key) {
        Some(consumer) if consumer.owner.as_ref() == Some(&mask.meta.uid) && consumer.is_active() => {
            hand_over(ctx, key, consumer)
        }
        _ => Step::Idle,
    }
}

/// Hands the slot of a shared Mask over to the next Pod in line.
fn hand_over(ctx: &Context, key: &ObjectKey, consumer: &ConsumerView) -> Step {
    let next = line::waiting(ctx, key, consumer)
        .first()
        .map(|pod| SlotPodView { name: pod.meta.key.name.clone(), uid: pod.meta.uid.clone() });
    let Some(holder) = &consumer.pod else {
        return next.map_or(Step::Idle, |next| set_pod(consumer, Some(&next)));
    };
    let pod = ObjectKey { namespace: key.namespace.clone(), name: holder.name.clone() };
    match state_of(ctx, &pod, &holder.uid) {
        PodState::Alive(_) => Step::Idle,
        PodState::Unlabeled { until, .. } => Step::WaitUntil(until),
        PodState::Unknown => Step::send(Operation::Get(Kind::InjectedPod, pod)),
        PodState::Ended => set_pod(consumer, next.as_ref()),
        PodState::Gone(since) => {
            // Its containers may still run. As for a release, the provider's `uncleanDelay` limits how long.
            let provider = consumer.assigned.as_ref().and_then(|assigned| ctx.state.providers.get(&assigned.provider));
            let delay =
                provider.map_or(vpn_types::MaskProviderReleaseSpec::DEFAULT_UNCLEAN_DELAY, |one| one.unclean_delay);
            match since + delay {
                until if until > ctx.now.monotonic => Step::WaitUntil(until),
                _ => set_pod(consumer, next.as_ref()),
            }
        }
    }
}

/// Sets `status.pod`, the Pod that may use the slot, or removes it.
fn set_pod(consumer: &ConsumerView, next: Option<&SlotPodView>) -> Step {
    let pod = next.map_or(Value::Null, |pod| json!({"name": &*pod.name, "uid": pod.uid.as_str()}));
    let patch = json!({
        "metadata": {"resourceVersion": consumer.meta.version.to_string()},
        "status": {"pod": pod},
    });
    Step::send(Operation::PatchStatus(Kind::Consumer, consumer.meta.key.clone(), patch))
}

/// What is known of the Pod with a UID.
enum PodState<'a> {
    Alive(&'a InjectedPod),
    /// Its node confirmed its end.
    Ended,
    /// Gone without evidence of its end, since this time.
    Gone(Duration),
    /// The Pod exists without its label, and has to be read again.
    Unlabeled {
        /// When (monotonic).
        until: Duration,
        /// Whether it still has the scheduling gate.
        gated: bool,
    },
    /// The Pod has to be read.
    Unknown,
}

fn state_of<'a>(ctx: &'a Context, key: &ObjectKey, uid: &Uid) -> PodState<'a> {
    if let Some(pod) = ctx.state.injected_pods.get(key).filter(|pod| pod.meta.uid == *uid) {
        return if pod.stage == PodStage::Ended { PodState::Ended } else { PodState::Alive(pod) };
    }
    match ctx.memory.pods.unwatched.get(uid) {
        Some(Unwatched::Ended) => PodState::Ended,
        Some(Unwatched::Gone(since)) => PodState::Gone(*since),
        Some(Unwatched::Unlabeled { at, gated }) if *at + REREAD > ctx.now.monotonic => {
            PodState::Unlabeled { until: *at + REREAD, gated: *gated }
        }
        Some(Unwatched::Unlabeled { .. } | Unwatched::Unbound) | None => PodState::Unknown,
    }
}

/// Whether the state of a Pod decides about this Mask.
pub fn needs(ctx: &Context, mask: &ObjectKey, pod: &Uid) -> bool {
    ctx.state.pod_using(mask).is_some_and(|uid| uid == pod)
}
