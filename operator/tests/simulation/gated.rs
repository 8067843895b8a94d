//! The gated Pods of a snapshot agree with the cache, and at rest with the stored objects.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use vpn_operator::{
    engine::Engine,
    metrics::{GateReason, Snapshot},
    model::{Kind, ObjectKey},
};
use vpn_types::inject::{INJECT_LABEL, SLOT_GATE};

use crate::{metadata::is_deleting, pods::injected, run::Sim};

/// The number of Pods by namespace and reason, without zeros.
type Counts = BTreeMap<(String, &'static str), u64>;

fn counts(snapshot: &Snapshot) -> Counts {
    let pods = snapshot.pods.iter();
    let all = pods.flat_map(|(namespace, pods)| {
        GateReason::ALL.map(|reason| ((namespace.to_string(), reason.as_str()), pods.count(reason)))
    });
    all.filter(|(_, count)| *count > 0).collect()
}

/// Holds after every step: each gated Pod counts once, and no reason is older than its oldest Pod.
pub fn consistent(engine: &Engine, snapshot: &Snapshot) -> Result<(), String> {
    let pods = || engine.state().injected_pods.values().filter(|pod| pod.gate.is_some() && !pod.meta.deleting);
    let mut namespaces: Vec<_> =
        engine.state().injected_pods.values().map(|pod| pod.meta.key.namespace.clone()).collect();
    namespaces.sort();
    namespaces.dedup();
    if !snapshot.pods.keys().eq(&namespaces) {
        return Err(format!("gated Pods of {:?}, and there are Pods in {namespaces:?}", snapshot.pods.keys()));
    }
    for (namespace, shown) in &snapshot.pods {
        let created = || pods().filter(|pod| pod.meta.key.namespace == *namespace).map(|pod| pod.meta.created);
        let count: u64 = GateReason::ALL.iter().map(|reason| shown.count(*reason)).sum();
        let oldest = GateReason::ALL.iter().filter_map(|reason| shown.oldest(*reason)).min();
        if (count, oldest) != (created().count() as u64, created().min()) {
            return Err(format!("gated Pods in {namespace}: {shown:?}"));
        }
        if GateReason::ALL.iter().any(|reason| (shown.count(*reason) > 0) != shown.oldest(*reason).is_some()) {
            return Err(format!("a reason without a Pod in {namespace}: {shown:?}"));
        }
    }
    Ok(())
}

/// Holds at rest.
pub fn at_rest(sim: &Sim, snapshot: &Snapshot) -> Result<(), String> {
    let mut stored = Counts::new();
    for (key, pod) in sim.server.of_kind(Kind::Pod) {
        let Some(reason) = reason(sim, key, pod) else { continue };
        *stored.entry((key.namespace.to_string(), reason)).or_default() += 1;
    }
    let shown = counts(snapshot);
    if shown == stored { Ok(()) } else { Err(format!("gated Pods: is {shown:?}, should be {stored:?}")) }
}

/// Returns why a stored Pod has its gate.
fn reason(sim: &Sim, key: &ObjectKey, pod: &Value) -> Option<&'static str> {
    let gates: Vec<_> = pod["spec"]["schedulingGates"].as_array()?.iter().map(|gate| &gate["name"]).collect();
    let is_labeled = pod["metadata"]["labels"].get(INJECT_LABEL).is_some();
    let injected = injected(pod).filter(|_| is_labeled && !is_deleting(pod) && gates.contains(&&json!(SLOT_GATE)))?;
    let mask = ObjectKey::new(&key.namespace, injected.mask.as_ref().unwrap_or(&injected.secret));
    let consumer = sim.server.get(Kind::Consumer, &mask);
    let uid = &pod["metadata"]["uid"];
    // A Mask that was created for a Pod is of use to this Pod only.
    let of_pod = |consumer: &Value| match &consumer["spec"]["mask"]["pod"]["uid"] {
        Value::Null => true,
        owner => owner == uid && injected.mask.is_none(),
    };
    let Some(consumer) = consumer.filter(|consumer| of_pod(consumer)) else {
        return Some(if gates.len() > 1 { "OtherSchedulingGate" } else { "NoMask" });
    };
    let status = &consumer["status"];
    if status["phase"] != "Active" || is_deleting(consumer) {
        return Some("NoSlot");
    }
    let holder = &status["pod"]["uid"];
    let is_usable = status["provider"]["secret"] == json!(injected.secret);
    let waits_for_another = injected.mask.is_some() && is_usable && !holder.is_null() && holder != uid;
    Some(if waits_for_another { "SlotInUseByPod" } else { "SlotAssigned" })
}
