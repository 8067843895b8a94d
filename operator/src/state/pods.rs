//! The Pods of a namespace, watched while a release is in progress there.
//!
//! Invariant: a Pod counts as ended only on evidence: its last state shows that it was not bound to a node, or that it
//! has ended. A Pod that disappeared without such evidence is remembered as unclean.

use std::{collections::HashMap, sync::Arc};

use smallvec::SmallVec;

use super::{
    store::Versioned,
    views::{PodStage, PodView},
};
use crate::model::Uid;

/// How a Pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The node confirmed the end, or the Pod never ran.
    Clean,
    /// The Pod disappeared, and its containers may still run: it was force deleted, or its Node was removed.
    Unclean,
}

impl Ending {
    /// Returns the ending of a Pod that the watch saw deleted, from its last state.
    fn of_deleted(last: &PodView) -> Self {
        if last.stage == PodStage::Running { Self::Unclean } else { Self::Clean }
    }

    /// Returns the ending of a Pod whose deletion the watch missed. If it had ended, that is final. If it had no node,
    /// it may have been bound since.
    fn of_missing(known: &PodView) -> Self {
        if known.stage == PodStage::Ended { Self::Clean } else { Self::Unclean }
    }
}

type Uids = SmallVec<[Uid; 1]>;

/// The Pods of a namespace that use, or may use, a slot.
#[derive(Clone, Default)]
pub struct NamespacePods {
    pods: HashMap<Uid, PodView>,
    /// UIDs of Pods by UID of the MaskConsumers that own them.
    by_owner: HashMap<Uid, Uids>,
    /// UIDs of Pods by name of the Secrets that they reference.
    by_secret: HashMap<Arc<str>, Uids>,
    ended: HashMap<Uid, Ending>,
    listing: Option<Vec<PodView>>,
    synced: bool,
}

impl NamespacePods {
    /// Whether the first list is complete.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Handles a Pod that was added or modified, according to the watch.
    pub fn applied(&mut self, pod: PodView) {
        if self.pods.get(pod.uid()).is_none_or(|known| known.version() < pod.version()) {
            self.insert(pod);
        }
    }

    /// Handles a Pod that was deleted, according to the watch. `pod` is its last state.
    pub fn deleted(&mut self, pod: &PodView) {
        self.remove(pod.uid());
        self.ended.insert(pod.meta.uid.clone(), Ending::of_deleted(pod));
    }

    /// Handles a Pod that no longer exists, according to a response. The watch will soon deliver its last state. Until
    /// then it counts as being deleted, so that nothing deletes it again.
    pub fn not_found(&mut self, uid: &Uid) {
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.meta.deleting = true;
        }
    }

    /// Handles the start of a list.
    pub fn list_started(&mut self) {
        self.listing = Some(Vec::new());
    }

    /// Handles a Pod of the list.
    pub fn listed(&mut self, pod: PodView) {
        self.listing.get_or_insert_default().push(pod);
    }

    /// Handles the end of the list. Pods that it does not contain were deleted while the watch was interrupted.
    pub fn list_completed(&mut self) {
        let listing = self.listing.take().unwrap_or_default();
        let mut before = std::mem::take(&mut self.pods);
        self.by_owner.clear();
        self.by_secret.clear();
        for pod in listing {
            before.remove(pod.uid());
            self.insert(pod);
        }
        for (uid, pod) in before {
            self.ended.insert(uid, Ending::of_missing(&pod));
        }
        self.synced = true;
    }

    /// Returns the Pods that a MaskConsumer owns, or that reference one of these Secrets.
    pub fn related<'a>(
        &'a self,
        consumer: &Uid,
        secrets: impl IntoIterator<Item = &'a Arc<str>>,
    ) -> impl Iterator<Item = &'a PodView> {
        let mut uids: Vec<_> = self.by_owner.get(consumer).into_iter().flatten().collect();
        uids.extend(secrets.into_iter().filter_map(|name| self.by_secret.get(name)).flatten());
        uids.sort_unstable();
        uids.dedup();
        uids.into_iter().filter_map(|uid| self.pods.get(uid))
    }

    /// Returns the Pod with this UID.
    pub fn get(&self, uid: &Uid) -> Option<&PodView> {
        self.pods.get(uid)
    }

    /// Returns how the Pod with this UID ended; absent if it has not ended, or is unknown.
    pub fn ending(&self, uid: &Uid) -> Option<Ending> {
        match self.pods.get(uid) {
            Some(pod) if pod.stage == PodStage::Ended => Some(Ending::Clean),
            Some(_) => None,
            None => self.ended.get(uid).copied(),
        }
    }

    /// Merges a consistent list, except for Pods that have ended since according to the watch.
    pub fn merge(&mut self, listed: &[PodView]) {
        for pod in listed.iter().filter(|pod| !self.ended.contains_key(pod.uid())).cloned().collect::<Vec<_>>() {
            self.applied(pod);
        }
    }

    fn insert(&mut self, pod: PodView) {
        self.remove(pod.uid());
        for consumer in &pod.consumers {
            self.by_owner.entry(consumer.clone()).or_default().push(pod.meta.uid.clone());
        }
        for secret in &pod.secrets {
            self.by_secret.entry(secret.clone()).or_default().push(pod.meta.uid.clone());
        }
        self.pods.insert(pod.meta.uid.clone(), pod);
    }

    fn remove(&mut self, uid: &Uid) {
        let Some(pod) = self.pods.remove(uid) else { return };
        for consumer in &pod.consumers {
            remove_from(&mut self.by_owner, consumer, uid);
        }
        for secret in &pod.secrets {
            remove_from(&mut self.by_secret, secret, uid);
        }
    }
}

fn remove_from<K: std::hash::Hash + Eq>(index: &mut HashMap<K, Uids>, key: &K, uid: &Uid) {
    if let Some(uids) = index.get_mut(key) {
        uids.retain(|other| other != uid);
        if uids.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
