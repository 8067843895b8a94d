//! Assignment of free slots. Owns the queues and the known state of every provider's slots; knows nothing of requests.
//!
//! Invariant (after [`Allocator::settle`]): no provider has a free slot while a matching consumer is queued.
//! Assignments follow from the held slots and the queued consumers, not from wake-up messages, so none can be lost.
//!
//! Consumers whose namespace and tags match the same set of providers share a queue. The order in a queue, and between
//! the heads of several queues, is: `priority`, then age, then name.

mod pool;
mod queue;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

pub use pool::{DeviceKeys, Holder, Pool, PoolSpec, Slots};
pub use queue::{POSITIONS_SHOWN, Queue, Rank, Requirements};

use crate::model::{ObjectKey, Uid};

/// A slot granted to a consumer, which has to create the reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The provider.
    pub provider: ObjectKey,
    /// UID of the provider.
    pub provider_uid: Uid,
    /// The slot.
    pub slot: u32,
}

/// The queue position of a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueuePosition {
    /// Not queued.
    NotQueued,
    /// Queued.
    Queued {
        /// Position in the queue from 1; absent behind the first few.
        place: Option<usize>,
        /// Matching providers.
        fitting: Arc<[ObjectKey]>,
    },
}

#[derive(Clone)]
struct Waiter {
    class: Requirements,
    rank: Rank,
    line: usize,
}

/// The queues and the slots.
#[derive(Clone, Default)]
pub struct Allocator {
    pools: HashMap<ObjectKey, Pool>,
    /// Held slots of unknown providers: the event of the provider is still in flight, or the provider is gone.
    unowned: HashMap<ObjectKey, Slots>,
    waiters: HashMap<Uid, Waiter>,
    grants: HashMap<Uid, Grant>,
    granted: HashMap<(ObjectKey, u32), Uid>,
    lines: Vec<Queue>,
    line_of_class: HashMap<Requirements, usize>,
    /// Providers that may have a free slot for a queued consumer.
    open: BTreeSet<ObjectKey>,
    /// Whether the matching of providers and consumers may have changed.
    reshuffle: bool,
    touched: BTreeSet<ObjectKey>,
    /// Providers that had a slot released.
    released: BTreeSet<ObjectKey>,
}

impl Allocator {
    /// Adds or updates a provider.
    pub fn set_pool(&mut self, key: ObjectKey, spec: PoolSpec) {
        // Another provider with the same name: grants of the former one are void.
        if self.pools.get(&key).is_some_and(|pool| pool.spec.uid != spec.uid) {
            self.end_grants_of(&key);
        }
        if let Some(pool) = self.pools.get_mut(&key) {
            if pool.spec == spec {
                return;
            }
            let same_fit = pool.spec.tags == spec.tags && pool.spec.namespaces == spec.namespaces;
            let same_message = pool.spec.usable == spec.usable
                && pool.spec.why_not == spec.why_not
                && pool.spec.withheld == spec.withheld
                && pool.spec.keys == spec.keys;
            pool.set_spec(spec);
            if !same_fit {
                self.reshuffle = true;
            } else if !same_message {
                self.touch_lines_of(&key);
            }
        } else {
            let slots = self.unowned.remove(&key).unwrap_or_default();
            self.pools.insert(key.clone(), Pool::new(spec, slots));
            self.reshuffle = true;
        }
        self.open.insert(key);
    }

    /// Removes a provider.
    pub fn remove_pool(&mut self, key: &ObjectKey) {
        self.end_grants_of(key);
        if let Some(pool) = self.pools.remove(key) {
            if !pool.slots.is_empty() {
                self.unowned.insert(key.clone(), pool.slots);
            }
            self.reshuffle = true;
        }
    }

    fn end_grants_of(&mut self, provider: &ObjectKey) {
        let granted = self.granted.iter().filter(|((key, _), _)| key == provider);
        for uid in granted.map(|(_, uid)| uid.clone()).collect::<Vec<_>>() {
            self.end_grant(&uid);
        }
    }

    /// Notes that a reservation of the slot exists. This ends a grant of the slot: it became this reservation, or
    /// another operator was first.
    pub fn reserved(&mut self, provider: &ObjectKey, slot: u32) {
        self.hold(provider, slot, Holder::Reservation);
        if let Some(uid) = self.granted.get(&(provider.clone(), slot)).cloned() {
            self.end_grant(&uid);
        }
    }

    /// Notes that the reservation of the slot is gone.
    pub fn unreserved(&mut self, provider: &ObjectKey, slot: u32) {
        self.let_go(provider, slot, Holder::Reservation);
    }

    /// Notes that a consumer is committed to the slot: even without its reservation, no other consumer may get it.
    pub fn committed(&mut self, provider: &ObjectKey, slot: u32) {
        self.hold(provider, slot, Holder::Consumer);
    }

    /// Notes that a consumer is no longer committed to the slot, or is gone.
    pub fn uncommitted(&mut self, provider: &ObjectKey, slot: u32) {
        self.let_go(provider, slot, Holder::Consumer);
    }

    fn hold(&mut self, provider: &ObjectKey, slot: u32, holder: Holder) {
        match self.pools.get_mut(provider) {
            Some(pool) => pool.hold(slot, holder),
            None => self.unowned.entry(provider.clone()).or_default().hold(slot, holder),
        }
    }

    fn let_go(&mut self, provider: &ObjectKey, slot: u32, holder: Holder) {
        if let Some(pool) = self.pools.get_mut(provider) {
            pool.let_go(slot, holder);
            self.open.insert(provider.clone());
            self.released.insert(provider.clone());
        } else if let Some(slots) = self.unowned.get_mut(provider) {
            slots.let_go(slot, holder);
            if slots.is_empty() {
                self.unowned.remove(provider);
            }
        }
    }

