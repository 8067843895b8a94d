//! Reports the slot of a Pod: the condition `vpn.beebs.dev/SlotAssigned`, and Events.

use chrono::SecondsFormat;
use serde_json::json;
use vpn_types::{Reason, SLOT_ASSIGNED};

use crate::{
    model::{EventRecord, Kind, Now, Operation, Step, object_reference},
    state::{Assigned, InjectedPod, message_fingerprint},
};

/// Reports why a Pod waits. A new reason causes an Event, and a new queue position does not.
pub fn waiting(pod: &InjectedPod, reason: Reason, message: &str, now: Now) -> Step {
    let is_new = pod.condition.as_ref().is_none_or(|known| known.reason != Some(reason));
    let warning = !matches!(reason, Reason::NoFreeSlot | Reason::SlotInUseByPod);
    let event = is_new.then(|| event(pod, warning, reason, "Wait", message.to_owned()));
    condition(pod, false, reason, message, now).with_event(event)
}

/// Reports the slot of a Pod.
pub fn assigned(pod: &InjectedPod, assigned: &Assigned, now: Now) -> Step {
    let message = format!("Assigned slot {} of MaskProvider {}", assigned.slot, assigned.provider);
    condition(pod, true, Reason::Assigned, &message, now)
}

fn condition(pod: &InjectedPod, assigned: bool, reason: Reason, message: &str, now: Now) -> Step {
    let known = pod.condition.as_ref();
    if known.is_some_and(|known| {
        known.assigned == assigned && known.reason == Some(reason) && known.message == message_fingerprint(message)
    }) {
        return Step::Idle;
    }
    let since = known.filter(|known| known.assigned == assigned).map_or(now.wall, |known| known.since);
    let patch = json!({
        "metadata": {"uid": pod.meta.uid.as_str()},
        "status": {"conditions": [{
            "type": SLOT_ASSIGNED,
            "status": if assigned { "True" } else { "False" },
            "reason": reason.as_str(),
            "message": message,
            "lastTransitionTime": since.to_rfc3339_opts(SecondsFormat::Secs, true),
        }]},
    });
    Step::status(Operation::PatchPodStatus(pod.meta.key.clone(), patch))
}

/// Returns an Event of a Pod.
pub fn event(pod: &InjectedPod, warning: bool, reason: Reason, action: &'static str, message: String) -> EventRecord {
    EventRecord {
        regarding: object_reference(Kind::InjectedPod, &pod.meta.key, &pod.meta.uid),
        related: None,
        warning,
        reason,
        action,
        message,
    }
}
