//! The slots of one provider.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rangemap::RangeSet;

use super::{Queue, Requirements};
use crate::{
    model::Uid,
    state::{Fingerprint, Tags},
};

/// Who holds a slot. A slot is free when nobody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A MaskReservation of that name exists.
    Reservation,
    /// We granted it and the reservation is on its way.
    Grant,
    /// A MaskConsumer is committed to it, even if somebody forced its reservation away.
    Consumer,
}

#[derive(Clone, Copy, Debug, Default)]
struct Holders {
    reservation: bool,
    grant: bool,
    consumers: usize,
}

/// Slots that are held: numbers up to 2³¹ − 1, and nothing here counts through them.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    held: BTreeMap<u32, Holders>,
    /// The same slots as runs: the lowest free one is the first gap.
    runs: RangeSet<u32>,
}

impl Slots {
    /// Notes that `holder` has the slot.
    pub fn hold(&mut self, slot: u32, holder: Holder) {
        let holders = self.held.entry(slot).or_default();
        match holder {
            Holder::Reservation => holders.reservation = true,
            Holder::Grant => holders.grant = true,
            Holder::Consumer => holders.consumers += 1,
        }
        self.runs.insert(slot..slot.saturating_add(1));
    }

    /// Notes that `holder` no longer has the slot.
    pub fn let_go(&mut self, slot: u32, holder: Holder) {
        let Some(holders) = self.held.get_mut(&slot) else { return };
        match holder {
            Holder::Reservation => holders.reservation = false,
            Holder::Grant => holders.grant = false,
            Holder::Consumer => holders.consumers = holders.consumers.saturating_sub(1),
        }
        if !holders.reservation && !holders.grant && holders.consumers == 0 {
            self.held.remove(&slot);
            self.runs.remove(slot..slot.saturating_add(1));
        }
    }

    /// Whether somebody holds the slot.
    pub fn is_held(&self, slot: u32) -> bool {
        self.held.contains_key(&slot)
    }

    /// Whether no slot is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Number of slots held.
    pub fn len(&self) -> usize {
        self.held.len()
    }
}

/// The slots that log in with a key that is one device (WireGuard): of those with the same key, one is handed out at a
/// time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceKeys {
    /// Key of all slots that are not in `own`.
    pub common: Option<Fingerprint>,
    /// Slots with a Secret of their own.
    pub own: BTreeMap<u32, Option<Fingerprint>>,
}

impl DeviceKeys {
    fn of(&self, slot: u32) -> Option<Fingerprint> {
        self.own.get(&slot).copied().unwrap_or(self.common)
    }
}

/// What a pool is made of, as the provider's spec and status say.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSpec {
    /// UID of the provider.
    pub uid: Uid,
    /// Number of slots: 0 … `capacity` − 1 may be handed out.
    pub capacity: u32,
    /// Those among them that cannot be handed out at present. Few, in order.
    pub withheld: Vec<u32>,
    /// Which of them are one device.
    pub keys: DeviceKeys,
    /// Tags of the provider.
    pub tags: Tags,
    /// Namespaces that may use it; absent: any.
    pub namespaces: Option<Tags>,
    /// Whether users may be assigned, from all that is known besides the slots.
    pub usable: bool,
    /// Whether a verification may be, likewise.
    pub verifiable: bool,
    /// Whether `usable` follows from a status that tells of the present spec.
    pub current: bool,
    /// Why it is not usable, in words for users.
    pub why_not: String,
}

impl PoolSpec {
    /// How many slots can be handed out one after the other beside those that are `taken`.
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
    /// What the provider says.
    pub spec: PoolSpec,
    /// Its slots that are held.
    pub slots: Slots,
    /// How many of these log in with each key.
    keys_in_use: HashMap<Fingerprint, u32>,
}

impl Pool {
    /// The pool of a provider of which these slots are held.
    pub fn new(spec: PoolSpec, slots: Slots) -> Self {
        let mut pool = Self { spec, slots, keys_in_use: HashMap::new() };
        pool.count_keys();
        pool
    }

    /// The provider says something else now.
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

    /// Notes that `holder` has the slot.
    pub fn hold(&mut self, slot: u32, holder: Holder) {
        if !self.slots.is_held(slot)
            && let Some(key) = self.spec.keys.of(slot)
        {
            *self.keys_in_use.entry(key).or_default() += 1;
        }
        self.slots.hold(slot, holder);
    }

    /// Notes that `holder` no longer has the slot.
    pub fn let_go(&mut self, slot: u32, holder: Holder) {
        let was_held = self.slots.is_held(slot);
        self.slots.let_go(slot, holder);
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

    /// Whether a slot is held back because another one with the same key is held.
    pub fn is_short_of_keys(&self) -> bool {
        !self.is_draining()
            && (self.slots.len() as u64) < u64::from(self.spec.capacity)
            && !self.keys_in_use.is_empty()
            && self.spec.count_free(&self.slots.held) == 0
    }

    /// Whether a slot beyond the capacity is still held; nothing is handed out until it is back.
    pub fn is_draining(&self) -> bool {
        self.slots.held.last_key_value().is_some_and(|(slot, _)| *slot >= self.spec.capacity)
    }

    /// The slot to hand out next: the lowest free one, if any may be handed out to users or to a verification.
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
            // Only those with a Secret of their own are left, and these are few.
            let mut own = keys.own.range(all).map(|(slot, _)| *slot);
            return own.find(|slot| !self.slots.held.contains_key(slot) && is_offered(slot));
        }
        self.slots.runs.gaps(&all).flatten().find(is_offered)
    }

    /// Whether a line gets slots of this provider now.
    pub fn serves(&self, line: &Queue) -> bool {
        if line.is_verifying() { self.spec.verifiable } else { self.spec.usable }
    }

    /// Whether a waiter of that class may use this provider.
    pub fn fits(&self, class: &Requirements) -> bool {
        let (spec, Requirements { namespace, tags, verifies }) = (&self.spec, class);
        if let Some(uid) = verifies {
            return *uid == spec.uid;
        }
        tags.as_ref().is_none_or(|wanted| wanted.iter().any(|tag| spec.tags.contains(tag)))
            && spec.namespaces.as_ref().is_none_or(|allowed| allowed.iter().any(|ns| ns == namespace))
    }
}
