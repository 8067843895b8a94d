//! Indexes of the stores, and what the cache remembers of deleted objects.
//!
//! Invariant: an object counts as deleted only if a watch or a read said so, never because it is absent.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::Arc,
};

use super::{
    Change, ClientView, ClusterState, ConsumerView, CopyView, InjectedPod, Keys, MaskView, ReservationView,
    ServerPodView, StoreChange, pod_queues::Place,
};
use crate::model::{ObjectKey, Uid, intern};

/// A deleted consumer, remembered until its reservations are gone.
#[derive(Clone, Debug)]
pub struct DeletedConsumer {
    /// The UID of the reservation that it was committed to.
    pub committed: Option<Uid>,
}

/// The maximum number of entries in `recent_commits`.
const MAX_RECENT_COMMITS: usize = 4096;

impl ClusterState {
    /// Returns the consumer with this UID.
    pub fn consumer_by_uid(&self, uid: &Uid) -> Option<&ConsumerView> {
        self.consumers.get(self.consumer_of_uid.get(uid)?).filter(|view| view.meta.uid == *uid)
    }

    /// Returns the reservations of the consumer with this UID, by name.
    pub fn reservations_of(&self, consumer: &Uid) -> impl Iterator<Item = &ReservationView> {
        let keys = self.reservations_of.get(consumer).into_iter().flatten();
        keys.filter_map(|key| self.reservations.get(key))
    }

    /// Returns the reservations of a provider by slot, whoever created them.
    pub fn reservations_on(&self, provider: &ObjectKey) -> impl DoubleEndedIterator<Item = (u32, &ReservationView)> {
        let keys = self.slots_of.get(provider).into_iter().flatten();
        keys.filter_map(|(slot, key)| Some((*slot, self.reservations.get(key)?)))
    }

    /// The number of reservations of a provider.
    pub fn slots_used(&self, provider: &ObjectKey) -> usize {
        self.slots_of.get(provider).map_or(0, BTreeMap::len)
    }

    /// Returns the copied Secrets that the consumer with this UID owns.
    pub fn copies_of(&self, consumer: &Uid) -> impl Iterator<Item = &CopyView> {
        let keys = self.copies_of.get(consumer).into_iter().flatten();
        keys.filter_map(|key| self.copies.get(key))
    }

    /// Returns the UID of the Pod that may use the slot of a Mask: its controller, or the one that its consumer names.
    pub fn pod_using(&self, mask: &ObjectKey) -> Option<&Uid> {
        let controller = self.masks.get(mask).and_then(|mask| mask.pod.as_ref()).map(|pod| &pod.uid);
        controller.or_else(|| Some(&self.consumers.get(mask)?.pod.as_ref()?.uid))
    }

    /// Returns the injected Pods that use the slot of a Mask, or wait for it, by name.
    pub fn pods_of_mask(&self, mask: &ObjectKey) -> impl Iterator<Item = &InjectedPod> {
        let keys = self.pods_of_mask.get(mask).into_iter().flatten();
        keys.filter_map(|key| self.injected_pods.get(key))
    }

    /// Returns the consumer with this UID if a watch or a response said that it is deleted.
    pub fn deleted_consumer(&self, consumer: &Uid) -> Option<&DeletedConsumer> {
        self.deleted_consumers.get(consumer)
    }

    /// Records that the consumer with this UID is deleted, according to a read.
    pub fn record_deleted_consumer(&mut self, consumer: &Uid) {
        let committed = self.recent_commits.get(consumer).cloned();
        self.deleted_consumers.entry(consumer.clone()).or_insert(DeletedConsumer { committed });
    }

    /// Whether the Mask of a consumer is deleted.
    pub fn is_mask_deleted(&self, consumer: &ConsumerView) -> bool {
        consumer.owner.as_ref().is_some_and(|mask| self.deleted_masks.contains(mask))
    }

    /// Records that the Mask with this key and UID is deleted, according to a read, if its consumer still exists.
    pub fn record_deleted_mask(&mut self, key: &ObjectKey, mask: &Uid) {
        if self.consumers.get(key).is_some_and(|consumer| consumer.owner.as_ref() == Some(mask)) {
            self.deleted_masks.insert(mask.clone());
        }
    }

