//! The slots that are not free, and who uses them.

use std::collections::{BTreeMap, HashMap};

use super::{provider_slots::ProviderSlots, workloads::WorkloadKey};
use crate::{
    allocator::Pool,
    model::ObjectKey,
    state::{ClusterState, ConsumerView, ReservationView},
};

/// Who uses a slot. If there are several users of a slot, the last of these counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum User {
    /// An object of somebody else has the name of the reservation.
    Foreign,
    /// Nobody any more: the slot is being released, or held after a release.
    Released,
    /// The verification of the provider.
    Verification,
    /// A Mask that belongs to no workload.
    Other,
    /// A Pod of a workload.
    Workload(WorkloadKey),
}

impl User {
    /// Returns the workload.
    pub fn workload(&self) -> Option<&WorkloadKey> {
        match self {
            User::Workload(workload) => Some(workload),
            _ => None,
        }
    }

    fn is_in_use(&self) -> bool {
        !matches!(self, User::Foreign | User::Released)
    }
}

/// The slots that are not free, by provider and number.
#[derive(Default)]
pub struct OccupiedSlots(HashMap<ObjectKey, BTreeMap<u32, User>>);

impl OccupiedSlots {
    /// Returns the slots that have a reservation. `user` returns the user of the slot of a MaskConsumer.
    pub fn of_reservations(state: &ClusterState, user: impl Fn(&ObjectKey) -> User) -> Self {
        let mut occupied = Self::default();
        for reservation in state.reservations.values() {
            if let (Some(provider), Some((_, slot))) = (reservation.provider(), &reservation.slot) {
                let user = match reservation.provider_uid {
                    None => User::Foreign,
                    Some(_) if !is_in_use(state, reservation) => User::Released,
                    Some(_) => user(&reservation.consumer),
                };
                occupied.add(&provider, *slot, user);
            }
        }
        occupied
    }

    /// Adds a user of a slot.
    pub fn add(&mut self, provider: &ObjectKey, slot: u32, user: User) {
        if !self.0.contains_key(provider) {
            self.0.insert(provider.clone(), BTreeMap::new());
        }
        if let Some(slots) = self.0.get_mut(provider) {
            let last = slots.entry(slot).or_insert_with(|| user.clone());
            *last = user.max(last.clone());
        }
    }

    /// Counts the slots of a provider.
    pub fn count(&self, provider: &ObjectKey, pool: &Pool) -> ProviderSlots {
        let none = BTreeMap::new();
        let occupied = self.0.get(provider).unwrap_or(&none);
        let used = occupied.values().filter(|user| user.is_in_use()).count() as u64;
        let slots = u64::from(pool.spec.capacity);
        let draining = occupied.last_key_value().is_some_and(|(slot, _)| *slot >= pool.spec.capacity);
        let foreign =
            occupied.iter().filter(|(_, user)| **user == User::Foreign).map(|(slot, _)| (*slot, ())).collect();
        let mut users: BTreeMap<_, u64> = BTreeMap::new();
        for (_, user) in occupied.range(..pool.spec.capacity) {
            if matches!(user, User::Other | User::Workload(_)) {
                *users.entry(user.workload().cloned()).or_default() += 1;
            }
        }
        ProviderSlots {
            slots,
            used,
            held: occupied.len() as u64 - used,
            free: if draining { 0 } else { pool.spec.count_free(occupied) },
            demanded: used,
            usable: pool.spec.usable,
            open: pool.spec.usable && pool.spec.current,
            draining,
            tags: pool.spec.tags.clone(),
            namespaces: pool.spec.namespaces.clone(),
            labels: BTreeMap::new(),
            assignable: pool.spec.count_free(&foreign),
            users,
        }
    }
}

/// Whether the slot of a reservation is assigned or being assigned to its consumer.
pub fn is_in_use(state: &ClusterState, reservation: &ReservationView) -> bool {
    let is_its_own = |consumer: &ConsumerView| {
        !consumer.meta.deleting
            && consumer.assigned.as_ref().is_none_or(|assigned| assigned.reservation == reservation.meta.uid)
    };
    !reservation.meta.deleting
        && reservation.provider_uid.is_some()
        && state.consumer_by_uid(&reservation.consumer_uid).is_some_and(is_its_own)
}
