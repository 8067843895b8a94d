//! Objects that cannot be decoded: the operator skips them, and reports that in their status.

use chrono::SecondsFormat;
use serde_json::json;
use vpn_types::{READY, Reason};

use crate::model::{EventRecord, Kind, Now, ObjectKey, Operation, Step, Uid, object_reference};

/// An object that cannot be decoded.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// The UID.
    pub uid: Uid,
    /// The error of the decoder.
    pub error: String,
    /// Whether it was reported. After a restart it is reported again.
    pub reported: bool,
}

impl Unreadable {
    /// Reports it in its status and in an Event.
    pub fn report(&self, kind: Kind, key: &ObjectKey, now: Now) -> Step {
        let message = format!("this object cannot be read, and nothing is done for it: {}", self.error);
        let event = EventRecord {
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
        // The phase stays as it is, because others may depend on it.
        let patch = json!({"status": {"message": message, "conditions": [condition]}});
        Step::status(Operation::PatchStatus(kind, key.clone(), patch)).with_event(Some(event))
    }
}
