//! The releases under way in each namespace: which of them a Pod concerns, and which wait for a list of its Pods.
//!
//! Invariant: a list serves only releases whose copied Secret was gone before the list was asked for. It serves all of
//! them at once: of a thousand Masks that are deleted together each one costs a part of a list, not a whole one.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    model::{ObjectKey, Uid},
    state::PodView,
};

/// The releases under way, by namespace.
#[derive(Clone, Default)]
pub struct Followers(HashMap<Arc<str>, Namespace>);

#[derive(Clone, Default)]
struct Namespace {
    /// What each release follows, by UID of its consumer.
    releases: HashMap<Uid, Followed>,
    /// UID of the consumer whose copied Secret had that name.
    by_secret: HashMap<Arc<str>, BTreeSet<Uid>>,
    /// UIDs of the consumers that a Pod (UID) uses.
    by_user: HashMap<Uid, BTreeSet<Uid>>,
    /// Who waits for a list that has not been asked for yet.
    wanted: BTreeSet<ObjectKey>,
    /// Whom the list serves that is under way.
    under_way: BTreeSet<ObjectKey>,
}

#[derive(Clone, Default)]
struct Followed {
    secrets: BTreeSet<Arc<str>>,
    users: BTreeSet<Uid>,
}

impl Followers {
    /// A release begins. True when it is the first in its namespace, whose Pods have to be watched from now on.
    pub fn begin(&mut self, namespace: &Arc<str>, consumer: &Uid) -> bool {
        let namespace = self.0.entry(namespace.clone()).or_default();
        let first = namespace.releases.is_empty();
        namespace.releases.entry(consumer.clone()).or_default();
        first
    }

    /// A release is over. True when it was the last in its namespace.
    pub fn end(&mut self, key: &ObjectKey, consumer: &Uid) -> bool {
        let Some(namespace) = self.0.get_mut(&key.namespace) else { return false };
        let Some(followed) = namespace.releases.remove(consumer) else { return false };
        followed.secrets.iter().for_each(|secret| forget(&mut namespace.by_secret, secret, consumer));
        followed.users.iter().for_each(|user| forget(&mut namespace.by_user, user, consumer));
        namespace.wanted.remove(key);
        namespace.under_way.remove(key);
        let last = namespace.releases.is_empty();
        if last {
            self.0.remove(&key.namespace);
        }
        last
    }

    /// Notes by what a Pod concerns a release.
    pub fn follow<'a>(
        &mut self,
        namespace: &Arc<str>,
        consumer: &Uid,
        secrets: impl IntoIterator<Item = &'a Arc<str>>,
        users: impl IntoIterator<Item = &'a Uid>,
    ) {
        let Some(namespace) = self.0.get_mut(namespace) else { return };
        let Some(followed) = namespace.releases.get_mut(consumer) else { return };
        for secret in secrets {
            if followed.secrets.insert(secret.clone()) {
                namespace.by_secret.entry(secret.clone()).or_default().insert(consumer.clone());
            }
        }
        for user in users {
            if followed.users.insert(user.clone()) {
                namespace.by_user.entry(user.clone()).or_default().insert(consumer.clone());
            }
        }
    }

    /// UIDs of the consumers whose release a Pod concerns.
    pub fn concerned(&self, namespace: &str, pod: &PodView) -> BTreeSet<Uid> {
        let Some(namespace) = self.0.get(namespace) else { return BTreeSet::new() };
        let owners = pod.consumers.iter().filter(|uid| namespace.releases.contains_key(*uid));
        let readers = pod.secrets.iter().filter_map(|secret| namespace.by_secret.get(secret)).flatten();
        let users = namespace.by_user.get(&pod.meta.uid).into_iter().flatten();
        owners.chain(readers).chain(users).cloned().collect()
    }

    /// UIDs of all consumers that are being released in a namespace.
    pub fn all(&self, namespace: &str) -> impl Iterator<Item = &Uid> {
        self.0.get(namespace).into_iter().flat_map(|namespace| namespace.releases.keys())
    }

    /// A release needs a list of the Pods, to be asked for from now on.
    pub fn want_list(&mut self, key: &ObjectKey) {
        let Some(namespace) = self.0.get_mut(&key.namespace) else { return };
        if !namespace.under_way.contains(key) {
            namespace.wanted.insert(key.clone());
        }
    }

    /// Whether somebody waits for a list that has not been asked for.
    pub fn wants_list(&self, namespace: &str) -> bool {
        self.0.get(namespace).is_some_and(|namespace| !namespace.wanted.is_empty())
    }

    /// A list is asked for now.
    pub fn list_sent(&mut self, namespace: &str) {
        if let Some(namespace) = self.0.get_mut(namespace) {
            namespace.under_way.append(&mut namespace.wanted);
        }
    }

    /// It is there: the consumers that it serves.
    pub fn list_answered(&mut self, namespace: &str) -> BTreeSet<ObjectKey> {
        self.0.get_mut(namespace).map(|namespace| std::mem::take(&mut namespace.under_way)).unwrap_or_default()
    }

    /// It could not be had: the consumers that go on waiting.
    pub fn list_failed(&mut self, namespace: &str) -> BTreeSet<ObjectKey> {
        let waiting = self.list_answered(namespace);
        if let Some(namespace) = self.0.get_mut(namespace) {
            namespace.wanted.extend(waiting.iter().cloned());
        }
        waiting
    }
}

fn forget<K: std::hash::Hash + Eq>(index: &mut HashMap<K, BTreeSet<Uid>>, key: &K, consumer: &Uid) {
    if let Some(consumers) = index.get_mut(key) {
        consumers.remove(consumer);
        if consumers.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_serves_those_who_wanted_it_before_it_was_asked_for() {
        let mut followers = Followers::default();
        let (one, two) = (ObjectKey::new("ns", "one"), ObjectKey::new("ns", "two"));
        assert!(followers.begin(&one.namespace, &Uid::from("1")));
        assert!(!followers.begin(&two.namespace, &Uid::from("2")));
        followers.want_list(&one);
        followers.list_sent("ns");
        followers.want_list(&two);
        assert_eq!(followers.list_answered("ns"), [one.clone()].into());
        assert!(followers.wants_list("ns"));
        followers.list_sent("ns");
        assert_eq!(followers.list_failed("ns"), [two.clone()].into());
        assert!(followers.wants_list("ns"));
        assert!(!followers.end(&one, &Uid::from("1")));
        assert!(followers.end(&two, &Uid::from("2")));
        assert!(!followers.wants_list("ns"));
    }
}
