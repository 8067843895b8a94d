//! What autoscalers and the metrics API have in common: workloads, and the labels in the selectors of metrics.

/// The usual workloads: resource, version of the API, kind. Discovery lists them in this order. Others work too.
pub const WORKLOADS: [(&str, &str, &str); 5] = [
    ("deployments.apps", "apps/v1", "Deployment"),
    ("jobs.batch", "batch/v1", "Job"),
    ("replicasets.apps", "apps/v1", "ReplicaSet"),
    ("rollouts.argoproj.io", "argoproj.io/v1alpha1", "Rollout"),
    ("statefulsets.apps", "apps/v1", "StatefulSet"),
];

/// The resource of workloads where a selector has no label `resource`.
pub const DEFAULT_RESOURCE: &str = WORKLOADS[0].0;

/// The labels that claimable slots take as parameters. The external metric also takes the labels `workload` and
/// `resource`, which name the workload.
pub const CLAIM_LABELS: [&str; 5] = ["tag", "reserve", "priority", "workload", "resource"];

/// The labels of [`CLAIM_LABELS`] without those that name the workload.
pub const CLAIM_PARAMETERS: &[&str] = CLAIM_LABELS.split_at(3).0;

/// The labels that the capacity of a cluster takes as parameters.
pub const CAPACITY_LABELS: [&str; 5] = ["cpu", "memory", "reserve-cpu", "reserve-memory", "priority-below"];
