//! Requests to the API server and to Pods, as data.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::core::v1::{Pod, Secret};
use serde_json::{Value, json};
use vpn_types::{FINALIZER, Mask, MaskConsumer, MaskReservation};

use super::{Issue, Kind, Meta, ObjectKey, Uid};

/// `propagationPolicy` of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// The garbage collector deletes dependents after the owner.
    Background,
    /// The garbage collector deletes dependents before the owner.
    Foreground,
}

/// An object to create.
#[derive(Clone, Debug)]
pub enum NewObject {
    /// The MaskConsumer of a Mask.
    Consumer(Box<MaskConsumer>),
    /// The lock on a slot.
    Reservation(Box<MaskReservation>),
    /// The copy of the credentials.
    Secret(Box<Secret>),
    /// The Mask that requests the slot of a verification.
    Mask(Box<Mask>),
    /// The Pod that verifies a provider.
    Pod(Box<Pod>),
}

impl NewObject {
    /// Returns the kind of the object.
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

/// A replica of an OpenVPN server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The namespace and name of the Pod.
    pub pod: ObjectKey,
    /// The UID of the Pod.
    pub uid: Uid,
    /// The address of the Pod.
    pub address: IpAddr,
}

/// One request to the API server, or to Pods.
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
    /// Server-side apply (KEP-555) of the object. With a UID, it updates the object with this UID, whatever others have
    /// changed in it. Without, it creates the object, and fails if one exists whose fields others have set.
    Apply(Kind, ObjectKey, Option<Uid>, Value),
    /// Server-side apply of a part of an object under another field manager, which fails if somebody has changed a value
    /// of it. The part then stays when the operator applies the object without it.
    Share(Kind, ObjectKey, Value),
    /// Creates or updates a Secret with keys, which are generated when the request is sent.
    Issue(Box<Issue>),
    /// DELETE with a precondition on the UID, and on the version if the decision depends on it.
    Delete {
        /// The kind of the object.
        kind: Kind,
        /// The key of the object.
        key: ObjectKey,
        /// The precondition on `metadata.uid`.
        uid: Uid,
        /// The precondition on `metadata.resourceVersion`.
        version: Option<u64>,
        /// The propagation policy; absent: the default of the API server.
        propagation: Option<Propagation>,
        /// The grace period of a Pod in seconds; absent: that in its spec.
        grace_period: Option<u32>,
    },
    /// A consistent GET.
    Get(Kind, ObjectKey),
    /// A consistent LIST of the Pods of a namespace.
    ListPods(Arc<str>),
    /// A consistent LIST of the ReplicaSets of a namespace.
    ListReplicaSets(Arc<str>),
    /// Strategic merge patch of the status of an injected Pod, which merges conditions by type.
    PatchPodStatus(ObjectKey, Value),
    /// Asks the replicas of an OpenVPN server, not the API server, how many clients are connected to each.
    CountClients(ObjectKey, Vec<Replica>),
    /// POST to the subresource `eviction` of an injected Pod, with a precondition on the UID.
    Evict(ObjectKey, Uid),
}

impl Operation {
    /// Returns the object that the request reads or writes.
    pub fn target(&self) -> Option<(Kind, &ObjectKey)> {
        match self {
            Operation::Create(key, new) => Some((new.kind(), key)),
            Operation::PatchStatus(kind, key, _)
            | Operation::Patch(kind, key, _)
            | Operation::JsonPatch(kind, key, _)
            | Operation::Get(kind, key)
            | Operation::Apply(kind, key, ..)
            | Operation::Share(kind, key, _)
            | Operation::Delete { kind, key, .. } => Some((*kind, key)),
            Operation::Issue(issue) => Some((Kind::ServerSecret, &issue.key)),
            Operation::PatchPodStatus(key, _) | Operation::Evict(key, _) => Some((Kind::InjectedPod, key)),
            Operation::ListPods(_) | Operation::ListReplicaSets(_) | Operation::CountClients(..) => None,
        }
    }

