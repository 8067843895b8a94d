//! A snapshot of slots and Masks, for `/metrics`.
//!
//! Invariants for each provider: `used + held + free == slots`, unless it is draining, the Secret of a free slot is
//! missing, or the WireGuard key of a free slot is in use; and `demanded >= used`. Invariant for all providers: each
//! waiting Mask that matches a provider is demanded of exactly one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use vpn_types::MaskConsumerPhase;

use super::{
    gated::{GatedPods, gated},
    occupied::{OccupiedSlots, User, is_in_use},
    provider_slots::ProviderSlots,
    workloads::{Waiting, WorkloadKey, workloads},
};
use crate::{
    allocator::{Allocator, Pool},
    controllers::{consumers, servers},
    engine::Engine,
    model::ObjectKey,
    state::{ConsumerView, Tags},
};

/// A snapshot of slots and Masks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The slots of each provider.
    pub providers: BTreeMap<ObjectKey, ProviderSlots>,
    /// The slots of each tag that a provider has.
    pub tags: BTreeMap<Arc<str>, TagSlots>,
    /// The Masks of each namespace that has any.
    pub namespaces: BTreeMap<Arc<str>, NamespaceMasks>,
    /// The Pods with their scheduling gate, of each namespace that has Pods that the webhook injected.
    pub pods: BTreeMap<Arc<str>, GatedPods>,
    /// The number of waiting Masks that want the same.
    pub waiting: HashMap<Waiting, u64>,
    /// OpenVPN servers, in a process that runs them.
    pub servers: BTreeMap<ObjectKey, servers::Summary>,
    /// The highest priority of the Masks of each workload.
    pub priorities: HashMap<WorkloadKey, i32>,
}

/// The slots of all providers with a tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TagSlots {
    /// Free slots that would be assigned to a Mask that requests this tag.
    pub free: u64,
    /// Waiting Masks that request this tag, alone or among others, but not those that accept any provider.
    pub waiting: u64,
}

/// The Masks of a namespace that have a MaskConsumer, which has the same name and phase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceMasks {
    /// The number of Masks in each phase, in the order of [`MaskConsumerPhase::ALL`].
    phases: [u64; MaskConsumerPhase::ALL.len()],
    /// Masks that wait: they have no slot, none is being assigned to them, and they are not being deleted.
    pub waiting: u64,
    /// The creation time of the MaskConsumer that has waited longest, in whole seconds.
    pub waiting_since: Option<DateTime<Utc>>,
}

impl NamespaceMasks {
    /// The number of Masks in a phase.
    pub fn in_phase(&self, phase: MaskConsumerPhase) -> u64 {
        self.phases[phase as usize]
    }
}

impl Snapshot {
    /// Takes a snapshot of the cache and the allocator, in linear time. The engine has to run the consumers controller,
    /// which watches all of these kinds, or the servers controller for the part about servers.
    pub fn of(engine: &Engine) -> Self {
        let (state, allocator) = (engine.state(), engine.allocator());
        let mut snapshot = Self { pods: gated(state), ..Self::default() };
        let workloads = workloads(state);
        let user =
            |consumer: &ObjectKey| workloads.get(consumer).map_or(User::Other, |key| User::Workload(key.clone()));
        let mut occupied = OccupiedSlots::of_reservations(state, user);
        for consumer in state.consumers.values() {
            let grant = allocator.grant(&consumer.meta.uid);
            let requirements = consumers::requirements(state, consumer);
            let is_user = requirements.verifies.is_none();
            let user = if is_user { user(&consumer.meta.key) } else { User::Verification };
            if let Some(assigned) = &consumer.assigned {
                let in_use = (!consumer.meta.deleting).then(|| user.clone());
                occupied.add(&assigned.provider, assigned.slot, in_use.unwrap_or(User::Released));
            }
            // There may be both, if another operator was faster and the request for this lock is still in flight.
            if let Some(grant) = grant {
                occupied.add(&grant.provider, grant.slot, user.clone());
            }
            let waits = !consumer.meta.deleting
                && consumer.assigned.is_none()
                && grant.is_none()
                && !state.reservations_of(&consumer.meta.uid).any(|reservation| is_in_use(state, reservation));
            let workload = user.workload().cloned();
            if let Some(workload) = &workload {
                let priority = snapshot.priorities.entry(workload.clone()).or_insert(consumer.priority);
                *priority = consumer.priority.max(*priority);
            }
            if waits {
                let priority = consumer.priority;
                *snapshot.waiting.entry(Waiting { requirements, priority, workload }).or_default() += 1;
            }
            let namespace = consumer.meta.key.namespace.clone();
            snapshot.namespaces.entry(namespace).or_default().add(consumer, waits);
        }
        for provider in state.providers.values() {
            let Some(pool) = allocator.pool(&provider.meta.key) else { continue };
            let mut slots = occupied.count(&provider.meta.key, pool);
            slots.labels = provider.labels.iter().cloned().collect();
            snapshot.providers.insert(provider.meta.key.clone(), slots);
        }
        for server in state.servers.values() {
            snapshot.servers.insert(server.meta.key.clone(), servers::summary(state, server));
        }
        snapshot.spread_demand(allocator);
        snapshot.add_tags();
        snapshot
    }

    /// Adds each waiting Mask to the demand of one provider.
    fn spread_demand(&mut self, allocator: &Allocator) {
        let mut groups: BTreeMap<Vec<ObjectKey>, u64> = BTreeMap::new();
        for (waiting, count) in &self.waiting {
            let fits = |pool: &Pool| pool.fits(&waiting.requirements);
            let fitting = self.providers.iter().filter(|(key, _)| allocator.pool(key).is_some_and(fits));
            let fitting: Vec<_> = fitting.collect();
            let usable: Vec<_> = fitting.iter().filter(|(_, provider)| provider.usable).copied().collect();
            // Unusable providers count only if no usable one matches.
            let matching = if usable.is_empty() { fitting } else { usable };
            *groups.entry(matching.into_iter().map(|(key, _)| key.clone()).collect()).or_default() += count;
        }
        // Start with the groups that match the fewest providers. The remainder of a division goes to the providers with
        // the lowest demand.
        let mut groups: Vec<_> = groups.into_iter().filter(|(providers, _)| !providers.is_empty()).collect();
        groups.sort_by_key(|(providers, _)| providers.len());
        for (mut providers, count) in groups {
            providers.sort_by_key(|key| self.providers.get(key).map(|provider| provider.demanded));
            let (each, remainder) = (count / providers.len() as u64, count % providers.len() as u64);
            for (position, key) in (0u64..).zip(&providers) {
                if let Some(provider) = self.providers.get_mut(key) {
                    provider.demanded += each + u64::from(position < remainder);
                }
            }
        }
    }

    fn add_tags(&mut self) {
        for provider in self.providers.values() {
            for tag in unique(&provider.tags) {
                let free = if provider.open { provider.free } else { 0 };
                self.tags.entry(tag.clone()).or_default().free += free;
            }
        }
        for (waiting, count) in &self.waiting {
            for tag in waiting.requirements.tags.iter().flat_map(unique) {
                // Only tags of providers are exported: the tags of Masks are not limited.
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

fn unique(tags: &Tags) -> BTreeSet<&Arc<str>> {
    tags.iter().collect()
}
