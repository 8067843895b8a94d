//! The slots of one provider.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rangemap::RangeSet;

use super::{Queue, Requirements};
use crate::{
    model::Uid,
    state::{Fingerprint, Tags},
};

/// The holder of a slot. A slot without a holder is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The MaskReservation of the slot exists.
    Reservation,
    /// A MaskReservation of that name exists that the operator did not create, and does not release.
    Foreign,
    /// The slot is granted, and the reservation is in flight.
    Grant,
    /// A MaskConsumer is committed to the slot, even if its reservation was force-deleted.
    Consumer,
}

#[derive(Clone, Copy, Debug, Default)]
struct Holders {
    reservation: bool,
    foreign: bool,
    grant: bool,
    consumers: usize,
}

impl Holders {
    /// Whether the slot will be released.
    fn is_ours(&self) -> bool {
        self.reservation || self.grant || self.consumers > 0
    }
}

/// Held slots. Slot numbers go up to 2³¹ − 1, so no operation iterates over all of them.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    held: BTreeMap<u32, Holders>,
    /// The same slots as ranges. The lowest free slot is the first gap.
    runs: RangeSet<u32>,
}

impl Slots {
    /// Adds a holder of the slot.
    pub fn hold(&mut self, slot: u32, holder: Holder) {
        let holders = self.held.entry(slot).or_default();
        match holder {
            Holder::Reservation => holders.reservation = true,
            Holder::Foreign => holders.foreign = true,
            Holder::Grant => holders.grant = true,
            Holder::Consumer => holders.consumers += 1,
        }
        self.runs.insert(slot..slot.saturating_add(1));
    }

    /// Removes a holder of the slot.
    pub fn release(&mut self, slot: u32, holder: Holder) {
        let Some(holders) = self.held.get_mut(&slot) else { return };
        match holder {
            Holder::Reservation => holders.reservation = false,
            Holder::Foreign => holders.foreign = false,
            Holder::Grant => holders.grant = false,
            Holder::Consumer => holders.consumers = holders.consumers.saturating_sub(1),
        }
        if !holders.foreign && !holders.is_ours() {
            self.held.remove(&slot);
            self.runs.remove(slot..slot.saturating_add(1));
        }
    }

    /// Whether the slot is held.
    pub fn is_held(&self, slot: u32) -> bool {
        self.held.contains_key(&slot)
    }

    /// Whether no slot is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Returns the number of held slots.
    pub fn len(&self) -> usize {
        self.held.len()
    }
}

/// The WireGuard keys of the slots. One key is one device, so of the slots with the same key, only one is assigned at a
/// time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceKeys {
    /// Key of all slots that are not in `own`.
    pub common: Option<Fingerprint>,
    /// Keys of the slots with their own Secret.
    pub own: BTreeMap<u32, Option<Fingerprint>>,
}

impl DeviceKeys {
    fn of(&self, slot: u32) -> Option<Fingerprint> {
        self.own.get(&slot).copied().unwrap_or(self.common)
    }
}

/// The pool of a provider, from its spec and status.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSpec {
    /// UID of the provider.
    pub uid: Uid,
    /// Number of slots: 0 … `capacity` − 1 can be assigned.
    pub capacity: u32,
    /// Slots that cannot be assigned now: a short, sorted list.
    pub withheld: Vec<u32>,
    /// Device keys of the slots.
    pub keys: DeviceKeys,
    /// Tags of the provider.
    pub tags: Tags,
    /// Namespaces that may use the provider. If absent, all may.
    pub namespaces: Option<Tags>,
    /// Whether slots can be assigned to users, if any are free.
    pub usable: bool,
    /// Whether a slot can be assigned to a verification, if one is free.
    pub verifiable: bool,
    /// Whether `usable` is based on the status of the current spec.
    pub current: bool,
    /// The message that explains why the provider is not usable.
    pub unusable_reason: String,
}

impl PoolSpec {
    /// Returns how many slots can be assigned in addition to the `taken` ones.
    pub fn count_free<T>(&self, taken: &BTreeMap<u32, T>) -> u64 {
        let in_use: BTreeSet<_> = taken.keys().filter_map(|slot| self.keys.of(*slot)).collect();
        let is_common = |slot: &&u32| **slot < self.capacity && !self.keys.own.contains_key(*slot);
        let own = self.keys.own.range(..self.capacity);
        let offered =
            own.clone().filter(|(slot, _)| !taken.contains_key(*slot) && self.withheld.binary_search(slot).is_err());
        let withheld = self.withheld.iter().filter(|slot| is_common(slot) && !taken.contains_key(*slot)).count();
        let common =
            u64::from(self.capacity) - (own.count() + taken.keys().filter(is_common).count() + withheld) as u64;
        let mut keys = BTreeSet::new();
        let mut free = 0;
        let offers = offered.map(|(_, key)| (*key, 1)).chain([(self.keys.common, common)]);
        for (key, slots) in offers {
            match key {
                None => free += slots,
                Some(key) if slots > 0 && !in_use.contains(&key) => free += u64::from(keys.insert(key)),
                Some(_) => {}
            }
        }
        free
    }
}