    /// Whether the request only reads.
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Operation::Get(..) | Operation::ListPods(_) | Operation::ListReplicaSets(_) | Operation::CountClients(..)
        )
    }

    /// Returns the object that the request writes.
    pub fn written(&self) -> Option<(Kind, &ObjectKey)> {
        self.target().filter(|_| !self.is_read())
    }

    /// Returns the part of the object that a patch changes.
    pub fn part(&self) -> Option<&'static str> {
        match self {
            Operation::PatchStatus(..) | Operation::PatchPodStatus(..) => Some("status"),
            Operation::Patch(..) => Some("spec"),
            Operation::JsonPatch(Kind::Secret, ..) => Some("data"),
            Operation::JsonPatch(Kind::InjectedPod, ..) => Some("gates"),
            Operation::JsonPatch(..) => Some("finalizers"),
            Operation::Create(..)
            | Operation::Apply(..)
            | Operation::Share(..)
            | Operation::Issue(..)
            | Operation::Delete { .. }
            | Operation::Get(..)
            | Operation::ListPods(_)
            | Operation::ListReplicaSets(_)
            | Operation::CountClients(..)
            | Operation::Evict(..) => None,
        }
    }

    /// Returns the verb as in RBAC and in the audit log.
    pub fn verb(&self) -> &'static str {
        match self {
            Operation::Create(..) | Operation::Evict(..) => "create",
            Operation::Issue(issue) if issue.replaces.is_none() => "create",
            Operation::Issue(_)
            | Operation::Apply(..)
            | Operation::Share(..)
            | Operation::PatchPodStatus(..)
            | Operation::PatchStatus(..)
            | Operation::Patch(..)
            | Operation::JsonPatch(..) => "patch",
            Operation::Delete { .. } => "delete",
            Operation::Get(..) | Operation::CountClients(..) => "get",
            Operation::ListPods(_) | Operation::ListReplicaSets(_) => "list",
        }
    }
}

/// Adds the operator's finalizer, unless the object has changed since.
pub fn add_finalizer(kind: Kind, meta: &Meta) -> Operation {
    let guard = json!({"op": "test", "path": "/metadata/resourceVersion", "value": meta.version.to_string()});
    let add = if meta.finalizers == 0 {
        json!({"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]})
    } else {
        json!({"op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER})
    };
    Operation::JsonPatch(kind, meta.key.clone(), Value::Array(vec![guard, add]))
}

/// Removes the operator's finalizer and no other. Returns `None` if the object does not have it.
pub fn remove_finalizer(kind: Kind, meta: &Meta) -> Option<Operation> {
    let path = format!("/metadata/finalizers/{}", meta.finalizer?);
    let patch = json!([
        {"op": "test", "path": "/metadata/uid", "value": meta.uid.as_str()},
        {"op": "test", "path": path, "value": FINALIZER},
        {"op": "remove", "path": path},
    ]);
    Some(Operation::JsonPatch(kind, meta.key.clone(), patch))
}

/// Deletes the object with this UID, even if it has changed since.
pub fn delete(kind: Kind, meta: &Meta, propagation: Option<Propagation>) -> Operation {
    let (key, uid) = (meta.key.clone(), meta.uid.clone());
    Operation::Delete { kind, key, uid, version: None, propagation, grace_period: None }
}

/// Deletes the object, unless it has changed since.
pub fn delete_unchanged(kind: Kind, meta: &Meta, propagation: Option<Propagation>) -> Operation {
    let (key, uid) = (meta.key.clone(), meta.uid.clone());
    Operation::Delete { kind, key, uid, version: Some(meta.version), propagation, grace_period: None }
}

/// The grace period in seconds of a Pod that has none. With 0, the API server removes a Pod as soon as it is deleted, and
/// nobody knows when its containers have stopped.
pub const SHORTEST_GRACE_PERIOD: u32 = 1;

/// Deletes a Pod so that its end can be seen.
pub fn delete_pod(meta: &Meta, has_no_grace_period: bool) -> Operation {
    let (key, uid) = (meta.key.clone(), meta.uid.clone());
    let grace_period = has_no_grace_period.then_some(SHORTEST_GRACE_PERIOD);
    Operation::Delete { kind: Kind::Pod, key, uid, version: None, propagation: None, grace_period }
}
