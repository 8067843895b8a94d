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
pub use queue::{POSITIONS_SHOWN, Queue, Requirements};

use crate::{
    model::{ObjectKey, Uid},
    state::Rank,
};

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
        position: Option<usize>,
        /// Matching providers.
        fitting: Arc<[ObjectKey]>,
    },
}

#[derive(Clone)]
struct Waiter {
    requirements: Requirements,
    rank: Rank,
    queue: usize,
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
    queues: Vec<Queue>,
    queue_by_requirements: HashMap<Requirements, usize>,
    /// Providers that may have a free slot for a queued consumer.
    open: BTreeSet<ObjectKey>,
    /// Whether the matching of providers and consumers may have changed.
    matching_changed: bool,
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
            let same_matching = pool.spec.tags == spec.tags && pool.spec.namespaces == spec.namespaces;
            let same_message = pool.spec.usable == spec.usable
                && pool.spec.unusable_reason == spec.unusable_reason
                && pool.spec.withheld == spec.withheld
                && pool.spec.keys == spec.keys;
            pool.set_spec(spec);
            if !same_matching {
                self.matching_changed = true;
            } else if !same_message {
                self.touch_queues_of(&key);
            }
        } else {
            let slots = self.unowned.remove(&key).unwrap_or_default();
            self.pools.insert(key.clone(), Pool::new(spec, slots));
            self.matching_changed = true;
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
            self.matching_changed = true;
        }
    }

    fn end_grants_of(&mut self, provider: &ObjectKey) {
        let granted = self.granted.iter().filter(|((key, _), _)| key == provider);
        for uid in granted.map(|(_, uid)| uid.clone()).collect::<Vec<_>>() {
            self.end_grant(&uid);
        }
    }

    /// Notes that a reservation of the slot exists. This ends a grant of the slot: it became this reservation, or
    /// another operator was first. `is_ours` says whether an operator created it.
    pub fn reserved(&mut self, provider: &ObjectKey, slot: u32, is_ours: bool) {
        let (holder, other) = match is_ours {
            true => (Holder::Reservation, Holder::Foreign),
            false => (Holder::Foreign, Holder::Reservation),
        };
        self.hold(provider, slot, holder);
        self.release(provider, slot, other);
        if let Some(uid) = self.granted.get(&(provider.clone(), slot)).cloned() {
            self.end_grant(&uid);
        }
    }

    /// Notes that the reservation of the slot is gone.
    pub fn unreserved(&mut self, provider: &ObjectKey, slot: u32) {
        self.release(provider, slot, Holder::Reservation);
        self.release(provider, slot, Holder::Foreign);
    }

    /// Notes that a consumer is committed to the slot: even without its reservation, no other consumer may get it.
    pub fn committed(&mut self, provider: &ObjectKey, slot: u32) {
        self.hold(provider, slot, Holder::Consumer);
    }

    /// Notes that a consumer is no longer committed to the slot, or is gone.
    pub fn uncommitted(&mut self, provider: &ObjectKey, slot: u32) {
        self.release(provider, slot, Holder::Consumer);
    }

    fn hold(&mut self, provider: &ObjectKey, slot: u32, holder: Holder) {
        match self.pools.get_mut(provider) {
            Some(pool) => pool.hold(slot, holder),
            None => self.unowned.entry(provider.clone()).or_default().hold(slot, holder),
        }
    }

    fn release(&mut self, provider: &ObjectKey, slot: u32, holder: Holder) {
        if let Some(pool) = self.pools.get_mut(provider) {
            pool.release(slot, holder);
            self.open.insert(provider.clone());
            self.released.insert(provider.clone());
        } else if let Some(slots) = self.unowned.get_mut(provider) {
            slots.release(slot, holder);
            if slots.is_empty() {
                self.unowned.remove(provider);
            }
        }
    }

    /// Queues a consumer, or moves it if its requirements or rank have changed.
    pub fn wait(&mut self, uid: &Uid, requirements: Requirements, rank: Rank) {
        if self.grants.contains_key(uid) {
            return;
        }
        if self.waiters.get(uid).is_some_and(|waiter| waiter.requirements == requirements && waiter.rank == rank) {
            return;
        }
        self.leave(uid);
        let queue = self.queue_for(&requirements);
        self.queues[queue].insert(rank.clone(), &mut self.touched);
        let Self { open, queues, pools, .. } = self;
        // A provider of this queue may just have gone; the queues are rebuilt before slots are assigned.
        let has_free = |key: &&ObjectKey| pools.get(*key).and_then(Pool::next_free).is_some();
        open.extend(queues[queue].providers().iter().filter(has_free).cloned());
        self.waiters.insert(uid.clone(), Waiter { requirements, rank, queue });
    }

    /// Removes a consumer from its queue.
    pub fn leave(&mut self, uid: &Uid) {
        if let Some(waiter) = self.waiters.remove(uid) {
            self.queues[waiter.queue].remove(&waiter.rank, &mut self.touched);
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
            self.release(&grant.provider, grant.slot, Holder::Grant);
        }
    }

    /// Returns the slots of a provider.
    pub fn pool(&self, provider: &ObjectKey) -> Option<&Pool> {
        self.pools.get(provider)
    }

    /// The queue position of a consumer.
    pub fn position(&self, uid: &Uid) -> QueuePosition {
        let Some(waiter) = self.waiters.get(uid) else { return QueuePosition::NotQueued };
        let queue = &self.queues[waiter.queue];
        QueuePosition::Queued { position: queue.position(&waiter.rank), fitting: queue.providers().clone() }
    }

    /// Grants every slot that can be assigned. Returns the consumers that got one.
    pub fn settle(&mut self) -> Vec<ObjectKey> {
        if std::mem::take(&mut self.matching_changed) {
            self.rebuild_queues();
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
                let Some(rank) = self.next_consumer_for(&provider) else { break };
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

    fn next_consumer_for(&self, provider: &ObjectKey) -> Option<Rank> {
        let pool = self.pools.get(provider)?;
        let queues = self.queues.iter().filter(|queue| queue.providers().binary_search(provider).is_ok());
        queues.filter(|queue| pool.serves(queue)).filter_map(Queue::head).min().cloned()
    }

    fn queue_for(&mut self, requirements: &Requirements) -> usize {
        if let Some(queue) = self.queue_by_requirements.get(requirements) {
            return *queue;
        }
        let mut fitting: Vec<_> =
            (self.pools.iter()).filter(|(_, pool)| pool.fits(requirements)).map(|(key, _)| key.clone()).collect();
        fitting.sort();
        let verifying = requirements.verifies.is_some();
        let is_same = |queue: &Queue| **queue.providers() == *fitting && queue.is_verifying() == verifying;
        let queue = self.queues.iter().position(is_same).unwrap_or_else(|| {
            self.queues.push(Queue::new(fitting, verifying));
            self.queues.len() - 1
        });
        self.queue_by_requirements.insert(requirements.clone(), queue);
        queue
    }

    fn rebuild_queues(&mut self) {
        self.queues.clear();
        self.queue_by_requirements.clear();
        let mut waiters = std::mem::take(&mut self.waiters);
        for waiter in waiters.values_mut() {
            waiter.queue = self.queue_for(&waiter.requirements);
            self.queues[waiter.queue].insert(waiter.rank.clone(), &mut self.touched);
            self.touched.insert(waiter.rank.key.clone());
        }
        self.waiters = waiters;
        self.open.extend(self.pools.keys().cloned());
    }

    fn touch_queues_of(&mut self, provider: &ObjectKey) {
        let Self { queues, touched, .. } = self;
        for queue in queues.iter().filter(|queue| queue.providers().binary_search(provider).is_ok()) {
            touched.extend(queue.keys().cloned());
        }
    }
}

#[cfg(test)]
mod tests;
