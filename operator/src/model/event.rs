//! Events for users.

use vpn_types::Reason;

use super::{Kind, ObjectKey, Uid};

/// An Event to record.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRecord {
    /// The object on which `kubectl describe` shows the Event.
    pub regarding: ObjectReference,
    /// A second object that is involved.
    pub related: Option<ObjectReference>,
    /// Whether the type is `Warning` instead of `Normal`.
    pub warning: bool,
    /// The machine-readable reason.
    pub reason: Reason,
    /// The `action` of events.k8s.io/v1.
    pub action: &'static str,
    /// The message for users.
    pub message: String,
}

/// A reference to the object of an Event.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectReference {
    /// The kind of the object.
    pub kind: Kind,
    /// The namespace and name of the object.
    pub key: ObjectKey,
    /// The UID of the object.
    pub uid: Uid,
}

/// Returns a reference to the object with this UID.
pub fn object_reference(kind: Kind, key: &ObjectKey, uid: &Uid) -> ObjectReference {
    ObjectReference { kind, key: key.clone(), uid: uid.clone() }
}
