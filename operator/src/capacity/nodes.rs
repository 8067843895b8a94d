//! Views of Nodes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use super::resources::Allocatable;
use crate::model::intern;

/// The capacity of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// The name of the Node.
    pub name: Arc<str>,
    /// `status.capacity`.
    pub capacity: Allocatable,
    /// `status.allocatable`.
    pub allocatable: Allocatable,
    /// `spec.unschedulable`.
    pub is_cordoned: bool,
    /// Whether the condition `Ready` is true.
    pub is_ready: bool,
    /// Whether the Node has a taint with the effect `NoSchedule` or `NoExecute`.
    pub is_tainted: bool,
}

impl NodeView {
    /// Returns the view of a Node, or `None` if it has no name.
    pub fn of(node: &Node) -> Option<Self> {
        let (spec, status) = (node.spec.as_ref(), node.status.as_ref());
        let mut taints = spec.and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
        let mut conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        Some(Self {
            name: intern(node.metadata.name.as_deref()?),
            capacity: Allocatable::of(status.and_then(|status| status.capacity.as_ref())),
            allocatable: Allocatable::of(status.and_then(|status| status.allocatable.as_ref())),
            is_cordoned: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
            is_ready: conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            is_tainted: taints.any(|taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute"),
        })
    }

    /// Whether a Pod without tolerations can be bound to the Node.
    pub fn is_schedulable(&self) -> bool {
        self.is_ready && !self.is_cordoned && !self.is_tainted
    }
}
