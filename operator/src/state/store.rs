//! The store of one kind, updated by a watch and by the operator's own acknowledged writes.
//!
//! Invariant: an entry never goes back in time. A write that the API server acknowledged is visible at once
//! ("assumed") and stays until the watch has passed its resourceVersion. So a stale watch can neither hide a slot that
//! was just taken nor bring back an object that is gone. Only resourceVersions of the same kind are compared
//! (KEP-5504).

use std::collections::{BTreeSet, HashMap, hash_map};

use crate::model::{ObjectKey, Uid};

/// What a store needs from a view.
pub trait Versioned {
    /// The namespace and name.
    fn key(&self) -> &ObjectKey;
    /// `metadata.uid`.
    fn uid(&self) -> &Uid;
    /// `metadata.resourceVersion`.
    fn version(&self) -> u64;
}

/// A counter that changes when a list starts or completes. Requests record it, to detect a list during the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Epoch(u64);

/// The effect of an acknowledged write on the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// The entry is the written object.
    Assumed,
    /// The watch has already passed this version, so the entry stays as it is.
    Stale,
    /// Assumed, but a list started or completed during the request: the object may have been deleted without a watch
    /// event. It has to be read by name.
    Unconfirmed,
}

#[derive(Clone)]
struct Entry<V> {
    /// Boxed, because a hash table of large entries wastes up to half of its memory.
    view: Box<V>,
    /// The epoch in which this version was acknowledged. Set until the watch delivers this version.
    assumed: Option<Epoch>,
}

/// The objects of one kind by namespace and name.
#[derive(Clone)]
pub struct Store<V> {
    entries: HashMap<ObjectKey, Entry<V>>,
    /// The UIDs of objects that a write of the operator deleted, until the watch delivers the deletion.
    tombstones: HashMap<Uid, Epoch>,
    /// The highest resourceVersion that the watch has delivered.
    watched: u64,
    listing: Option<Vec<V>>,
    epoch: Epoch,
    synced: bool,
}

impl<V> Default for Store<V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            tombstones: HashMap::new(),
            watched: 0,
            listing: None,
            epoch: Epoch::default(),
            synced: false,
        }
    }
}

/// A change of an entry. The new view is in the store.
#[derive(Debug)]
pub struct Change<V> {
    /// The key of the entry.
    pub key: ObjectKey,
    /// The view before the change, if there was one.
    pub before: Option<V>,
    /// Whether a list, and no watch event, showed that the object is gone or has changed: it may have been in other states
    /// since `before`.
    pub missed: bool,
}

impl<V: Versioned> Store<V> {
    /// Whether the first list is complete. Until then, the absence of an object means nothing.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// The current epoch. Requests record it when they are sent.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns the object with this key.
    pub fn get(&self, key: &ObjectKey) -> Option<&V> {
        self.entries.get(key).map(|entry| &*entry.view)
    }

