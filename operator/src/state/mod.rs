//! What is known of the cluster: one store a kind, fed by one watch a kind and by our own acknowledged writes.

mod credentials;
mod events;
mod logins;
mod outcome;
mod pods;
mod project;
mod store;
mod views;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use smallvec::SmallVec;

pub use events::{Applied, PodsChange};
pub use logins::{Fingerprint, Login, LoginIndex, Logins, SharedWith};
pub use outcome::{Outcome, WatchEvent};
pub use pods::{Ending, PodsOf};
pub use project::{
    Project, fingerprint, meta,
    overrides::{INIT, PROBE, VPN, check_overrides, merge_overrides},
    source, source_hash, unreadable_reservation,
};
pub use store::{Acknowledged, Change, Epoch, Store, Versioned};
pub use views::*;

use crate::model::{Kind, Meta, ObjectKey, Uid};

/// One object of any kind that is watched whole.
#[derive(Clone, Debug)]
pub enum Object {
    /// A Mask.
    Mask(MaskView),
    /// A MaskConsumer.
    Consumer(ConsumerView),
    /// A MaskReservation.
    Reservation(ReservationView),
    /// A MaskProvider.
    Provider(Box<ProviderView>),
    /// A copied Secret, metadata only.
    Copy(CopyView),
    /// A Pod.
    Pod(PodView),
    /// A Pod that verifies a provider.
    VerificationPod(Box<VerificationPod>),
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Object::Mask(_) => Kind::Mask,
            Object::Consumer(_) => Kind::Consumer,
            Object::Reservation(_) => Kind::Reservation,
            Object::Provider(_) => Kind::Provider,
            Object::Copy(_) => Kind::Secret,
            Object::Pod(_) | Object::VerificationPod(_) => Kind::Pod,
        }
    }

    /// Whether it is shown for the last time: the write that removed its last finalizer removed it.
    pub fn is_last_sight(&self) -> bool {
        let meta = self.meta();
        meta.deleting && meta.finalizers == 0 && self.kind() != Kind::Pod
    }

    /// Its metadata.
    pub fn meta(&self) -> &Meta {
        match self {
            Object::Mask(view) => &view.meta,
            Object::Consumer(view) => &view.meta,
            Object::Reservation(view) => &view.meta,
            Object::Provider(view) => &view.meta,
            Object::Copy(view) => &view.meta,
            Object::Pod(view) => &view.meta,
            Object::VerificationPod(view) => &view.meta,
        }
    }
}

/// What was in a store before a change.
#[derive(Debug)]
pub enum StoreChange {
    /// A Mask changed.
    Mask(Change<MaskView>),
    /// A MaskConsumer changed.
    Consumer(Change<ConsumerView>),
    /// A MaskReservation changed.
    Reservation(Change<ReservationView>),
    /// A MaskProvider changed.
    Provider(Change<ProviderView>),
    /// A copied Secret changed.
    Copy(Change<CopyView>),
    /// A Pod that verifies a provider changed.
    VerificationPod(Change<VerificationPod>),
}

/// How a consumer ended, kept until its reservations are gone.
#[derive(Clone, Debug)]
pub struct Departed {
    /// UID of the reservation it was committed to.
    pub committed: Option<Uid>,
}

/// How many consumers that have gone are remembered.
const GONE_LATELY: usize = 4096;

/// All that is known.
#[derive(Clone, Default)]
pub struct ClusterState {
    /// Masks.
    pub masks: Store<MaskView>,
    /// MaskConsumers.
    pub consumers: Store<ConsumerView>,
    /// MaskReservations.
    pub reservations: Store<ReservationView>,
    /// MaskProviders.
    pub providers: Store<ProviderView>,
    /// Copied Secrets (metadata of those with the owner label).
    pub copies: Store<CopyView>,
    /// Pods that verify a provider.
    pub verification_pods: Store<VerificationPod>,
    /// Credentials Secrets of providers, each watched by its name.
    pub sources: HashMap<ObjectKey, Source>,
    /// What the slots of providers log in with.
    pub logins: LoginIndex,
    /// Pods, in namespaces where a release is under way.
    pub pods: HashMap<std::sync::Arc<str>, PodsOf>,
    consumer_of_uid: HashMap<Uid, ObjectKey>,
    reservations_of: HashMap<Uid, Keys>,
    slots_of: HashMap<ObjectKey, BTreeMap<u32, ObjectKey>>,
    copies_of: HashMap<Uid, Keys>,
    departed: HashMap<Uid, Departed>,
    /// Which reservation consumers were committed to that have gone lately, by their UID: the watch on reservations may be
    /// behind, and tell of it only now. Bounded; what is forgotten is held a little longer.
    committed_lately: HashMap<Uid, Uid>,
    gone_lately: VecDeque<Uid>,
    /// UIDs of Masks that are gone for sure and whose consumer is still there.
    masks_gone: HashSet<Uid>,
}

impl ClusterState {
    /// The consumer with that UID.
    pub fn consumer_by_uid(&self, uid: &Uid) -> Option<&ConsumerView> {
        self.consumers.get(self.consumer_of_uid.get(uid)?).filter(|view| view.meta.uid == *uid)
    }

    /// The reservations that point at the consumer with that UID, by name.
    pub fn reservations_of(&self, consumer: &Uid) -> impl Iterator<Item = &ReservationView> {
        let keys = self.reservations_of.get(consumer).into_iter().flatten();
        keys.filter_map(|key| self.reservations.get(key))
    }

