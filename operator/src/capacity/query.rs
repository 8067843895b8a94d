//! Queries of the capacity of a cluster.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    cluster::Cluster,
    pods::PodView,
    resources::{Resources, Sum},
};
use crate::model::{LabelMatcher, label};

/// The Pods that use the capacity that other Pods leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consumers {
    /// The Pods of a namespace with matching labels.
    Selected {
        /// The namespace of the Pods.
        namespace: Arc<str>,
        /// Matches their labels.
        labels: LabelMatcher,
    },
    /// The Pods of all namespaces whose PriorityClass has a value below this one.
    BelowPriority(i32),
}

impl Consumers {
    /// Whether a Pod is a consumer.
    pub fn contains(&self, pod: &PodView) -> bool {
        match self {
            Self::Selected { namespace, labels } => {
                pod.key.namespace == *namespace && labels.matches(|key| label(&pod.labels, key))
            }
            Self::BelowPriority(value) => pod.priority < *value,
        }
    }
}

/// The question how much capacity is left for consumers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The Pods whose own requests do not count.
    pub consumers: Consumers,
    /// What has to stay free in the cluster.
    pub reserve: Resources,
    /// The requests of one replica of the consumers.
    pub replica: Resources,
}

/// Sums over the cluster. Pods that have ended, or that scheduling gates hold back, do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The sum of `status.capacity`, of all Nodes.
    pub capacity: Resources,
    /// The number of Pods in `status.capacity`, of all Nodes.
    pub pod_capacity: u64,
    /// The sum of `status.allocatable`, of all Nodes.
    pub allocatable: Resources,
    /// The number of Pods in `status.allocatable`, of all Nodes.
    pub pod_allocatable: u64,
    /// The requests of all Pods.
    pub requests: Resources,
    /// Allocatable less requests, at least zero. Since the requests of the consumers are in it, a workload that is
    /// scaled by it changes it.
    pub remaining: Resources,
}

impl Totals {
    /// Returns the metrics by name. CPU is in millicores, memory in KiB.
    pub fn metrics(&self) -> [(&'static str, u64); 10] {
        let Self { capacity, pod_capacity, allocatable, pod_allocatable, requests, remaining } = *self;
        [
            ("cpu_capacity_total", capacity.cpu_millis),
            ("mem_capacity_total", kib(capacity)),
            ("pod_capacity_total", pod_capacity),
            ("cpu_allocatable_total", allocatable.cpu_millis),
            ("mem_allocatable_total", kib(allocatable)),
            ("pod_allocatable_total", pod_allocatable),
            ("cpu_requests_total", requests.cpu_millis),
            ("mem_requests_total", requests.memory_bytes.div_ceil(1024)),
            ("cpu_capacity_remaining", remaining.cpu_millis),
            ("mem_capacity_remaining", kib(remaining)),
        ]
    }
}

/// What is left for consumers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Available {
    /// Allocatable of the Nodes that accept Pods, less the requests of all Pods but the consumers', less the reserve,
    /// at least zero.
    pub resources: Resources,
    /// How many replicas the consumers may have, including those that run.
    pub replicas_that_fit: u64,
}

