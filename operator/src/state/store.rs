//! The view of one kind, fed by one watch and by our own acknowledged writes.
//!
//! Invariant: an entry never goes back in time. A write that the API server acknowledged is visible at once
//! ("assumed") and stays until the watch has passed its resourceVersion, so a lagging watch can neither hide a slot
//! that was just taken nor bring an object back that is gone. resourceVersions are compared within one kind only
//! (KEP-5504 makes them comparable there).

use std::collections::{BTreeSet, HashMap, hash_map};

use crate::model::{ObjectKey, Uid};

/// What a store needs to know of a view.
pub trait Versioned {
    /// Namespace and name.
    fn key(&self) -> &ObjectKey;
    /// `metadata.uid`.
    fn uid(&self) -> &Uid;
    /// `metadata.resourceVersion`.
    fn version(&self) -> u64;
}

/// Marks when a request was sent, to tell whether a relist began while it was under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Epoch(u64);

/// What an acknowledged write meant for the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// The entry is the written object now.
    Assumed,
    /// The watch is past this write already; its word counts.
    Passed,
    /// Assumed, but a relist began while the write was under way: the object may be gone without an event ever
    /// saying so. It has to be read back by name.
    Doubtful,
}

#[derive(Clone)]
struct Entry<V> {
    /// Boxed: a table of large entries wastes up to as much again.
    view: Box<V>,
    /// Set while only our own write has told of this version: the epoch in which it was acknowledged.
    assumed: Option<Epoch>,
}

/// Objects of one kind by namespace and name.
#[derive(Clone)]
pub struct Store<V> {
    entries: HashMap<ObjectKey, Entry<V>>,
    /// UIDs of objects that our own write removed for good, until the watch says so too.
    buried: HashMap<Uid, Epoch>,
    /// The highest resourceVersion that the watch has told of.
    passed: u64,
    listing: Option<Vec<V>>,
    epoch: Epoch,
    synced: bool,
}

impl<V> Default for Store<V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            buried: HashMap::new(),
            passed: 0,
            listing: None,
            epoch: Epoch::default(),
            synced: false,
        }
    }
}

/// A change of one entry: what was there, and what is there now (read it from the store).
#[derive(Debug)]
pub struct Change<V> {
    /// Which entry.
    pub key: ObjectKey,
    /// The view before, if there was one.
    pub before: Option<V>,
}

impl<V: Versioned> Store<V> {
    /// Whether the first list is complete. Nothing may be decided from absence before.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// To be noted when a request is sent, and handed back with its answer.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The object of that name.
    pub fn get(&self, key: &ObjectKey) -> Option<&V> {
        self.entries.get(key).map(|entry| &*entry.view)
    }

    /// All objects, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values().map(|entry| &*entry.view)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The watch saw an object added or modified.
    #[must_use]
    pub fn applied(&mut self, view: V) -> Option<Change<V>> {
        self.passed = self.passed.max(view.version());
        if self.buried.contains_key(view.uid()) {
            return None;
        }
        self.put(view, None)
    }

    /// The watch saw an object deleted. `view` is its last state.
    #[must_use]
    pub fn deleted(&mut self, view: &V) -> Option<Change<V>> {
        self.passed = self.passed.max(view.version());
        self.buried.remove(view.uid());
        match self.entries.entry(view.key().clone()) {
            hash_map::Entry::Occupied(entry)
                if entry.get().view.uid() == view.uid() || entry.get().view.version() <= view.version() =>
            {
                let (key, entry) = entry.remove_entry();
                Some(Change { key, before: Some(*entry.view) })
            }
            _ => None,
        }
    }

    /// The watch starts over with a list.
    pub fn list_began(&mut self) {
        self.epoch.0 += 1;
        self.listing = Some(Vec::new());
    }

    /// One object of the list.
    pub fn listed(&mut self, view: V) {
        self.listing.get_or_insert_default().push(view);
    }

    /// The list is complete: what it does not hold is gone, apart from what we wrote since it began. Those, returned
    /// second, have to be read back by name.
    #[must_use]
    pub fn list_ended(&mut self) -> (Vec<Change<V>>, Vec<ObjectKey>) {
        let epoch = self.epoch;
        self.synced = true;
        self.buried.retain(|_, since| *since >= epoch);
        // What was sent while the list was made and is answered only now may be missing in it, and gone.
        self.epoch.0 += 1;
        let listing = self.listing.take().unwrap_or_default();
        let mut gone: BTreeSet<ObjectKey> = self.entries.keys().cloned().collect();
        let mut changes = Vec::new();
        for view in listing {
            self.passed = self.passed.max(view.version());
            gone.remove(view.key());
            if !self.buried.contains_key(view.uid()) {
                let forget = self.entries.get(view.key()).is_some_and(|e| e.assumed.is_none_or(|at| at < epoch));
                changes.extend(if forget { self.replace(view) } else { self.put(view, None) });
            }
        }
        let mut doubtful = Vec::new();
        for key in gone {
            if self.entries.get(&key).is_some_and(|entry| entry.assumed.is_some_and(|at| at >= epoch)) {
                doubtful.push(key);
            } else if let Some(entry) = self.entries.remove(&key) {
                changes.push(Change { key, before: Some(*entry.view) });
            }
        }
        (changes, doubtful)
    }

    /// The API server answered a write or a read with this object. `sent` is the epoch when the request went out.
    #[must_use]
    pub fn acknowledged(&mut self, view: V, sent: Epoch) -> (Acknowledged, Option<Change<V>>) {
        if self.synced && view.version() <= self.passed {
            return (Acknowledged::Passed, None);
        }
        if self.buried.contains_key(view.uid()) {
            return (Acknowledged::Passed, None);
        }
        let doubtful = sent != self.epoch;
        let epoch = self.epoch;
        let change = self.put(view, Some(epoch));
        (if doubtful { Acknowledged::Doubtful } else { Acknowledged::Assumed }, change)
    }

    /// The API server answered that the object with this UID is gone.
    #[must_use]
    pub fn removed(&mut self, key: &ObjectKey, uid: &Uid) -> Option<Change<V>> {
        if self.entries.get(key)?.view.uid() != uid {
            return None;
        }
        let entry = self.entries.remove(key)?;
        self.buried.insert(uid.clone(), self.epoch);
        Some(Change { key: key.clone(), before: Some(*entry.view) })
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
        Some(Change { key, before })
    }

    /// Takes the list's word even where it is older: what we held was told before the list began.
    fn replace(&mut self, view: V) -> Option<Change<V>> {
        if self.entries.get(view.key()).is_some_and(|entry| entry.view.version() == view.version()) {
            return None;
        }
        let key = view.key().clone();
        let before =
            self.entries.insert(key.clone(), Entry { view: Box::new(view), assumed: None }).map(|entry| *entry.view);
        Some(Change { key, before })
    }
}

#[cfg(test)]
mod tests;
