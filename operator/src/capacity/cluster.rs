//! The Nodes and Pods of a cluster, with the sums that queries need.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{nodes::NodeView, pods::PodView, resources::Sum};
use crate::model::{Labels, ObjectKey};

/// A Node, and what its Pods request. There are Pods before their Node is known, and after it is gone.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeEntry {
    pub view: Option<NodeView>,
    pub used: Sum,
}

/// The Nodes and Pods of a cluster.
///
/// Invariant: the sums are those of the Pods that the cluster holds, whatever was applied and removed before.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Sorted, so that every process gives the same answer.
    pub(super) nodes: BTreeMap<Arc<str>, NodeEntry>,
    /// By namespace and name. Boxed, because a hash table of large entries wastes up to half of its memory.
    pub(super) pods: HashMap<Arc<str>, HashMap<Arc<str>, Box<PodView>>>,
    /// The requests of Pods that are bound, by priority and Node.
    pub(super) by_priority: BTreeMap<i32, HashMap<Arc<str>, Sum>>,
    /// The Pods that are not bound yet.
    pub(super) unbound: BTreeSet<ObjectKey>,
    /// The requests of all Pods.
    pub(super) requested: Sum,
    /// The Pods of a workload share their labels. With the number of Pods that have them.
    labels: HashMap<Labels, usize>,
}

impl Cluster {
    /// Adds a Node, or replaces it.
    pub fn apply_node(&mut self, node: NodeView) {
        let entry = self.nodes.entry(node.name.clone()).or_default();
        entry.view = Some(node);
    }

    /// Removes a Node. Its Pods stay until they are removed themselves.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(entry) = self.nodes.get_mut(name) {
            entry.view = None;
            if entry.used == Sum::default() {
                self.nodes.remove(name);
            }
        }
    }

    /// Adds a Pod, or replaces it. A Pod that is not counted is removed.
    pub fn apply_pod(&mut self, mut pod: PodView) {
        self.remove_pod(&pod.key);
        if !pod.is_counted {
            return;
        }
        if let Some((shared, _)) = self.labels.get_key_value(&pod.labels) {
            pod.labels = shared.clone();
        }
        *self.labels.entry(pod.labels.clone()).or_default() += 1;
        let sum = Sum::of(pod.requests, 1);
        self.requested = self.requested.plus(sum);
        match &pod.node {
            Some(node) => {
                let entry = self.nodes.entry(node.clone()).or_default();
                entry.used = entry.used.plus(sum);
                let of_priority = self.by_priority.entry(pod.priority).or_default().entry(node.clone()).or_default();
                *of_priority = of_priority.plus(sum);
            }
            None => drop(self.unbound.insert(pod.key.clone())),
        }
        let namespace = self.pods.entry(pod.key.namespace.clone()).or_default();
        namespace.insert(pod.key.name.clone(), Box::new(pod));
    }

    /// Removes a Pod.
    pub fn remove_pod(&mut self, key: &ObjectKey) {
        let Some(namespace) = self.pods.get_mut(&key.namespace) else { return };
        let Some(pod) = namespace.remove(&key.name) else { return };
        if namespace.is_empty() {
            self.pods.remove(&key.namespace);
        }
        let sum = Sum::of(pod.requests, 1);
        self.requested = self.requested.minus(sum);
        match &pod.node {
            Some(node) => self.unbind(&pod, node, sum),
            None => drop(self.unbound.remove(key)),
        }
        if let Some(users) = self.labels.get_mut(&pod.labels) {
            *users -= 1;
            if *users == 0 {
                self.labels.remove(&pod.labels);
            }
        }
    }

    fn unbind(&mut self, pod: &PodView, node: &str, sum: Sum) {
        if let Some(entry) = self.nodes.get_mut(node) {
            entry.used = entry.used.minus(sum);
            if entry.view.is_none() && entry.used == Sum::default() {
                self.nodes.remove(node);
            }
        }
        let Some(nodes) = self.by_priority.get_mut(&pod.priority) else { return };
        if let Some(of_priority) = nodes.get_mut(node) {
            *of_priority = of_priority.minus(sum);
            if *of_priority == Sum::default() {
                nodes.remove(node);
            }
        }
        if nodes.is_empty() {
            self.by_priority.remove(&pod.priority);
        }
    }

    /// Replaces all Nodes, after a list.
    pub fn replace_nodes(&mut self, nodes: Vec<NodeView>) {
        for name in self.nodes.keys().cloned().collect::<Vec<_>>() {
            self.remove_node(&name);
        }
        nodes.into_iter().for_each(|node| self.apply_node(node));
    }

    /// Replaces all Pods, after a list.
    pub fn replace_pods(&mut self, pods: Vec<PodView>) {
        let all = self.pods.values().flat_map(HashMap::values).map(|pod| pod.key.clone());
        for key in all.collect::<Vec<_>>() {
            self.remove_pod(&key);
        }
        pods.into_iter().for_each(|pod| self.apply_pod(pod));
    }

    /// Returns a Pod that is counted.
    pub fn pod(&self, key: &ObjectKey) -> Option<&PodView> {
        self.pods.get(&key.namespace)?.get(&key.name).map(|pod| &**pod)
    }

    /// Returns the number of Pods that are counted.
    pub fn pods(&self) -> usize {
        self.pods.values().map(HashMap::len).sum()
    }

    /// Returns the number of Nodes.
    pub fn nodes(&self) -> usize {
        self.nodes.values().filter(|entry| entry.view.is_some()).count()
    }
}
