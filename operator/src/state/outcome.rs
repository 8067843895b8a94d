//! Outcomes of requests, and watch events.

use std::collections::HashMap;

use vpn_types::Reason;

use super::{Object, PodView, ReplicaSetView};
use crate::model::{Kind, ObjectKey, Uid};

/// The outcome of a request.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Success, with the current object.
    Object(Box<Object>),
    /// Success, and the object no longer exists.
    Gone,
    /// The Pods of a namespace.
    Pods(Vec<PodView>),
    /// The ReplicaSets of a namespace.
    ReplicaSets(Vec<ReplicaSetView>),
    /// How many clients are connected to the replicas of an OpenVPN server, as far as they have answered.
    Clients(HashMap<Uid, u64>),
    /// The eviction of a Pod was accepted.
    Evicted,
    /// 404: there is no such object, or no such namespace.
    NotFound,
    /// 409 on a create: an object with this name exists.
    AlreadyExists,
    /// 409 or 422 on a patch or a delete: the object has changed.
    Conflict,
    /// Rejected. Nothing was written.
    Refused {
        /// The reason, from the closed set.
        reason: Reason,
        /// The message of the API server.
        message: String,
    },
    /// Success, but the response cannot be decoded.
    Undecodable {
        /// The error of the decoder.
        message: String,
    },
    /// It is not known whether the request took effect: timeout, connection lost, 500, 503, 504. Or this process was no
    /// longer the leader, and did not send it.
    Unknown {
        /// The error.
        message: String,
    },
}

/// A watch event, as in `kube::runtime::watcher`.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// A list starts.
    Init(Kind),
    /// An object of the list.
    InitApply(Object),
    /// The list is complete.
    InitDone(Kind),
    /// An object was added or modified.
    Apply(Object),
    /// An object was deleted. This is its last state.
    Delete(Object),
    /// There is no view of an object any more: an injected Pod lost its annotation, or was deleted without it, or an
    /// object that cannot be decoded was deleted.
    Lost(Kind, ObjectKey, Uid),
}
