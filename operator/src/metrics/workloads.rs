//! Workloads, such as Deployments, whose Pods the webhook injected.

use std::{collections::HashMap, sync::Arc};

use crate::{
    allocator::Requirements,
    model::ObjectKey,
    state::{ClusterState, PodStage, Workload},
};

/// A workload whose Pods the webhook injected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadKey {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The resource and the name.
    pub workload: Workload,
}

/// What waiting Masks have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Waiting {
    /// The providers that they accept.
    pub requirements: Requirements,
    /// The priority.
    pub priority: i32,
    /// The workload that they belong to.
    pub workload: Option<WorkloadKey>,
}

/// Returns the workloads of injected Pods, by Mask.
pub fn workloads(state: &ClusterState) -> HashMap<ObjectKey, WorkloadKey> {
    let pods = state.injected_pods.values().filter(|pod| pod.stage != PodStage::Ended);
    let key = |namespace: &Arc<str>, workload: &Workload| WorkloadKey {
        namespace: namespace.clone(),
        workload: workload.clone(),
    };
    pods.filter_map(|pod| Some((pod.mask(), key(&pod.meta.key.namespace, pod.workload.as_ref()?)))).collect()
}
