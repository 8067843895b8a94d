//! The message for users about why a slot is still held during its release.

use std::time::Duration;

use vpn_types::Reason;

use crate::{
    model::Now,
    state::{ConsumerView, PodView},
};

/// Why the slot is still held, and when the reason may change.
pub struct Wait {
    /// The reason.
    pub reason: Reason,
    /// The message.
    pub message: String,
    /// When (monotonic) it may change without an event.
    pub until: Duration,
}

/// How long after the grace period of a Pod its node counts as lost: kubelet needs a moment to report.
const OVERDUE: Duration = Duration::from_secs(30);

/// Describes the Pods that still hold the slot. A Pod that needs manual action comes first.
pub fn describe_wait(consumer: &ConsumerView, remaining: &[&PodView], now: Now) -> Option<Wait> {
    let others = match remaining.len().checked_sub(1)? {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let describe = |pod: &PodView| {
        let node = pod.node.as_deref().unwrap_or_default();
        format!("Pod {} on node {node}{others}", pod.meta.key.name)
    };
    // The time that the Pod may still take to stop; `None` if it is overdue.
    let rest_of = |pod: &PodView| {
        let Some(stop_by) = pod.stop_by else { return Some(OVERDUE) };
        (stop_by + OVERDUE - now.wall).to_std().ok().filter(|rest| !rest.is_zero())
    };
    if let Some(pod) = remaining.iter().find(|pod| !pod.meta.deleting && !pod.consumers.contains(&consumer.meta.uid)) {
        let message = format!(
            "{} uses the credentials without an owner reference to this MaskConsumer; the slot is held until the Pod \
             is deleted",
            describe(pod)
        );
        return Some(Wait { reason: Reason::HeldByPods, message, until: Duration::MAX });
    }
    if let Some(pod) = remaining.iter().find(|pod| pod.meta.deleting && rest_of(pod).is_none()) {
        let message = format!(
            "{} should have stopped by now; if the node is lost for good, delete the Node object or force-delete the \
             Pod: the slot is then held for spec.release.uncleanDelay of the MaskProvider",
            describe(pod)
        );
        return Some(Wait { reason: Reason::HeldByLostNode, message, until: Duration::MAX });
    }
    let rest = remaining.iter().filter_map(|pod| rest_of(pod)).min();
    let until = rest.map_or(Duration::MAX, |rest| now.monotonic + rest);
    let message = format!("Waiting for {} to stop", describe(remaining.first()?));
    Some(Wait { reason: Reason::Releasing, message, until })
}
