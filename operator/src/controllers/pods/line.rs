//! The queue of the Pods that share a Mask, the oldest first.

use vpn_types::Reason;

use super::report;
use crate::{
    controllers::Context,
    model::{ObjectKey, Step},
    state::{ConsumerView, InjectedPod},
};

/// Whether a Pod may use the slot of a MaskConsumer: of the Pods that share it, only the one that its status names.
pub fn may_use(pod: &InjectedPod, consumer: &ConsumerView) -> bool {
    pod.shares.is_none() || consumer.pod.as_ref().is_some_and(|named| named.uid == pod.meta.uid)
}

/// Whether a Pod without the scheduling gate may stay: the slot is its own, or is being released, which ends the Pod.
pub fn may_stay(pod: &InjectedPod, consumer: &ConsumerView) -> bool {
    consumer.meta.deleting || consumer.is_active() && may_use(pod, consumer)
}

/// Returns the Pods that wait for the slot of a shared Mask, in order.
pub fn waiting<'a>(ctx: &'a Context, mask: &ObjectKey, consumer: &ConsumerView) -> Vec<&'a InjectedPod> {
    let secret = consumer.assigned.as_ref().map(|assigned| assigned.secret.clone());
    let holder = consumer.pod.as_ref().map(|pod| &pod.uid);
    let pods = ctx.state.pods_of_mask(mask).filter(|pod| {
        pod.is_waiting()
            && pod.shares.is_some()
            && Some(&pod.secret) == secret.as_ref()
            && holder != Some(&pod.meta.uid)
    });
    let mut pods: Vec<_> = pods.collect();
    pods.sort_by_key(|pod| (pod.meta.created, &pod.meta.key));
    pods
}

/// Whether a Pod is the first that waits for the slot of its shared Mask.
pub fn is_first(ctx: &Context, pod: &InjectedPod, consumer: &ConsumerView) -> bool {
    waiting(ctx, &pod.mask(), consumer).first().is_some_and(|first| first.meta.uid == pod.meta.uid)
}

/// Reports which Pod has the slot, and the place of this one.
pub fn report(ctx: &Context, pod: &InjectedPod, consumer: &ConsumerView) -> Step {
    let Some(first) = &consumer.pod else { return Step::Idle };
    let place = waiting(ctx, &pod.mask(), consumer).iter().position(|other| other.meta.uid == pod.meta.uid);
    let place = place.map_or_else(String::new, |place| format!("; place {} in line", place + 1));
    let message = format!("Pod {} uses the slot of Mask {}{place}", first.name, consumer.meta.key.name);
    report::waiting(pod, Reason::SlotInUseByPod, &message, ctx.now)
}
