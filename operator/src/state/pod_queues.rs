//! The Pods with a Mask of their own that wait for a slot, by ReplicaSet.
//!
//! Invariant: they are in the order in which they get slots, which is that of their consumers. It may differ from the order
//! in which the Pods were created. Pods that cannot get a slot now, because they have no consumer yet, are not listed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::views::{ConsumerView, InjectedPod, Rank};
use crate::model::{ObjectKey, Uid};

/// The queues by namespace and by UID of the ReplicaSet.
#[derive(Clone, Debug, Default)]
pub struct PodQueues(HashMap<Arc<str>, HashMap<Uid, BTreeMap<Rank, ObjectKey>>>);

/// The place of a Pod.
#[derive(PartialEq, Eq)]
pub struct Place {
    replica_set: Uid,
    rank: Rank,
    pod: ObjectKey,
}

impl Place {
    /// Returns the place of a Pod, if it has one.
    pub fn of(pod: &InjectedPod, consumer: &ConsumerView) -> Option<Self> {
        let of_consumer = consumer.mask.as_ref()?.pod.as_ref()?;
        let waits = of_consumer.uid == pod.meta.uid && pod.is_waiting() && consumer.is_waiting();
        let replica_set = pod.replica_set.clone().filter(|_| waits)?;
        Some(Self { replica_set, rank: consumer.rank(), pod: pod.meta.key.clone() })
    }
}

impl PodQueues {
    /// Moves a Pod from its place before to the present one.
    pub fn move_pod(&mut self, before: Option<Place>, now: Option<Place>) {
        if before == now {
            return;
        }
        if let Some(Place { replica_set, rank, pod }) = before
            && let Some(of_namespace) = self.0.get_mut(&pod.namespace)
            && let Some(queue) = of_namespace.get_mut(&replica_set)
        {
            queue.remove(&rank);
            if queue.is_empty() {
                of_namespace.remove(&replica_set);
            }
            if of_namespace.is_empty() {
                self.0.remove(&pod.namespace);
            }
        }
        if let Some(Place { replica_set, rank, pod }) = now {
            let of_namespace = self.0.entry(pod.namespace.clone()).or_default();
            of_namespace.entry(replica_set).or_default().insert(rank, pod);
        }
    }

    /// Returns the first Pod of each ReplicaSet of a namespace.
    pub fn first_of_each(&self, namespace: &str) -> impl Iterator<Item = &ObjectKey> {
        let queues = self.0.get(namespace).into_iter().flatten();
        queues.filter_map(|(_, queue)| queue.first_key_value()).map(|(_, pod)| pod)
    }

    /// Whether a Pod is the first of its ReplicaSet.
    pub fn is_first(&self, pod: &InjectedPod) -> bool {
        let queues = self.0.get(&pod.meta.key.namespace);
        let queue = pod.replica_set.as_ref().and_then(|replica_set| queues?.get(replica_set));
        queue.and_then(BTreeMap::first_key_value).is_some_and(|(_, first)| *first == pod.meta.key)
    }
}