/// A provider and its slots.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The spec of the pool.
    pub spec: PoolSpec,
    /// The held slots.
    pub slots: Slots,
    /// The number of held slots by key.
    keys_in_use: HashMap<Fingerprint, u32>,
}

impl Pool {
    /// Returns the pool of a provider with these held slots.
    pub fn new(spec: PoolSpec, slots: Slots) -> Self {
        let mut pool = Self { spec, slots, keys_in_use: HashMap::new() };
        pool.count_keys();
        pool
    }

    /// Updates the spec of the pool.
    pub fn set_spec(&mut self, spec: PoolSpec) {
        let same_keys = self.spec.keys == spec.keys;
        self.spec = spec;
        if !same_keys {
            self.count_keys();
        }
    }

    fn count_keys(&mut self) {
        self.keys_in_use.clear();
        for key in self.slots.held.keys().filter_map(|slot| self.spec.keys.of(*slot)) {
            *self.keys_in_use.entry(key).or_default() += 1;
        }
    }

    /// Adds a holder of the slot.
    pub fn hold(&mut self, slot: u32, holder: Holder) {
        if !self.slots.is_held(slot)
            && let Some(key) = self.spec.keys.of(slot)
        {
            *self.keys_in_use.entry(key).or_default() += 1;
        }
        self.slots.hold(slot, holder);
    }

    /// Removes a holder of the slot.
    pub fn release(&mut self, slot: u32, holder: Holder) {
        let was_held = self.slots.is_held(slot);
        self.slots.release(slot, holder);
        if was_held
            && !self.slots.is_held(slot)
            && let Some(key) = self.spec.keys.of(slot)
            && let Some(count) = self.keys_in_use.get_mut(&key)
        {
            *count -= 1;
            if *count == 0 {
                self.keys_in_use.remove(&key);
            }
        }
    }

    fn is_key_in_use(&self, key: Option<Fingerprint>) -> bool {
        key.is_some_and(|key| self.keys_in_use.contains_key(&key))
    }

    /// Whether all free slots are withheld because another slot with the same key is held.
    pub fn is_short_of_keys(&self) -> bool {
        !self.is_draining()
            && (self.slots.len() as u64) < u64::from(self.spec.capacity)
            && !self.keys_in_use.is_empty()
            && self.spec.count_free(&self.slots.held) == 0
    }

    /// Whether a slot beyond the capacity is still held. Nothing is assigned until it is released.
    pub fn is_draining(&self) -> bool {
        self.slots.held.range(self.spec.capacity..).any(|(_, holders)| holders.is_ours())
    }

    /// Returns the slot to assign next: the lowest free slot, if slots can be assigned to users or to a verification.
    pub fn next_free(&self) -> Option<u32> {
        if !(self.spec.usable || self.spec.verifiable)
            || !self.spec.current
            || self.spec.capacity == 0
            || self.is_draining()
        {
            return None;
        }
        let (keys, all) = (&self.spec.keys, 0..self.spec.capacity);
        let is_offered =
            |slot: &u32| self.spec.withheld.binary_search(slot).is_err() && !self.is_key_in_use(keys.of(*slot));
        if self.is_key_in_use(keys.common) {
            // Only the slots with their own Secret remain, and they are few.
            let mut own = keys.own.range(all).map(|(slot, _)| *slot);
            return own.find(|slot| !self.slots.held.contains_key(slot) && is_offered(slot));
        }
        self.slots.runs.gaps(&all).flatten().find(is_offered)
    }

    /// Whether this provider serves a queue now.
    pub fn serves(&self, queue: &Queue) -> bool {
        if queue.is_verifying() { self.spec.verifiable } else { self.spec.usable }
    }

    /// Whether a consumer with these requirements may use this provider.
    pub fn fits(&self, requirements: &Requirements) -> bool {
        requirements.match_provider(&self.spec.uid, &self.spec.tags, self.spec.namespaces.as_ref())
    }
}
