//! Objects that cannot be decoded: the operator skips them, and reports that in their status and in an Event.
//!
//! Invariant: the operator reports an object until its status is written. It reports it again only if the error changes,
//! or if the object could be decoded in between.

use std::collections::HashMap;

use chrono::SecondsFormat;
use serde_json::json;
use vpn_types::{READY, Reason};

use crate::model::{EventRecord, Kind, Now, ObjectKey, ObjectReference, Operation, Step, Uid, object_reference};

/// The objects that cannot be decoded.
#[derive(Clone, Debug, Default)]
pub struct UnreadableObjects(HashMap<(Kind, ObjectKey), Unreadable>);

#[derive(Clone, Debug)]
struct Unreadable {
    /// The UID.
    uid: Uid,
    /// `metadata.resourceVersion`.
    version: u64,
    /// The error of the decoder.
    error: String,
    /// What has been reported. After a restart it is reported again.
    reported: Reported,
    /// Whether the last request that was decided is about this error.
    is_requested: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reported {
    Nothing,
    /// Only an Event was recorded, because the status was refused or its outcome is not known.
    Event,
    Status,
}

impl Unreadable {
    fn report(&self, kind: Kind, key: &ObjectKey, now: Now) -> Step {
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
        let event = (self.reported == Reported::Nothing).then_some(event);
        Step::status(Operation::PatchStatus(kind, key.clone(), patch)).with_event(event)
    }
}

impl UnreadableObjects {
    /// Adds an object. Returns true if it has to be reported.
    pub fn add(&mut self, object: &ObjectReference, version: u64, error: String) -> bool {
        let id = (object.kind, object.key.clone());
        if let Some(known) = self.0.get_mut(&id).filter(|known| known.uid == object.uid && known.error == error) {
            known.version = version;
            return false;
        }
        let (uid, reported) = (object.uid.clone(), Reported::Nothing);
        self.0.insert(id, Unreadable { uid, version, error, reported, is_requested: false });
        true
    }

    /// Forgets an object if this view of it is newer. Returns true if it did.
    pub fn forget(&mut self, kind: Kind, key: &ObjectKey, (uid, version): &(Uid, u64)) -> bool {
        let id = (kind, key.clone());
        // A response may be older than what the watch has delivered.
        let is_older = |known: &Unreadable| known.uid != *uid || known.version < *version;
        self.0.get(&id).is_some_and(is_older) && self.0.remove(&id).is_some()
    }

    /// Forgets an object that was deleted. Returns true if it did.
    pub fn deleted(&mut self, kind: Kind, key: &ObjectKey, uid: &Uid) -> bool {
        let id = (kind, key.clone());
        self.0.get(&id).is_some_and(|known| known.uid == *uid) && self.0.remove(&id).is_some()
    }

    /// Forgets an object that did not exist when its status was written, unless another error was found since.
    pub fn gone(&mut self, kind: Kind, key: &ObjectKey) {
        let id = (kind, key.clone());
        if self.0.get(&id).is_some_and(|known| known.is_requested) {
            self.0.remove(&id);
        }
    }

    /// Returns the step that reports an object.
    pub fn report(&mut self, kind: Kind, key: &ObjectKey, now: Now) -> Step {
        match self.0.get_mut(&(kind, key.clone())) {
            Some(unreadable) if unreadable.reported != Reported::Status => {
                unreadable.is_requested = true;
                unreadable.report(kind, key, now)
            }
            _ => Step::Idle,
        }
    }

    /// Records whether the status was written. Whatever the outcome, the Event is recorded.
    pub fn answered(&mut self, kind: Kind, key: &ObjectKey, is_written: bool) {
        if let Some(unreadable) = self.0.get_mut(&(kind, key.clone())).filter(|one| one.is_requested) {
            unreadable.reported = if is_written { Reported::Status } else { Reported::Event };
        }
    }
}

#[cfg(test)]
mod tests;
