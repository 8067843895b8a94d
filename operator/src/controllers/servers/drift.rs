//! Objects of a server that others have changed.
//!
//! Invariant: fields that the operator does not set belong to others. An object that the API server or a webhook changes
//! while it is applied is not applied again until somebody changes it, and no object is applied more often than once in
//! [`INTERVAL`], whoever sets it back.

use std::time::Duration;

use serde_json::{Value, json};
use vpn_types::Reason;

use super::context::ServersContext;
use crate::{
    capacity::millis,
    model::{EventRecord, Kind, ObjectKey, object_reference},
    state::{ServerObject, ServerView},
};

/// The minimum interval between two corrections of an object.
const INTERVAL: Duration = Duration::from_secs(10);

/// Whether an object is as it was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drift {
    /// The object is as it was applied, or the API server changed it.
    None,
    /// The object has to be applied again. Only a process that applied it knows whether somebody has changed it.
    Correct {
        /// Whether somebody has changed it.
        is_change: bool,
    },
    /// The object has to be applied again at this time (monotonic).
    CorrectAt(Duration),
}

impl ServersContext<'_> {
    /// Compares an object with what was applied.
    pub fn drift(&self, server: &ServerView, found: &ServerObject, wanted: &Value) -> Drift {
        let applied = self.memory.applied.get(&server.meta.uid);
        let applied = applied.and_then(|applied| applied.get(&(found.kind, found.meta.key.clone())));
        // Most often, nothing has changed since.
        if applied.is_some_and(|applied| applied.content == found.content) {
            return Drift::None;
        }
        let content: Value = serde_json::from_str(&found.content).unwrap_or_default();
        if holds(&content, &owned_part(found.kind, wanted)) {
            return Drift::None;
        }
        match applied.map(|applied| applied.at + INTERVAL) {
            Some(time) if time > self.now.monotonic => Drift::CorrectAt(time),
            Some(_) => Drift::Correct { is_change: true },
            None => Drift::Correct { is_change: false },
        }
    }
}

/// Returns the Event about an object that is applied again.
pub fn corrected(server: &ServerView, kind: Kind, key: &ObjectKey) -> EventRecord {
    let (kind, name, server_name) = (kind.as_str(), &key.name, &server.meta.key.name);
    EventRecord {
        regarding: object_reference(Kind::Server, &server.meta.key, &server.meta.uid),
        related: None,
        warning: false,
        reason: Reason::DriftCorrected,
        action: "Apply",
        message: format!(
            "{kind} {name} was changed, and has been set back. Change OpenVPNServer {server_name} instead; spec.pod changes \
             its Pods"
        ),
    }
}

/// Returns the part of an object that [`ServerObject::content`] has.
fn owned_part(kind: Kind, wanted: &Value) -> Value {
    let metadata = &wanted["metadata"];
    let annotations = if kind == Kind::Service { &metadata["annotations"] } else { &Value::Null };
    json!({
        "metadata": {"labels": metadata["labels"], "annotations": annotations},
        "spec": wanted["spec"],
        "data": wanted["data"],
    })
}

/// Whether an object has everything that was applied. Others may have added fields, and elements of lists. What was
/// applied empty may be absent.
fn holds(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (_, Value::Null) => true,
        (Value::Null, Value::Object(fields)) => fields.values().all(|wanted| holds(&Value::Null, wanted)),
        (Value::Null, Value::Array(all)) => all.is_empty(),
        (Value::Null, Value::String(text)) => text.is_empty(),
        (Value::Null, Value::Bool(is)) => !is,
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(field, wanted)| holds(found.get(field).unwrap_or(&Value::Null), wanted))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            wanted.iter().all(|wanted| found.iter().any(|found| holds(found, wanted)))
        }
        // The API server normalizes quantities: 1000m becomes 1.
        (Value::String(found), Value::String(wanted)) => {
            found == wanted || millis(found).is_ok_and(|found| millis(wanted) == Ok(found))
        }
        (found, wanted) => found == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_add_is_no_drift() {
        let wanted = json!({"spec": {
            "ports": [{"name": "openvpn", "port": 1194}], "annotations": {}, "value": "", "optional": false,
            "volumes": [{"name": "run", "emptyDir": {}}, {"name": "tmp", "emptyDir": {"medium": "Memory"}}],
        }});
        let found = json!({"spec": {
            "ports": [{"name": "other", "port": 1}, {"name": "openvpn", "port": 1194, "nodePort": 30_000}],
            "volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory"}}, {"name": "run", "emptyDir": {}}],
            "clusterIP": "10.96.0.7",
        }});
        assert!(holds(&found, &wanted));
        for (pointer, other) in [
            ("/spec/ports/1/port", json!(1195)),
            ("/spec/ports", json!([])),
            ("/spec/volumes/0/emptyDir/medium", json!("")),
            ("/spec/volumes", Value::Null),
            ("/spec", Value::Null),
        ] {
            let mut changed = found.clone();
            *changed.pointer_mut(pointer).expect("it is there") = other;
            assert!(!holds(&changed, &wanted), "{pointer}");
        }
    }

    #[test]
    fn quantities_are_compared_as_such() {
        let limits = |cpu: &str, memory: &str| json!({"limits": {"cpu": cpu, "memory": memory}});
        assert!(holds(&limits("1", "1Gi"), &limits("1000m", "1024Mi")));
        assert!(!holds(&limits("1", "1Gi"), &limits("1001m", "1Gi")) && !holds(&json!("a"), &json!("b")));
    }

    #[test]
    fn identity_and_status_are_not_compared() {
        let wanted = json!({
            "kind": "Service", "metadata": {"name": "home", "uid": "1", "labels": {"app": "openvpn"}}, "spec": {"a": 1},
        });
        let part = owned_part(Kind::Service, &wanted);
        assert!(part["metadata"].get("uid").is_none() && part.get("kind").is_none(), "{part}");
        assert!(holds(&json!({"metadata": {"labels": {"app": "openvpn"}}, "spec": {"a": 1}}), &part));
    }
}
