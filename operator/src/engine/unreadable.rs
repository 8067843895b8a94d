//! Objects that the types cannot read: nothing is done for them, and they say so.

use chrono::SecondsFormat;
use serde_json::json;
use vpn_types::{READY, Reason};

use crate::model::{EventRecord, Now, Operation, Step, object_reference};
use crate::model::{Kind, ObjectKey, Uid};

/// An object that cannot be decoded.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// Its UID.
    pub uid: Uid,
    /// What is wrong with it.
    pub error: String,
    /// It was told; a restart tells it once more.
    pub reported: bool,
}

impl Unreadable {
    /// Says so in its status, and in an Event.
    pub fn report(&self, kind: Kind, key: &ObjectKey, now: Now) -> Step {
        let message = format!("this object cannot be read, and nothing is done for it: {}", self.error);
        let note = EventRecord {
            regarding: object_reference(kind, key, &self.uid),
            related: None,
            warning: true,
            reason: Reason::InvalidSpec,
            action: "Read",
            message: message.clone(),
        };
        let condition = json!({
            "type": READY, "status": "False", "reason": Reason::InvalidSpec.as_str(), "message": message,
            "lastTransitionTime": now.wall.to_rfc3339_opts(SecondsFormat::Secs, true),
        });
        // Not the phase: what was true of it before may be all that others go by.
        let patch = json!({"status": {"message": message, "conditions": [condition]}});
        Step::status(Operation::PatchStatus(kind, key.clone(), patch)).with_event(Some(note))
    }
}
