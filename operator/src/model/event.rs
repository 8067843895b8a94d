//! Events to record for users.

use vpn_types::Reason;

use super::{Kind, ObjectKey, Uid};

/// An Event for users.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRecord {
    /// The object that `kubectl describe` shows it on.
    pub regarding: ObjectReference,
    /// A second object that it is about.
    pub related: Option<ObjectReference>,
    /// Whether something needs attention.
    pub warning: bool,
    /// Machine-readable reason.
    pub reason: Reason,
    /// What was done: an `action` in the sense of events.k8s.io/v1.
    pub action: &'static str,
    /// For people.
    pub message: String,
}

/// What an Event is about.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectReference {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub key: ObjectKey,
    /// Its UID.
    pub uid: Uid,
}

/// The same object by UID, for an Event.
pub fn object_reference(kind: Kind, key: &ObjectKey, uid: &Uid) -> ObjectReference {
    ObjectReference { kind, key: key.clone(), uid: uid.clone() }
}
