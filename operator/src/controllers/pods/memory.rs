//! State of the pods controller. All of it can be lost: after a restart, the controller reads again.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    model::{ObjectKey, Uid},
    state::ReplicaSetView,
};

/// State of the pods controller.
#[derive(Clone, Default)]
pub struct Memory {
    /// Pods that are gone, or are not watched any more.
    pub unwatched: HashMap<Uid, Unwatched>,
    /// Pods that lost their gate and have no slot, according to a read.
    pub lost: HashSet<Uid>,
    /// The ReplicaSets of a namespace, and when (monotonic) they were listed.
    pub replica_sets: HashMap<Arc<str>, (Duration, Vec<ReplicaSetView>)>,
    /// Until when (monotonic) a slot of a provider is being handed over to the next Pod in line, because a Pod ended.
    pub handing_over: HashMap<ObjectKey, Duration>,
    /// Pods whose eviction was accepted, until the watch shows it.
    pub evicted: HashSet<Uid>,
}

/// What is known of a Pod that is not in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwatched {
    /// Its node confirmed its end.
    Ended,
    /// A read found no such Pod, at this time (monotonic). Its containers may still run.
    Gone(Duration),
    /// A read found it, at this time (monotonic): it has lost its label, or its annotation.
    Unlabeled {
        /// When.
        at: Duration,
        /// Whether it still has the scheduling gate.
        gated: bool,
    },
    /// The watch saw its end, or that it lost its label, while it was not bound to a node. A read shows which.
    Unbound,
}
