//! The Pods of one namespace while a release is under way there: one watch, kept just that long.
//!
//! Invariant: a Pod counts as ended only on evidence: it was never bound to a node, or its last seen status shows all
//! containers terminated. A Pod that vanished without that is remembered as such.

use std::collections::HashMap;

use super::{
    key::Uid,
    store::Versioned,
    views::{PodStage, PodView},
};

/// How a Pod left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its containers were seen terminated, or it never ran.
    Clean,
    /// It vanished; its containers may still run (deleted by force, node object removed).
    Unclean,
}

/// Pods of one namespace that use, or may use, a slot.
#[derive(Clone, Default)]
pub struct PodsOf {
    present: HashMap<Uid, PodView>,
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
            self.present.insert(pod.meta.uid.clone(), pod);
        }
    }

    /// The watch saw a Pod go; `pod` is its last state.
    pub fn deleted(&mut self, pod: &PodView) {
        self.present.remove(pod.uid());
        let clean = pod.stage != PodStage::Running;
        self.ended.insert(pod.meta.uid.clone(), if clean { Ending::Clean } else { Ending::Unclean });
    }

    /// The API server answered that there is no such Pod any more.
    pub fn vanished(&mut self, uid: &Uid) {
        if let Some(pod) = self.present.remove(uid) {
            let clean = pod.stage != PodStage::Running;
            self.ended.insert(uid.clone(), if clean { Ending::Clean } else { Ending::Unclean });
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
        for pod in listing {
            before.remove(pod.uid());
            self.present.insert(pod.meta.uid.clone(), pod);
        }
        for (uid, pod) in before {
            let clean = pod.stage != PodStage::Running;
            self.ended.insert(uid, if clean { Ending::Clean } else { Ending::Unclean });
        }
        self.synced = true;
    }

    /// The Pods that are there.
    pub fn present(&self) -> impl Iterator<Item = &PodView> {
        self.present.values()
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
}

#[cfg(test)]
mod tests;