    /// Returns all objects, in no particular order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values().map(|entry| &*entry.view)
    }

    /// The number of objects.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no objects.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Handles an object that was added or modified, according to the watch.
    #[must_use]
    pub fn applied(&mut self, view: V) -> Option<Change<V>> {
        self.watched = self.watched.max(view.version());
        if self.tombstones.contains_key(view.uid()) {
            return None;
        }
        self.put(view, None)
    }

    /// Handles an object that was deleted, according to the watch. `view` is its last state.
    #[must_use]
    pub fn deleted(&mut self, view: &V) -> Option<Change<V>> {
        self.watched = self.watched.max(view.version());
        self.tombstones.remove(view.uid());
        match self.entries.entry(view.key().clone()) {
            hash_map::Entry::Occupied(entry)
                if entry.get().view.uid() == view.uid() || entry.get().view.version() <= view.version() =>
            {
                let (key, entry) = entry.remove_entry();
                Some(Change { key, before: Some(*entry.view), missed: false })
            }
            _ => None,
        }
    }

    /// Handles an object of which there is no view any more: it was deleted, or is not watched any more.
    #[must_use]
    pub fn lost(&mut self, key: &ObjectKey, uid: &Uid) -> Option<Change<V>> {
        self.tombstones.remove(uid);
        if self.entries.get(key)?.view.uid() != uid {
            return None;
        }
        let entry = self.entries.remove(key)?;
        Some(Change { key: key.clone(), before: Some(*entry.view), missed: false })
    }

    /// Handles the start of a list.
    pub fn list_started(&mut self) {
        self.epoch.0 += 1;
        self.listing = Some(Vec::new());
    }

    /// Handles an object of the list.
    pub fn listed(&mut self, view: V) {
        self.listing.get_or_insert_default().push(view);
    }

    /// Handles the end of the list. Objects that it does not contain are deleted, except those that the operator wrote
    /// since the list started. The second result names these; they have to be read by name.
    #[must_use]
    pub fn list_completed(&mut self) -> (Vec<Change<V>>, Vec<ObjectKey>) {
        let epoch = self.epoch;
        self.synced = true;
        self.tombstones.retain(|_, since| *since >= epoch);
        // The object of a request that was sent during the list may not be in the list, and may be deleted by the time
        // of the response.
        self.epoch.0 += 1;
        let listing = self.listing.take().unwrap_or_default();
        let mut gone: BTreeSet<ObjectKey> = self.entries.keys().cloned().collect();
        let mut changes = Vec::new();
        for view in listing {
            self.watched = self.watched.max(view.version());
            gone.remove(view.key());
            if !self.tombstones.contains_key(view.uid()) {
                let predates_list = self.entries.get(view.key()).is_some_and(|e| e.assumed.is_none_or(|at| at < epoch));
                changes.extend(if predates_list { self.replace(view) } else { self.put(view, None) });
            }
        }
        let mut unconfirmed = Vec::new();
        for key in gone {
            if self.entries.get(&key).is_some_and(|entry| entry.assumed.is_some_and(|at| at >= epoch)) {
                unconfirmed.push(key);
            } else if let Some(entry) = self.entries.remove(&key) {
                changes.push(Change { key, before: Some(*entry.view), missed: true });
            }
        }
        (changes, unconfirmed)
    }

    /// Handles the object in a response to a write or a read. `sent` is the epoch in which the request was sent.
    #[must_use]
    pub fn acknowledged(&mut self, view: V, sent: Epoch) -> (Acknowledged, Option<Change<V>>) {
        if self.synced && view.version() <= self.watched {
            return (Acknowledged::Stale, None);
        }
        if self.tombstones.contains_key(view.uid()) {
            return (Acknowledged::Stale, None);
        }
        let unconfirmed = sent != self.epoch;
        let epoch = self.epoch;
        let change = self.put(view, Some(epoch));
        (if unconfirmed { Acknowledged::Unconfirmed } else { Acknowledged::Assumed }, change)
    }

    /// Removes the object with this UID, which no longer exists according to a response.
    #[must_use]
    pub fn removed(&mut self, key: &ObjectKey, uid: &Uid) -> Option<Change<V>> {
        let change = self.lost(key, uid)?;
        self.tombstones.insert(uid.clone(), self.epoch);
        Some(change)
    }

    fn put(&mut self, view: V, assumed: Option<Epoch>) -> Option<Change<V>> {
        if let Some(entry) = self.entries.get_mut(view.key())
            && entry.view.version() >= view.version()
        {
            if entry.view.version() == view.version() && assumed.is_none() {
                entry.assumed = None;
            }
            return None;
        }
        let key = view.key().clone();
        let before = self.entries.insert(key.clone(), Entry { view: Box::new(view), assumed }).map(|entry| *entry.view);
        Some(Change { key, before, missed: false })
    }

    /// Replaces an entry even if the list contains an older version: the entry is from before the list started.
    fn replace(&mut self, view: V) -> Option<Change<V>> {
        if self.entries.get(view.key()).is_some_and(|entry| entry.view.version() == view.version()) {
            return None;
        }
        let key = view.key().clone();
        let before =
            self.entries.insert(key.clone(), Entry { view: Box::new(view), assumed: None }).map(|entry| *entry.view);
        Some(Change { key, before, missed: true })
    }
}

#[cfg(test)]
mod tests;