    /// The reservations of a provider by slot, whoever made them.
    pub fn reservations_on(&self, provider: &ObjectKey) -> impl DoubleEndedIterator<Item = (u32, &ReservationView)> {
        let keys = self.slots_of.get(provider).into_iter().flatten();
        keys.filter_map(|(slot, key)| Some((*slot, self.reservations.get(key)?)))
    }

    /// How many reservations a provider has.
    pub fn slots_used(&self, provider: &ObjectKey) -> usize {
        self.slots_of.get(provider).map_or(0, BTreeMap::len)
    }

    /// The copied Secrets that the consumer with that UID owns.
    pub fn copies_of(&self, consumer: &Uid) -> impl Iterator<Item = &CopyView> {
        let keys = self.copies_of.get(consumer).into_iter().flatten();
        keys.filter_map(|key| self.copies.get(key))
    }

    /// How the consumer with that UID ended, if the watch or an answer said that it is gone.
    pub fn departed(&self, consumer: &Uid) -> Option<&Departed> {
        self.departed.get(consumer)
    }

    /// Notes that the consumer with that UID was read to be gone.
    pub fn note_departed(&mut self, consumer: &Uid) {
        let committed = self.committed_lately.get(consumer).cloned();
        self.departed.entry(consumer.clone()).or_insert(Departed { committed });
    }

    /// Whether the Mask that a consumer belongs to is gone, by the word of the watch or of a read, never by mere absence.
    pub fn is_mask_gone(&self, consumer: &ConsumerView) -> bool {
        consumer.owner.as_ref().is_some_and(|mask| self.masks_gone.contains(mask))
    }

    /// Notes that the Mask of that name and UID was read to be gone; nothing, unless its consumer is still there.
    pub fn note_mask_gone(&mut self, key: &ObjectKey, mask: &Uid) {
        if self.consumers.get(key).is_some_and(|consumer| consumer.owner.as_ref() == Some(mask)) {
            self.masks_gone.insert(mask.clone());
        }
    }

    /// What the watch on that Secret says.
    pub fn source(&self, key: &ObjectKey) -> &Source {
        self.sources.get(key).unwrap_or(&Source::Unknown)
    }

    /// Looks anew at what the slots of a provider log in with. Returns the providers of which another one with the same
    /// account is to be told from now on, or no longer.
    pub fn refresh_logins(&mut self, provider: &ObjectKey) -> Vec<ObjectKey> {
        let Self { logins, providers, sources, .. } = self;
        let source = |key: &ObjectKey| sources.get(key).unwrap_or(&Source::Unknown);
        logins.update(provider, providers.get(provider), source)
    }

    /// Updates the indexes after a store changed.
    pub fn reindex(&mut self, touched: &StoreChange) {
        match touched {
            StoreChange::Consumer(change) => self.reindex_consumer(change),
            StoreChange::Reservation(change) => self.reindex_reservation(change),
            StoreChange::Copy(change) => self.reindex_copy(change),
            StoreChange::Mask(change) => self.reindex_mask(change),
            StoreChange::Provider(_) | StoreChange::VerificationPod(_) => {}
        }
    }

    fn reindex_mask(&mut self, change: &Change<MaskView>) {
        let Some(before) = change.before.as_ref().map(|before| &before.meta.uid) else { return };
        let is_there = self.masks.get(&change.key).is_some_and(|now| now.meta.uid == *before);
        let owner = self.consumers.get(&change.key).and_then(|consumer| consumer.owner.as_ref());
        if !is_there && owner == Some(before) {
            self.masks_gone.insert(before.clone());
        }
    }

    fn reindex_consumer(&mut self, change: &Change<ConsumerView>) {
        let now = self.consumers.get(&change.key);
        if let Some(owner) = change.before.as_ref().and_then(|before| before.owner.as_ref())
            && now.is_none_or(|now| now.owner.as_ref() != Some(owner))
        {
            self.masks_gone.remove(owner);
        }
        if let Some(before) = &change.before
            && now.is_none_or(|view| view.meta.uid != before.meta.uid)
        {
            self.consumer_of_uid.remove(&before.meta.uid);
            if let Some(assigned) = &before.assigned {
                if self.gone_lately.len() == GONE_LATELY
                    && let Some(oldest) = self.gone_lately.pop_front()
                {
                    self.committed_lately.remove(&oldest);
                }
                self.gone_lately.push_back(before.meta.uid.clone());
                self.committed_lately.insert(before.meta.uid.clone(), assigned.reservation.clone());
            }
            if self.reservations_of.contains_key(&before.meta.uid) {
                let committed = before.assigned.as_ref().map(|assigned| assigned.reservation.clone());
                self.departed.insert(before.meta.uid.clone(), Departed { committed });
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
                self.departed.remove(uid);
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

/// Objects that point at one consumer: one of a kind, but for the moment in which two operators compete.
type Keys = SmallVec<[ObjectKey; 1]>;

fn add_to(index: &mut HashMap<Uid, Keys>, uid: Uid, key: &ObjectKey) {
    let keys = index.entry(uid).or_default();
    if let Err(at) = keys.binary_search(key) {
        keys.insert(at, key.clone());
    }
}

/// Removes a key from an index; true when nothing is left under `uid`.
fn remove_from(index: &mut HashMap<Uid, Keys>, uid: &Uid, key: &ObjectKey) -> bool {
    let Some(keys) = index.get_mut(uid) else { return true };
    keys.retain(|other| other != key);
    let empty = keys.is_empty();
    if empty {
        index.remove(uid);
    }
    empty
}
