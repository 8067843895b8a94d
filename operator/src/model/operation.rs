//! Requests to the API server, as data.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Secret};
use serde_json::{Value, json};
use vpn_types::{FINALIZER, Mask, MaskConsumer, MaskReservation};

use super::{Kind, Meta, ObjectKey, Uid};

/// How a deletion reaches dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// The garbage collector deletes them once the owner is gone.
    Background,
    /// The garbage collector deletes them first.
    Foreground,
}

/// An object to be created.
#[derive(Clone, Debug)]
pub enum NewObject {
    /// W1.
    Consumer(Box<MaskConsumer>),
    /// W2.
    Reservation(Box<MaskReservation>),
    /// W3.
    Secret(Box<Secret>),
    /// Asks for the slot of a verification.
    Mask(Box<Mask>),
    /// Verifies a provider.
    Pod(Box<Pod>),
}

impl NewObject {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            NewObject::Consumer(_) => Kind::Consumer,
            NewObject::Reservation(_) => Kind::Reservation,
            NewObject::Secret(_) => Kind::Secret,
            NewObject::Mask(_) => Kind::Mask,
            NewObject::Pod(_) => Kind::Pod,
        }
    }
}

/// One request to the API server.
#[derive(Clone, Debug)]
pub enum Operation {
    /// POST.
    Create(ObjectKey, NewObject),
    /// Merge patch of the status subresource.
    PatchStatus(Kind, ObjectKey, Value),
    /// Merge patch of the object.
    Patch(Kind, ObjectKey, Value),
    /// JSON patch (RFC 6902) of the object.
    JsonPatch(Kind, ObjectKey, Value),
    /// DELETE with a UID precondition, and one on the version where the decision rests on it.
    Delete {
        /// What kind.
        kind: Kind,
        /// Which object.
        key: ObjectKey,
        /// It has to be this one.
        uid: Uid,
        /// It must not have changed since.
        version: Option<u64>,
        /// What becomes of dependents; absent: the server's default.
        propagation: Option<Propagation>,
    },
    /// GET, straight from storage.
    Get(Kind, ObjectKey),
    /// Consistent LIST of the Pods of a namespace.
    ListPods(Arc<str>),
}

impl Operation {
    /// What it is about.
    pub fn target(&self) -> Option<(Kind, &ObjectKey)> {
        match self {
            Operation::Create(key, new) => Some((new.kind(), key)),
            Operation::PatchStatus(kind, key, _)
            | Operation::Patch(kind, key, _)
            | Operation::JsonPatch(kind, key, _)
            | Operation::Get(kind, key)
            | Operation::Delete { kind, key, .. } => Some((*kind, key)),
            Operation::ListPods(_) => None,
        }
    }

    /// Whether it changes nothing.
    pub fn is_read(&self) -> bool {
        matches!(self, Operation::Get(..) | Operation::ListPods(_))
    }

    /// The object that it changes.
    pub fn written(&self) -> Option<(Kind, &ObjectKey)> {
        self.target().filter(|_| !self.is_read())
    }

    /// Which part of the object a patch changes.
    pub fn part(&self) -> Option<&'static str> {
        match self {
            Operation::PatchStatus(..) => Some("status"),
            Operation::Patch(..) => Some("spec"),
            Operation::JsonPatch(Kind::Secret, ..) => Some("data"),
            Operation::JsonPatch(..) => Some("finalizers"),
            Operation::Create(..) | Operation::Delete { .. } | Operation::Get(..) | Operation::ListPods(_) => None,
        }
    }

    /// Verb as the API's audit log and RBAC know it.
    pub fn verb(&self) -> &'static str {
        match self {
            Operation::Create(..) => "create",
            Operation::PatchStatus(..) | Operation::Patch(..) | Operation::JsonPatch(..) => "patch",
            Operation::Delete { .. } => "delete",
            Operation::Get(..) => "get",
            Operation::ListPods(_) => "list",
        }
    }
}

/// Adds our finalizer; fails when the object has changed since.
pub fn add_finalizer(kind: Kind, meta: &Meta) -> Operation {
    let guard = json!({"op": "test", "path": "/metadata/resourceVersion", "value": meta.version.to_string()});
    let add = if meta.finalizers == 0 {
        json!({"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]})
    } else {
        json!({"op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER})
    };
    Operation::JsonPatch(kind, meta.key.clone(), Value::Array(vec![guard, add]))
}

/// Removes our finalizer and no other; absent when it is not there.
pub fn remove_finalizer(kind: Kind, meta: &Meta) -> Option<Operation> {
    let path = format!("/metadata/finalizers/{}", meta.finalizer?);
    let patch = json!([
        {"op": "test", "path": "/metadata/uid", "value": meta.uid.as_str()},
        {"op": "test", "path": path, "value": FINALIZER},
        {"op": "remove", "path": path},
    ]);
    Some(Operation::JsonPatch(kind, meta.key.clone(), patch))
}

/// Deletes just this object, whatever it has become since.
pub fn delete(kind: Kind, meta: &Meta, propagation: Option<Propagation>) -> Operation {
    Operation::Delete { kind, key: meta.key.clone(), uid: meta.uid.clone(), version: None, propagation }
}

/// Deletes this object if it is still as we saw it.
pub fn delete_unchanged(kind: Kind, meta: &Meta, propagation: Option<Propagation>) -> Operation {
    Operation::Delete { kind, key: meta.key.clone(), uid: meta.uid.clone(), version: Some(meta.version), propagation }
}
