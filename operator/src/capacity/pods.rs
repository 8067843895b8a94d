//! Views of Pods.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{requests::requests, resources::Resources};
use crate::model::{Labels, ObjectKey, intern, labels};

/// The requests of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    /// The namespace and name of the Pod.
    pub key: ObjectKey,
    /// The Node that the Pod is bound to.
    pub node: Option<Arc<str>>,
    /// The labels of the Pod.
    pub labels: Labels,
    /// `spec.priority`: the value of its PriorityClass.
    pub priority: i32,
    /// What the scheduler counts for the Pod.
    pub requests: Resources,
    /// Whether the Pod takes or asks for capacity. It does not when it has ended, or when scheduling gates hold it
    /// back.
    pub is_counted: bool,
}

impl PodView {
    /// Returns the view of a Pod, or `None` if it has no name or no spec.
    pub fn of(pod: &Pod) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let node = spec.node_name.as_deref().filter(|name| !name.is_empty());
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let ended = matches!(phase, Some("Succeeded" | "Failed"));
        let gated = node.is_none() && spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
        // Not interned: nothing else has the name of a Pod.
        let name = Arc::from(pod.metadata.name.as_deref()?);
        Some(Self {
            key: ObjectKey { namespace: intern(pod.metadata.namespace.as_deref().unwrap_or_default()), name },
            node: node.map(intern),
            labels: labels(pod.metadata.labels.iter().flatten()),
            priority: spec.priority.unwrap_or(0),
            requests: requests(spec),
            is_counted: !ended && !gated,
        })
    }
}
