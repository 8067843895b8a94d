//! Slots and Masks at one moment: what `/metrics` shows, and whatever else tells people or autoscalers of slots.
//!
//! Invariants, for each provider: `used + held + free == slots`, unless it is draining, the Secret of a free slot is
//! missing, or its key is in use in another slot; `demanded >= used`. Over all providers: each waiting Mask that some provider fits is demanded of exactly one of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use vpn_types::MaskConsumerPhase;

use crate::{
    allocator::{Allocator, Pool, Requirements},
    controllers::consumers,
    engine::Engine,
    model::ObjectKey,
    state::{ClusterState, ConsumerView, ReservationView, Tags},
};

/// Slots and Masks at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// By provider.
    pub providers: BTreeMap<ObjectKey, ProviderSlots>,
    /// By tag, for each tag that a provider has.
    pub tags: BTreeMap<Arc<str>, TagSlots>,
    /// By namespace, for each namespace that has a Mask.
    pub namespaces: BTreeMap<Arc<str>, NamespaceMasks>,
}

/// The slots of one provider. All numbers are slots.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderSlots {
    /// `spec.maxSlots`.
    pub slots: u64,
    /// Assigned, or just being assigned.
    pub used: u64,
    /// Neither assigned nor free: being given back, held after a release, or blocked by an object that is not ours.
    pub held: u64,
    /// Held by nobody, their Secret is there, and of those with the same WireGuard key one. 0 while draining, since nothing is assigned then.
    pub free: u64,
    /// `used`, and one for each waiting Mask that it could serve. A Mask that several usable providers fit is demanded
    /// of one of them: they share such Masks evenly.
    pub demanded: u64,
    /// Whether its phase is `Ready` or `Active` and its Secret is there.
    pub usable: bool,
    /// Whether free slots are assigned now: it is usable, and `spec` as it stands is in force.
    pub open: bool,
    /// Whether a slot beyond `spec.maxSlots` has still to be given back.
    pub draining: bool,
    /// `spec.tags`.
    pub tags: Tags,
    /// `spec.namespaces`: those that may use it; absent: all.
    pub namespaces: Option<Tags>,
}

/// The providers with one tag, together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TagSlots {
    /// Free slots that would be assigned to a Mask that asks for this tag.
    pub free: u64,
    /// Waiting Masks that ask for this tag, among others or alone. Those that take any provider are not among them.
    pub waiting: u64,
}

/// The Masks of one namespace, as far as they have a MaskConsumer: that has the name and the phase of its Mask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceMasks {
    /// How many there are of each phase, in the order of [`MaskConsumerPhase::ALL`].
    phases: [u64; MaskConsumerPhase::ALL.len()],
    /// How many wait: they have no slot, none is being assigned to them, and they are not being deleted.
    pub waiting: u64,
    /// Since when the one that waits longest has done so: creation of its MaskConsumer, to the second.
    pub waiting_since: Option<DateTime<Utc>>,
}

impl NamespaceMasks {
    /// How many Masks are in a phase.
    pub fn in_phase(&self, phase: MaskConsumerPhase) -> u64 {
        self.phases[phase as usize]
    }
}

impl Snapshot {
    /// Counts all that an engine knows, in time that grows with the number of objects. The engine has to run the
    /// consumers controller, which is the one that watches all of this.
    pub fn of(engine: &Engine) -> Self {
        let (state, allocator) = (engine.state(), engine.allocator());
        let mut snapshot = Self::default();
        let mut taken = Taken::of_reservations(state);
        let mut waiting: HashMap<Requirements, u64> = HashMap::new();
        for consumer in state.consumers.values() {
            let grant = allocator.grant(&consumer.meta.uid);
            if let Some(assigned) = &consumer.assigned {
                taken.add(&assigned.provider, assigned.slot, !consumer.meta.deleting);
            }
            // Both, when another operator was faster: our lock is still on its way.
            if let Some(grant) = grant {
                taken.add(&grant.provider, grant.slot, true);
            }
            let waits = !consumer.meta.deleting
                && consumer.assigned.is_none()
                && grant.is_none()
                && !state.reservations_of(&consumer.meta.uid).any(|reservation| is_in_use(state, reservation));
            if waits {
                *waiting.entry(consumers::requirements(state, consumer)).or_default() += 1;
            }
            let namespace = consumer.meta.key.namespace.clone();
            snapshot.namespaces.entry(namespace).or_default().add(consumer, waits);
        }
        for provider in state.providers.values() {
            let Some(pool) = allocator.pool(&provider.meta.key) else { continue };
            snapshot.providers.insert(provider.meta.key.clone(), taken.count(&provider.meta.key, pool));
        }
        snapshot.spread_demand(allocator, &waiting);
        snapshot.add_tags(&waiting);
        snapshot
    }

