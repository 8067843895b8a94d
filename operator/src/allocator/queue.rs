//! One queue: waiters that fit the same providers.

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};

use chrono::{DateTime, Utc};

use crate::{
    model::{ObjectKey, Uid},
    state::Tags,
};

/// How many waiters of a line are told their place.
pub const POSITIONS_SHOWN: usize = 10;

/// What decides which providers fit a waiter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirements {
    /// Namespace of the consumer.
    pub namespace: Arc<str>,
    /// Tags, any one of which must match; absent: any provider.
    pub tags: Option<Tags>,
    /// UID of the provider that it verifies: that one and no other, whatever tags and namespaces say.
    pub verifies: Option<Uid>,
}

/// Order in a line: fields in the order of their weight.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Higher first.
    pub priority: Reverse<i32>,
    /// Creation time of the Mask (of the consumer where it was made by hand): older first.
    pub created: DateTime<Utc>,
    /// Name (then namespace) of the consumer.
    pub name: Arc<str>,
    /// The consumer.
    pub key: ObjectKey,
    /// UID of the consumer.
    pub uid: Uid,
}

/// Waiters in order.
#[derive(Clone)]
pub struct Queue {
    providers: Arc<[ObjectKey]>,
    /// For verifications, which need no provider that users may be assigned to.
    verifying: bool,
    queue: BTreeSet<Rank>,
}

impl Queue {
    /// An empty line for these providers (sorted).
    pub fn new(providers: Vec<ObjectKey>, verifying: bool) -> Self {
        Self { providers: providers.into(), verifying, queue: BTreeSet::new() }
    }

    /// Whether it is a line of verifications.
    pub fn is_verifying(&self) -> bool {
        self.verifying
    }

    /// The providers that fit everyone in this line, sorted.
    pub fn providers(&self) -> &Arc<[ObjectKey]> {
        &self.providers
    }

    /// First in line.
    pub fn head(&self) -> Option<&Rank> {
        self.queue.first()
    }

    /// Everyone in line.
    pub fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.queue.iter().map(|rank| &rank.key)
    }

    /// Place in line from 1, for the first few.
    pub fn place(&self, rank: &Rank) -> Option<usize> {
        self.queue.iter().take(POSITIONS_SHOWN).position(|other| other == rank).map(|ahead| ahead + 1)
    }

    /// Adds a waiter; `touched` gets those whose place this changes.
    pub fn insert(&mut self, rank: Rank, touched: &mut BTreeSet<ObjectKey>) {
        self.queue.insert(rank.clone());
        self.touch_from(&rank, touched);
    }

    /// Removes a waiter; `touched` gets those whose place this changes.
    pub fn remove(&mut self, rank: &Rank, touched: &mut BTreeSet<ObjectKey>) {
        self.touch_from(rank, touched);
        self.queue.remove(rank);
    }

    /// Those at `rank` or behind it whose place is told, and the first whose place no longer is.
    fn touch_from(&self, rank: &Rank, touched: &mut BTreeSet<ObjectKey>) {
        let shown = self.queue.iter().take(POSITIONS_SHOWN + 1);
        touched.extend(shown.filter(|other| *other >= rank).map(|other| other.key.clone()));
    }
}
