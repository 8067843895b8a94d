//! Injected Pods: invariants I9 and I10, and scenarios.

use serde_json::{Value, json};
use vpn_operator::model::{Kind, ObjectKey};
use vpn_types::{
    SLOT_ASSIGNED,
    inject::{INJECT_LABEL, INJECTED_ANNOTATION, Injected},
};

use crate::{
    metadata::{is_deleting, uid_of},
    run::Sim,
};

pub fn injected(pod: &Value) -> Option<Injected> {
    serde_json::from_str(pod["metadata"]["annotations"][INJECTED_ANNOTATION].as_str()?).ok()
}

pub fn is_gated(pod: &Value) -> bool {
    pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty())
}

pub fn has_ended(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// Returns a condition of a Pod.
pub fn condition<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    pod["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == name)
}

/// Holds after every step.
pub fn always(sim: &Sim) -> Result<(), String> {
    let mut sharing = Vec::new();
    for (key, pod) in sim.server.of_kind(Kind::Pod) {
        let Some(injected) = injected(pod) else { continue };
        let runs = sim.nodes.sessions.contains_key(uid_of(pod));
        if is_gated(pod) && runs {
            return Err(format!("I9: Pod {key} runs although it waits"));
        }
        let mask = ObjectKey::new(&key.namespace, injected.mask.as_ref().unwrap_or(&injected.secret));
        let consumer = sim.server.get(Kind::Consumer, &mask);
        let holds = consumer.is_some_and(|one| one["status"]["provider"]["secret"] == json!(injected.secret));
        if runs && !has_ended(pod) && !holds {
            return Err(format!("I9: Pod {key} runs without a slot"));
        }
        if runs && let Some(mask) = injected.mask {
            sharing.push((key.namespace.clone(), mask));
        }
    }
    let all = sharing.len();
    sharing.sort();
    sharing.dedup();
    if sharing.len() < all { Err("I10: two Pods of one Mask run at the same time".to_owned()) } else { Ok(()) }
}

/// Whether the operator may delete a Mask: its Pod is gone, or is going, or has ended.
pub fn may_go(sim: &Sim, mask: &Value) -> bool {
    let owner =
        mask["metadata"]["ownerReferences"].as_array().into_iter().flatten().find(|owner| owner["kind"] == "Pod");
    owner.is_some_and(|owner| {
        let pod = sim.server.by_uid(owner["uid"].as_str().unwrap_or_default());
        let is_abandoned = |pod: &Value| pod["metadata"]["labels"].get(INJECT_LABEL).is_none() && is_gated(pod);
        pod.is_none_or(|(_, pod)| is_deleting(pod) || has_ended(pod) || is_abandoned(pod))
    })
}

/// Whether the operator may delete an injected Pod: the slot that it has, or is about to get, is taken back, or
/// somebody else removed the gate.
pub fn lost_slot(sim: &Sim, pod: &Value) -> bool {
    let Some(injected) = injected(pod) else { return false };
    let key = |name: &str| ObjectKey::new(pod["metadata"]["namespace"].as_str().unwrap(), name);
    let consumer = sim.server.get(Kind::Consumer, &key(injected.mask.as_ref().unwrap_or(&injected.secret)));
    let has_lost = |consumer: &Value| {
        let is_named = consumer["status"]["pod"]["uid"] == pod["metadata"]["uid"];
        let has_slot = consumer["status"]["phase"] == "Active" && (injected.mask.is_none() || is_named);
        is_deleting(consumer) || !is_gated(pod) && !has_slot
    };
    consumer.is_none_or(|consumer| has_lost(consumer))
        || sim.server.log.iter().any(|event| {
            event.kind == Kind::Consumer
                && is_deleting(&event.last)
                && (event.last["status"]["pod"]["uid"] == pod["metadata"]["uid"]
                    || event.last["status"]["provider"]["secret"] == json!(injected.secret))
        })
}

/// Holds at rest.
pub fn at_rest(sim: &Sim) -> Result<(), String> {
    for (key, pod) in sim.server.of_kind(Kind::Pod) {
        let Some(injected) = injected(pod).filter(|_| !has_ended(pod) && !is_deleting(pod)) else { continue };
        let mask = ObjectKey::new(&key.namespace, injected.mask.as_ref().unwrap_or(&injected.secret));
        let consumer = sim.server.get(Kind::Consumer, &mask);
        let is_active = consumer.is_some_and(|one| one["status"]["phase"] == "Active");
        if injected.mask.is_none() && consumer.is_none() && is_gated(pod) {
            return Err(format!("Pod {key} has no Mask: {pod}"));
        }
        if injected.mask.is_none() && is_active && is_gated(pod) {
            return Err(format!("Pod {key} waits although it has a slot: {pod}"));
        }
        if injected.mask.is_some() && is_active && is_gated(pod) {
            let holder = consumer.and_then(|one| one["status"]["pod"]["uid"].as_str());
            let holds = holder
                .and_then(|uid| sim.server.by_uid(uid))
                .is_some_and(|(_, holder)| !is_gated(holder) && !has_ended(holder));
            if !holds {
                return Err(format!("Pod {key} waits although nobody uses the slot: {consumer:?}"));
            }
        }
        let condition = condition(pod, SLOT_ASSIGNED);
        if condition.is_none_or(|condition| (condition["status"] == "True") == is_gated(pod)) {
            return Err(format!("Pod {key} does not say whether it has a slot: {pod}"));
        }
    }
    for (key, mask) in sim.server.of_kind(Kind::Mask) {
        let has_pod =
            mask["metadata"]["ownerReferences"].as_array().into_iter().flatten().any(|owner| owner["kind"] == "Pod");
        if has_pod && may_go(sim, mask) {
            return Err(format!("I4: Mask {key} has outlived its Pod"));
        }
    }
    Ok(())
}
