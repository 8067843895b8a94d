//! The input of the decisions of the servers controller.

use super::{memory::Memory, settings::Settings};
use crate::{
    model::{Backoff, Kind, Meta, Now, ObjectKey, Operation, Step},
    state::ClusterState,
};

/// The input of a decision.
pub struct ServersContext<'a> {
    /// The cached state of the cluster.
    pub state: &'a ClusterState,
    /// State of this controller.
    pub memory: &'a Memory,
    /// Settings of this installation.
    pub settings: &'a Settings,
    /// The backoff of the last write, while it is active.
    pub backoff: Option<Backoff>,
    /// Whether no backoff delays the revocation of certificates, which has a priority of its own.
    pub may_revoke: bool,
    /// The current time.
    pub now: Now,
}

/// Returns the operation that applies an object.
pub fn apply(kind: Kind, key: ObjectKey, present: Option<&Meta>, object: serde_json::Value) -> Step {
    Step::maintain(Operation::Apply(kind, key, present.map(|meta| meta.uid.clone()), object))
}