    /// Queues a consumer, or moves it if its requirements or rank have changed.
    pub fn wait(&mut self, uid: &Uid, class: Requirements, rank: Rank) {
        if self.grants.contains_key(uid) {
            return;
        }
        if self.waiters.get(uid).is_some_and(|waiter| waiter.class == class && waiter.rank == rank) {
            return;
        }
        self.leave(uid);
        let line = self.line_for(&class);
        self.lines[line].insert(rank.clone(), &mut self.touched);
        let Self { open, lines, pools, .. } = self;
        // A provider of this queue may just have gone; the queues are rebuilt before slots are assigned.
        let has_free = |key: &&ObjectKey| pools.get(*key).and_then(Pool::next_free).is_some();
        open.extend(lines[line].providers().iter().filter(has_free).cloned());
        self.waiters.insert(uid.clone(), Waiter { class, rank, line });
    }

    /// Removes a consumer from its queue.
    pub fn leave(&mut self, uid: &Uid) {
        if let Some(waiter) = self.waiters.remove(uid) {
            self.lines[waiter.line].remove(&waiter.rank, &mut self.touched);
        }
    }

    /// Returns the slot granted to a consumer, until its reservation is known.
    pub fn grant(&self, uid: &Uid) -> Option<&Grant> {
        self.grants.get(uid)
    }

    /// Ends a grant.
    pub fn end_grant(&mut self, uid: &Uid) {
        if let Some(grant) = self.grants.remove(uid) {
            let slot = (grant.provider.clone(), grant.slot);
            if self.granted.get(&slot) == Some(uid) {
                self.granted.remove(&slot);
            }
            self.let_go(&grant.provider, grant.slot, Holder::Grant);
        }
    }

    /// Returns the slots of a provider.
    pub fn pool(&self, provider: &ObjectKey) -> Option<&Pool> {
        self.pools.get(provider)
    }

    /// The queue position of a consumer.
    pub fn standing(&self, uid: &Uid) -> QueuePosition {
        let Some(waiter) = self.waiters.get(uid) else { return QueuePosition::NotQueued };
        let line = &self.lines[waiter.line];
        QueuePosition::Queued { place: line.place(&waiter.rank), fitting: line.providers().clone() }
    }

    /// Grants every slot that can be assigned. Returns the consumers that got one.
    pub fn settle(&mut self) -> Vec<ObjectKey> {
        if std::mem::take(&mut self.reshuffle) {
            self.form_lines_anew();
        }
        let mut granted = Vec::new();
        let mut open = std::mem::take(&mut self.open);
        // Providers restricted to some namespaces come first: consumers that they serve do not take an unrestricted
        // slot.
        let mut order: Vec<_> = std::mem::take(&mut open).into_iter().collect();
        order.sort_by_key(|key| self.pools.get(key).is_none_or(|pool| pool.spec.namespaces.is_none()));
        for provider in order {
            if self.waiters.is_empty() {
                break;
            }
            while let Some(slot) = self.pools.get(&provider).and_then(Pool::next_free) {
                let Some(rank) = self.first_in_line_for(&provider) else { break };
                let Some(pool) = self.pools.get_mut(&provider) else { break };
                pool.hold(slot, Holder::Grant);
                let grant = Grant { provider: provider.clone(), provider_uid: pool.spec.uid.clone(), slot };
                self.leave(&rank.uid);
                self.granted.insert((provider.clone(), slot), rank.uid.clone());
                self.grants.insert(rank.uid.clone(), grant);
                granted.push(rank.key);
            }
        }
        granted
    }

    /// Returns the consumers whose queue position or message may have changed since the last call.
    pub fn take_touched(&mut self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.touched)
    }

    /// Returns the providers that had a slot released since the last call.
    pub fn take_released(&mut self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.released)
    }

    fn first_in_line_for(&self, provider: &ObjectKey) -> Option<Rank> {
        let pool = self.pools.get(provider)?;
        let lines = self.lines.iter().filter(|line| line.providers().binary_search(provider).is_ok());
        lines.filter(|line| pool.serves(line)).filter_map(Queue::head).min().cloned()
    }

    fn line_for(&mut self, class: &Requirements) -> usize {
        if let Some(line) = self.line_of_class.get(class) {
            return *line;
        }
        let mut fitting: Vec<_> =
            (self.pools.iter()).filter(|(_, pool)| pool.fits(class)).map(|(key, _)| key.clone()).collect();
        fitting.sort();
        let verifying = class.verifies.is_some();
        let same = |line: &Queue| **line.providers() == *fitting && line.is_verifying() == verifying;
        let line = self.lines.iter().position(same).unwrap_or_else(|| {
            self.lines.push(Queue::new(fitting, verifying));
            self.lines.len() - 1
        });
        self.line_of_class.insert(class.clone(), line);
        line
    }

    fn form_lines_anew(&mut self) {
        self.lines.clear();
        self.line_of_class.clear();
        let mut waiters = std::mem::take(&mut self.waiters);
        for waiter in waiters.values_mut() {
            waiter.line = self.line_for(&waiter.class);
            self.lines[waiter.line].insert(waiter.rank.clone(), &mut self.touched);
            self.touched.insert(waiter.rank.key.clone());
        }
        self.waiters = waiters;
        self.open.extend(self.pools.keys().cloned());
    }

    fn touch_lines_of(&mut self, provider: &ObjectKey) {
        let Self { lines, touched, .. } = self;
        for line in lines.iter().filter(|line| line.providers().binary_search(provider).is_ok()) {
            touched.extend(line.keys().cloned());
        }
    }
}

#[cfg(test)]
mod tests;