    /// Adds each waiter to the demand of one provider.
    fn spread_demand(&mut self, allocator: &Allocator, waiting: &HashMap<Requirements, u64>) {
        let mut lines: BTreeMap<Vec<ObjectKey>, u64> = BTreeMap::new();
        for (class, count) in waiting {
            let fits = |pool: &Pool| pool.fits(class);
            let fitting = self.providers.iter().filter(|(key, _)| allocator.pool(key).is_some_and(fits));
            let fitting: Vec<_> = fitting.collect();
            let usable: Vec<_> = fitting.iter().filter(|(_, provider)| provider.usable).copied().collect();
            // One that cannot be used serves nobody, unless there is no other.
            let servers = if usable.is_empty() { fitting } else { usable };
            *lines.entry(servers.into_iter().map(|(key, _)| key.clone()).collect()).or_default() += count;
        }
        // Those with the least choice first; then the odd ones of the others go where there is least demand.
        let mut lines: Vec<_> = lines.into_iter().filter(|(servers, _)| !servers.is_empty()).collect();
        lines.sort_by_key(|(servers, _)| servers.len());
        for (mut servers, count) in lines {
            servers.sort_by_key(|key| self.providers.get(key).map(|provider| provider.demanded));
            let (each, odd) = (count / servers.len() as u64, count % servers.len() as u64);
            for (place, key) in (0u64..).zip(&servers) {
                if let Some(provider) = self.providers.get_mut(key) {
                    provider.demanded += each + u64::from(place < odd);
                }
            }
        }
    }

    fn add_tags(&mut self, waiting: &HashMap<Requirements, u64>) {
        for provider in self.providers.values() {
            for tag in unique(&provider.tags) {
                let free = if provider.open { provider.free } else { 0 };
                self.tags.entry(tag.clone()).or_default().free += free;
            }
        }
        for (class, count) in waiting {
            for tag in class.tags.iter().flat_map(unique) {
                // Only tags of providers are shown: what Masks may ask for has no bounds.
                if let Some(slots) = self.tags.get_mut(tag) {
                    slots.waiting += count;
                }
            }
        }
    }
}

impl NamespaceMasks {
    fn add(&mut self, consumer: &ConsumerView, waits: bool) {
        let phase = match consumer.status.phase {
            _ if consumer.meta.deleting => MaskConsumerPhase::Terminating,
            phase => phase.unwrap_or(MaskConsumerPhase::Pending),
        };
        self.phases[phase as usize] += 1;
        if waits {
            self.waiting += 1;
            let since = consumer.meta.created;
            self.waiting_since = Some(self.waiting_since.map_or(since, |other| other.min(since)));
        }
    }
}

/// Slots that are not free, by provider and number, and whether each is in use (else it is held).
#[derive(Default)]
struct Taken(HashMap<ObjectKey, BTreeMap<u32, bool>>);

impl Taken {
    fn of_reservations(state: &ClusterState) -> Self {
        let mut taken = Self::default();
        for reservation in state.reservations.values() {
            if let (Some(provider), Some((_, slot))) = (reservation.provider(), &reservation.slot) {
                taken.add(&provider, *slot, is_in_use(state, reservation));
            }
        }
        taken
    }

    fn add(&mut self, provider: &ObjectKey, slot: u32, in_use: bool) {
        if !self.0.contains_key(provider) {
            self.0.insert(provider.clone(), BTreeMap::new());
        }
        if let Some(slots) = self.0.get_mut(provider) {
            *slots.entry(slot).or_default() |= in_use;
        }
    }

    fn count(&self, provider: &ObjectKey, pool: &Pool) -> ProviderSlots {
        let taken = self.0.get(provider);
        let all = taken.map_or(0, BTreeMap::len) as u64;
        let used = taken.into_iter().flat_map(BTreeMap::values).filter(|in_use| **in_use).count() as u64;
        let slots = u64::from(pool.spec.capacity);
        let none = BTreeMap::new();
        let draining = taken.and_then(BTreeMap::last_key_value).is_some_and(|(slot, _)| *slot >= pool.spec.capacity);
        ProviderSlots {
            slots,
            used,
            held: all - used,
            free: if draining { 0 } else { pool.spec.count_free(taken.unwrap_or(&none)) },
            demanded: used,
            usable: pool.spec.usable,
            open: pool.spec.usable && pool.spec.current,
            draining,
            tags: pool.spec.tags.clone(),
            namespaces: pool.spec.namespaces.clone(),
        }
    }
}

/// Whether the consumer of a reservation has the slot, or is about to.
fn is_in_use(state: &ClusterState, reservation: &ReservationView) -> bool {
    let is_its_own = |consumer: &ConsumerView| {
        !consumer.meta.deleting
            && consumer.assigned.as_ref().is_none_or(|assigned| assigned.reservation == reservation.meta.uid)
    };
    !reservation.meta.deleting
        && reservation.provider_uid.is_some()
        && state.consumer_by_uid(&reservation.consumer_uid).is_some_and(is_its_own)
}

fn unique(tags: &Tags) -> BTreeSet<&Arc<str>> {
    tags.iter().collect()
}