    /// Updates the indexes after a change of a store.
    pub fn reindex(&mut self, change: &StoreChange) {
        match change {
            StoreChange::Consumer(change) => self.reindex_consumer(change),
            StoreChange::Reservation(change) => self.reindex_reservation(change),
            StoreChange::Copy(change) => self.reindex_copy(change),
            StoreChange::Mask(change) => self.reindex_mask(change),
            StoreChange::InjectedPod(change) => self.reindex_injected_pod(change),
            StoreChange::Client(change) => {
                let now = self.clients.get(&change.key).map(server_of_client);
                move_entry(&mut self.clients_of, &change.key, change.before.as_ref().map(server_of_client), now);
                let now = self.clients.get(&change.key).map(identity_of_client);
                move_entry(&mut self.clients_named, &change.key, change.before.as_ref().map(identity_of_client), now);
                let now = self.clients.get(&change.key).and_then(address_of_client);
                move_entry(&mut self.clients_at, &change.key, change.before.as_ref().and_then(address_of_client), now);
            }
            StoreChange::ServerPod(change) => {
                let now = self.server_pods.get(&change.key).and_then(server_of_pod);
                let before = change.before.as_ref().and_then(server_of_pod);
                move_entry(&mut self.server_pods_of, &change.key, before, now);
            }
            StoreChange::Provider(_)
            | StoreChange::VerificationPod(_)
            | StoreChange::Server(_)
            | StoreChange::ServerSecret(_)
            | StoreChange::ServerObject(_) => {}
        }
    }

    /// Returns the clients of an OpenVPN server, by name.
    pub fn clients_of(&self, server: &ObjectKey) -> impl Iterator<Item = &ClientView> {
        let keys = self.clients_of.get(server).into_iter().flatten();
        keys.filter_map(|key| self.clients.get(key))
    }

    /// Returns the clients that an OpenVPN server cannot distinguish from this one, because they share its common name.
    pub fn clients_like(&self, client: &ClientView) -> impl Iterator<Item = &ClientView> {
        let keys = self.clients_named.get(&identity_of_client(client)).into_iter().flatten();
        keys.filter_map(|key| self.clients.get(key))
    }

    /// Returns the clients of the same OpenVPN server with the permanent address of this one, if it has one.
    pub fn clients_at_address_of(&self, client: &ClientView) -> impl Iterator<Item = &ClientView> {
        let keys = address_of_client(client).and_then(|at| self.clients_at.get(&at)).into_iter().flatten();
        keys.filter_map(|key| self.clients.get(key))
    }

    /// Returns the replicas of an OpenVPN server, by name.
    pub fn server_pods_of(&self, server: &ObjectKey) -> impl Iterator<Item = &ServerPodView> {
        let keys = self.server_pods_of.get(server).into_iter().flatten();
        keys.filter_map(|key| self.server_pods.get(key))
    }

    /// Returns the first Pod of each ReplicaSet of a namespace that waits for a slot of its own.
    pub fn first_waiting_pods(&self, namespace: &str) -> impl Iterator<Item = &ObjectKey> {
        self.pod_queues.first_of_each(namespace)
    }

    /// Whether a Pod is the first of its ReplicaSet that waits for a slot of its own.
    pub fn is_first_waiting_pod(&self, pod: &InjectedPod) -> bool {
        self.pod_queues.is_first(pod)
    }

    fn reindex_injected_pod(&mut self, change: &Change<InjectedPod>) {
        let now = self.injected_pods.get(&change.key);
        let before = change.before.as_ref();
        move_entry(&mut self.pods_of_mask, &change.key, before.map(InjectedPod::mask), now.map(InjectedPod::mask));
        let consumer = |pod: &InjectedPod| self.consumers.get(&pod.mask());
        let place = |pod: &InjectedPod| Place::of(pod, consumer(pod)?);
        let (before, now) = (before.and_then(place), now.and_then(place));
        self.pod_queues.move_pod(before, now);
    }

    fn reindex_mask(&mut self, change: &Change<MaskView>) {
        let Some(before) = change.before.as_ref().map(|before| &before.meta.uid) else { return };
        let exists = self.masks.get(&change.key).is_some_and(|now| now.meta.uid == *before);
        let owner = self.consumers.get(&change.key).and_then(|consumer| consumer.owner.as_ref());
        if !exists && owner == Some(before) {
            self.deleted_masks.insert(before.clone());
        }
    }

