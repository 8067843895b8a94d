//! The Pods of one namespace while a release is under way there: one watch, kept just that long.
//!
//! Invariant: a Pod counts as ended only on evidence: the last that the watch told of it shows that it was not bound to
//! a node, or that it has ended. One that vanished without that is remembered as such.

use std::{collections::HashMap, sync::Arc};

use smallvec::SmallVec;

use super::{
    store::Versioned,
    views::{PodStage, PodView},
};
use crate::model::Uid;

/// How a Pod left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It has ended by the word of its node, or never ran.
    Clean,
    /// It vanished; its containers may still run (deleted by force, node object removed).
    Unclean,
}

impl Ending {
    /// How a Pod ended of which the watch told that it is gone, and its last state.
    fn as_told(last: &PodView) -> Self {
        if last.stage == PodStage::Running { Self::Unclean } else { Self::Clean }
    }

    /// How a Pod ended that is gone, and whose last state nobody saw: an end is for good, but one that had no node may
    /// have got one since.
    fn unseen(known: &PodView) -> Self {
        if known.stage == PodStage::Ended { Self::Clean } else { Self::Unclean }
    }
}

type Uids = SmallVec<[Uid; 1]>;

/// Pods of one namespace that use, or may use, a slot.
#[derive(Clone, Default)]
pub struct PodsOf {
    present: HashMap<Uid, PodView>,
    /// UIDs of the Pods that are there, by UID of the MaskConsumers that own them.
    owned: HashMap<Uid, Uids>,
    /// The same by name of the Secrets that they read.
    readers: HashMap<Arc<str>, Uids>,
    ended: HashMap<Uid, Ending>,
    listing: Option<Vec<PodView>>,
    synced: bool,
}

impl PodsOf {
    /// Whether the watch has listed once: from then on no ending is missed.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// The watch saw a Pod.
    pub fn applied(&mut self, pod: PodView) {
        if self.present.get(pod.uid()).is_none_or(|known| known.version() < pod.version()) {
            self.put(pod);
        }
    }

    /// The watch saw a Pod go; `pod` is its last state.
    pub fn deleted(&mut self, pod: &PodView) {
        self.take(pod.uid());
        self.ended.insert(pod.meta.uid.clone(), Ending::as_told(pod));
    }

    /// The API server answered that there is no such Pod any more. How it ended is for the watch to tell, which does so
    /// soon; nobody has to delete it meanwhile.
    pub fn vanished(&mut self, uid: &Uid) {
        if let Some(pod) = self.present.get_mut(uid) {
            pod.meta.deleting = true;
        }
    }

    /// The watch starts over.
    pub fn list_began(&mut self) {
        self.listing = Some(Vec::new());
    }

    /// One Pod of the list.
    pub fn listed(&mut self, pod: PodView) {
        self.listing.get_or_insert_default().push(pod);
    }

    /// The list is complete: Pods that it does not hold vanished while nobody looked.
    pub fn list_ended(&mut self) {
        let listing = self.listing.take().unwrap_or_default();
        let mut before = std::mem::take(&mut self.present);
        self.owned.clear();
        self.readers.clear();
        for pod in listing {
            before.remove(pod.uid());
            self.put(pod);
        }
        for (uid, pod) in before {
            self.ended.insert(uid, Ending::unseen(&pod));
        }
        self.synced = true;
    }

    /// The Pods that are there and that a MaskConsumer owns, or that read one of these Secrets.
    pub fn related<'a>(
        &'a self,
        consumer: &Uid,
        secrets: impl IntoIterator<Item = &'a Arc<str>>,
    ) -> impl Iterator<Item = &'a PodView> {
        let mut uids: Vec<_> = self.owned.get(consumer).into_iter().flatten().collect();
        uids.extend(secrets.into_iter().filter_map(|name| self.readers.get(name)).flatten());
        uids.sort_unstable();
        uids.dedup();
        uids.into_iter().filter_map(|uid| self.present.get(uid))
    }

    /// The Pod with that UID, unless it is gone.
    pub fn get(&self, uid: &Uid) -> Option<&PodView> {
        self.present.get(uid)
    }

    /// How the Pod with that UID ended; absent while it is there (or was never seen).
    pub fn ending(&self, uid: &Uid) -> Option<Ending> {
        match self.present.get(uid) {
            Some(pod) if pod.stage == PodStage::Ended => Some(Ending::Clean),
            Some(_) => None,
            None => self.ended.get(uid).copied(),
        }
    }

    /// Takes in a consistent list made beside the watch, except for what the watch saw end since.
    pub fn merge(&mut self, listed: &[PodView]) {
        for pod in listed.iter().filter(|pod| !self.ended.contains_key(pod.uid())).cloned().collect::<Vec<_>>() {
            self.applied(pod);
        }
    }

    fn put(&mut self, pod: PodView) {
        self.take(pod.uid());
        for consumer in &pod.consumers {
            self.owned.entry(consumer.clone()).or_default().push(pod.meta.uid.clone());
        }
        for secret in &pod.secrets {
            self.readers.entry(secret.clone()).or_default().push(pod.meta.uid.clone());
        }
        self.present.insert(pod.meta.uid.clone(), pod);
    }

    fn take(&mut self, uid: &Uid) {
        let Some(pod) = self.present.remove(uid) else { return };
        for consumer in &pod.consumers {
            forget(&mut self.owned, consumer, uid);
        }
        for secret in &pod.secrets {
            forget(&mut self.readers, secret, uid);
        }
    }
}

fn forget<K: std::hash::Hash + Eq>(index: &mut HashMap<K, Uids>, key: &K, uid: &Uid) {
    if let Some(uids) = index.get_mut(key) {
        uids.retain(|other| other != uid);
        if uids.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