impl Available {
    /// Returns the metrics by name. CPU is in millicores, memory in KiB.
    pub fn metrics(&self) -> [(&'static str, u64); 3] {
        [
            ("cpu_capacity_available", self.resources.cpu_millis),
            ("mem_capacity_available", kib(self.resources)),
            ("replicas_that_fit", self.replicas_that_fit),
        ]
    }
}

/// Whole KiB, rounded down.
fn kib(amount: Resources) -> u64 {
    amount.memory_bytes / 1024
}

fn small(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

fn resources(sum: Sum) -> Resources {
    Resources { cpu_millis: small(sum.cpu), memory_bytes: small(sum.memory) }
}

impl Cluster {
    /// Returns sums over the cluster. The effort grows with the number of Nodes.
    pub fn totals(&self) -> Totals {
        let views = || self.nodes.values().filter_map(|entry| entry.view.as_ref());
        let capacity = views().map(|node| Sum::from(node.capacity)).fold(Sum::default(), Sum::plus);
        let allocatable = views().map(|node| Sum::from(node.allocatable)).fold(Sum::default(), Sum::plus);
        Totals {
            capacity: resources(capacity),
            pod_capacity: small(capacity.pods),
            allocatable: resources(allocatable),
            pod_allocatable: small(allocatable.pods),
            requests: resources(self.requested),
            remaining: resources(allocatable.minus(self.requested)),
        }
    }

    /// Returns what is left for consumers. The effort grows with the number of Nodes, of Pods in the namespace of the
    /// consumers, and of Pods that are not bound.
    ///
    /// - Nodes that are cordoned, not ready or tainted with `NoSchedule` or `NoExecute` offer nothing, and what their
    ///   Pods request is not missing elsewhere.
    /// - On each Node, what the Pods of others request is taken first.
    /// - Pods of others that wait for a Node are placed next: the largest first, each on the smallest Node that holds
    ///   it. A Pod that no Node holds changes nothing, because it would stay pending without the consumers, too.
    /// - Whole replicas are counted on each Node, by CPU, memory and number of Pods.
    /// - The reserve comes out of what whole replicas leave unused, and then out of replicas. It is a total, and may be
    ///   spread over Nodes.
    pub fn available(&self, query: &Query) -> Available {
        let Query { consumers, reserve, replica } = query;
        let mut free = self.free(consumers);
        for (requests, mut waiting) in self.waiting(consumers) {
            for node in &mut free {
                let placed = node.holds(requests).min(waiting);
                *node = node.minus(Sum::of(requests, placed));
                waiting -= placed;
            }
        }
        let whole = free.iter().map(|node| node.holds(*replica)).fold(0, u64::saturating_add);
        let left = free.into_iter().fold(Sum::default(), Sum::plus).minus(Sum::of(*reserve, 1));
        Available { resources: resources(left), replicas_that_fit: whole.min(left.holds_by_resources(*replica)) }
    }

    /// Returns what the Pods of others leave on each Node that accepts Pods, the smallest first.
    fn free(&self, consumers: &Consumers) -> Vec<Sum> {
        let own = self.bound_to_nodes(consumers);
        let nodes = self.nodes.iter().filter_map(|(name, entry)| {
            let view = entry.view.as_ref().filter(|view| view.is_schedulable())?;
            let others = entry.used.minus(own.get(&**name).copied().unwrap_or_default());
            Some(Sum::from(view.allocatable).minus(others))
        });
        let mut free: Vec<_> = nodes.collect();
        free.sort_by_key(|node| (node.cpu, node.memory, node.pods));
        free
    }

    /// Returns what the consumers request on each Node.
    fn bound_to_nodes(&self, consumers: &Consumers) -> HashMap<&str, Sum> {
        let mut sums: HashMap<&str, Sum> = HashMap::new();
        let mut add = |node, sum: Sum| {
            let of_node = sums.entry(node).or_default();
            *of_node = of_node.plus(sum);
        };
        match consumers {
            Consumers::Selected { namespace, .. } => {
                let pods = self.pods.get(namespace).into_iter().flat_map(HashMap::values);
                for pod in pods.filter(|pod| consumers.contains(pod)) {
                    if let Some(node) = &pod.node {
                        add(node, Sum::of(pod.requests, 1));
                    }
                }
            }
            Consumers::BelowPriority(value) => {
                let lower = self.by_priority.range(..*value).flat_map(|(_, nodes)| nodes);
                lower.for_each(|(node, sum)| add(node, *sum));
            }
        }
        sums
    }

    /// Returns the Pods of others that are not bound, by their requests, the largest first.
    fn waiting(&self, consumers: &Consumers) -> Vec<(Resources, u64)> {
        let mut waiting: BTreeMap<Resources, u64> = BTreeMap::new();
        let pods = self.unbound.iter().filter_map(|key| self.pod(key));
        for pod in pods.filter(|pod| !consumers.contains(pod)) {
            *waiting.entry(pod.requests).or_default() += 1;
        }
        waiting.into_iter().rev().collect()
    }
}