    fn reindex_consumer(&mut self, change: &Change<ConsumerView>) {
        let now = self.consumers.get(&change.key);
        for pod in self.pods_of_mask.get(&change.key).into_iter().flatten() {
            let Some(pod) = self.injected_pods.get(pod) else { continue };
            let place = |consumer| Place::of(pod, consumer);
            self.pod_queues.move_pod(change.before.as_ref().and_then(place), now.and_then(place));
        }
        if let Some(owner) = change.before.as_ref().and_then(|before| before.owner.as_ref())
            && now.is_none_or(|now| now.owner.as_ref() != Some(owner))
        {
            self.deleted_masks.remove(owner);
        }
        if let Some(before) = &change.before
            && now.is_none_or(|view| view.meta.uid != before.meta.uid)
        {
            self.consumer_of_uid.remove(&before.meta.uid);
            if let Some(assigned) = &before.assigned {
                if self.recent_commits_order.len() == MAX_RECENT_COMMITS
                    && let Some(oldest) = self.recent_commits_order.pop_front()
                {
                    self.recent_commits.remove(&oldest);
                }
                self.recent_commits_order.push_back(before.meta.uid.clone());
                self.recent_commits.insert(before.meta.uid.clone(), assigned.reservation.clone());
            }
            if self.reservations_of.contains_key(&before.meta.uid) {
                let committed = before.assigned.as_ref().map(|assigned| assigned.reservation.clone());
                self.deleted_consumers.insert(before.meta.uid.clone(), DeletedConsumer { committed });
            }
        }
        if let Some(view) = now {
            self.consumer_of_uid.insert(view.meta.uid.clone(), change.key.clone());
        }
    }

    fn reindex_reservation(&mut self, change: &Change<ReservationView>) {
        if let Some(before) = &change.before {
            let uid = &before.consumer_uid;
            if remove_from(&mut self.reservations_of, uid, &change.key) {
                self.deleted_consumers.remove(uid);
            }
            if let (Some(provider), Some((_, slot))) = (before.provider(), &before.slot)
                && let Some(slots) = self.slots_of.get_mut(&provider)
            {
                slots.remove(slot);
                if slots.is_empty() {
                    self.slots_of.remove(&provider);
                }
            }
        }
        if let Some(view) = self.reservations.get(&change.key) {
            add_to(&mut self.reservations_of, view.consumer_uid.clone(), &change.key);
            if let (Some(provider), Some((_, slot))) = (view.provider(), &view.slot) {
                self.slots_of.entry(provider).or_default().insert(*slot, change.key.clone());
            }
        }
    }

    fn reindex_copy(&mut self, change: &Change<CopyView>) {
        if let Some(uid) = change.before.as_ref().and_then(|before| before.consumer_uid.as_ref()) {
            remove_from(&mut self.copies_of, uid, &change.key);
        }
        if let Some(uid) = self.copies.get(&change.key).and_then(|view| view.consumer_uid.clone()) {
            add_to(&mut self.copies_of, uid, &change.key);
        }
    }
}

fn server_of_client(client: &ClientView) -> ObjectKey {
    ObjectKey::new(&*client.meta.key.namespace, &client.spec.server)
}

/// The server and the common name of a client.
fn identity_of_client(client: &ClientView) -> (ObjectKey, Arc<str>) {
    (server_of_client(client), intern(client.common_name()))
}

/// The server and the permanent address of a client.
fn address_of_client(client: &ClientView) -> Option<(ObjectKey, Arc<str>)> {
    Some((server_of_client(client), intern(client.spec.address.as_deref()?)))
}

fn server_of_pod(pod: &ServerPodView) -> Option<ObjectKey> {
    Some(ObjectKey::new(&*pod.meta.key.namespace, pod.server.as_ref()?))
}

/// Moves the key of an object from what it belonged to, to what it belongs to now. Most of these have one object, for which
/// a `BTreeSet` would take the memory of eleven.
fn move_entry<K: Eq + Hash>(index: &mut HashMap<K, Keys>, key: &ObjectKey, before: Option<K>, now: Option<K>) {
    if before == now {
        return;
    }
    if let Some(before) = before
        && let Some(keys) = index.get_mut(&before)
    {
        keys.retain(|other| other != key);
        if keys.is_empty() {
            index.remove(&before);
        }
    }
    if let Some(now) = now {
        add_to(index, now, key);
    }
}

fn add_to<K: Eq + Hash>(index: &mut HashMap<K, Keys>, of: K, key: &ObjectKey) {
    let keys = index.entry(of).or_default();
    if let Err(at) = keys.binary_search(key) {
        keys.insert(at, key.clone());
    }
}

/// Removes a key from an index. Returns true when no key is left for `uid`.
fn remove_from(index: &mut HashMap<Uid, Keys>, uid: &Uid, key: &ObjectKey) -> bool {
    let Some(keys) = index.get_mut(uid) else { return true };
    keys.retain(|other| other != key);
    let empty = keys.is_empty();
    if empty {
        index.remove(uid);
    }
    empty
}
