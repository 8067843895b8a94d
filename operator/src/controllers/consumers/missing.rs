//! A Pod that is gone before the release of its slot begins. No list finds it, so its MaskConsumer names it.
//!
//! Invariant: the Pod counts as ended only if the watch on injected Pods saw its end. After a restart, the watch has
//! not seen it.

use super::context::ConsumerContext;
use crate::{
    model::ObjectKey,
    state::{ConsumerView, Ending, NamespacePods, SlotUserView},
};

/// Whether the Pod that the slot was for is gone, and how it ended.
pub enum MissingPod {
    /// The Pod exists, or it has ended.
    None,
    /// The watch has not delivered yet how it ended.
    Undelivered,
    /// It disappeared, and nothing shows that its containers have ended.
    MayRun(SlotUserView),
}

/// No list finds a Pod that was force-deleted, or whose Node was removed, because it is gone before its Mask. Only the
/// watch on injected Pods saw how it ended. After a restart, that is unknown.
pub fn missing_pod(ctx: &mut ConsumerContext<'_>, consumer: &ConsumerView, pods: &NamespacePods) -> MissingPod {
    let Some(pod) = consumer.slot_pod().filter(|_| consumer.assigned.is_some()) else { return MissingPod::None };
    if pods.get(&pod.uid).is_some() || pods.ending(&pod.uid).is_some() {
        return MissingPod::None;
    }
    let key = ObjectKey { namespace: consumer.meta.key.namespace.clone(), name: pod.name.clone() };
    if ctx.state.injected_pods.get(&key).is_some_and(|known| known.meta.uid == pod.uid) {
        return MissingPod::Undelivered;
    }
    match &ctx.memory(consumer).pod_ending {
        Some((uid, Ending::Clean)) if *uid == pod.uid => MissingPod::None,
        _ => MissingPod::MayRun(SlotUserView { name: pod.name.clone(), uid: pod.uid.clone(), node: None }),
    }
}
