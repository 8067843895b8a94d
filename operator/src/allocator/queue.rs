//! A queue of consumers that match the same providers.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    model::{ObjectKey, Uid},
    state::{ProviderView, Rank, Tags},
};

/// How many consumers of a queue are shown their position.
pub const POSITIONS_SHOWN: usize = 10;

/// The requirements that decide which providers match a consumer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirements {
    /// Namespace of the consumer.
    pub namespace: Arc<str>,
    /// Tags, one of which must match; absent: any provider.
    pub tags: Option<Tags>,
    /// UID of the provider that the consumer verifies: only that provider matches, whatever its tags and namespaces.
    pub verifies: Option<Uid>,
}

impl Requirements {
    /// Whether a provider with this UID, these tags and these namespaces matches.
    pub fn match_provider(&self, uid: &Uid, tags: &Tags, namespaces: Option<&Tags>) -> bool {
        if let Some(verified) = &self.verifies {
            return verified == uid;
        }
        self.accept(tags, namespaces)
    }

    /// Whether a provider with these tags and these namespaces matches, for a consumer that verifies none.
    pub fn accept(&self, tags: &Tags, namespaces: Option<&Tags>) -> bool {
        self.tags.as_ref().is_none_or(|wanted| wanted.iter().any(|tag| tags.contains(tag)))
            && namespaces.is_none_or(|allowed| allowed.contains(&self.namespace))
    }

    /// Whether a provider matches.
    pub fn fit(&self, provider: &ProviderView) -> bool {
        self.match_provider(&provider.meta.uid, &provider.tags, provider.namespaces.as_ref())
    }
}

/// Queued consumers in order.
#[derive(Clone)]
pub struct Queue {
    providers: Arc<[ObjectKey]>,
    /// Whether the queue is for verifications, which do not need a usable provider.
    verifying: bool,
    queue: BTreeSet<Rank>,
}

impl Queue {
    /// Returns an empty queue for these providers (sorted).
    pub fn new(providers: Vec<ObjectKey>, verifying: bool) -> Self {
        Self { providers: providers.into(), verifying, queue: BTreeSet::new() }
    }

    /// Whether the queue is for verifications.
    pub fn is_verifying(&self) -> bool {
        self.verifying
    }

    /// Returns the providers that match all consumers in this queue, sorted.
    pub fn providers(&self) -> &Arc<[ObjectKey]> {
        &self.providers
    }

    /// Returns the first consumer.
    pub fn head(&self) -> Option<&Rank> {
        self.queue.first()
    }

    /// Returns all consumers.
    pub fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.queue.iter().map(|rank| &rank.key)
    }

    /// Returns the position in the queue from 1, for the first few.
    pub fn position(&self, rank: &Rank) -> Option<usize> {
        self.queue.iter().take(POSITIONS_SHOWN).position(|other| other == rank).map(|ahead| ahead + 1)
    }

    /// Adds a consumer. `touched` gets those whose position changes.
    pub fn insert(&mut self, rank: Rank, touched: &mut BTreeSet<ObjectKey>) {
        self.queue.insert(rank.clone());
        self.touch_from(&rank, touched);
    }

    /// Removes a consumer. `touched` gets those whose position changes.
    pub fn remove(&mut self, rank: &Rank, touched: &mut BTreeSet<ObjectKey>) {
        self.touch_from(rank, touched);
        self.queue.remove(rank);
    }

    /// Touches those at `rank` or behind it whose position is shown, and the first one whose position no longer is.
    fn touch_from(&self, rank: &Rank, touched: &mut BTreeSet<ObjectKey>) {
        let shown = self.queue.iter().take(POSITIONS_SHOWN + 1);
        touched.extend(shown.filter(|other| *other >= rank).map(|other| other.key.clone()));
    }
}
