//! The releases in progress in each namespace: which of them a Pod affects, and which wait for a list of its Pods.
//!
//! Invariant: a list serves only releases whose copied Secret was gone before the list was requested. It serves all of
//! them at once, and the API server gets a pause before the next one: when a thousand Masks are deleted together, they
//! share a few lists.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use crate::{
    model::{Now, ObjectKey, Uid},
    state::PodView,
};

/// How much longer than a list the pause after it is. Each list reads all Pods of the namespace.
const PAUSE: u32 = 3;
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// The releases in progress, by namespace.
#[derive(Clone, Default)]
pub struct Followers(HashMap<Arc<str>, Namespace>);

#[derive(Clone, Default)]
struct Namespace {
    /// The Secrets and Pods of each release, by UID of its consumer.
    releases: HashMap<Uid, Followed>,
    /// UIDs of the consumers by the name of their copied Secret.
    by_secret: HashMap<Arc<str>, BTreeSet<Uid>>,
    /// UIDs of the consumers by the UID of a Pod that uses them.
    by_user: HashMap<Uid, BTreeSet<Uid>>,
    /// Consumers that wait for a list that has not been requested yet.
    wanted: BTreeSet<ObjectKey>,
    /// Consumers that the list in flight serves.
    in_flight: BTreeSet<ObjectKey>,
    /// When (monotonic) the last list was requested.
    requested: Duration,
    /// When (monotonic) the next one may be requested.
    next: Duration,
}

#[derive(Clone, Default)]
struct Followed {
    secrets: BTreeSet<Arc<str>>,
    users: BTreeSet<Uid>,
}

impl Followers {
    /// Adds a release. Returns whether it is the first in its namespace, whose Pods have to be watched from now on.
    pub fn begin(&mut self, namespace: &Arc<str>, consumer: &Uid) -> bool {
        let namespace = self.0.entry(namespace.clone()).or_default();
        let first = namespace.releases.is_empty();
        namespace.releases.entry(consumer.clone()).or_default();
        first
    }

    /// Removes a release. Returns whether it was the last in its namespace.
    pub fn end(&mut self, key: &ObjectKey, consumer: &Uid) -> bool {
        let Some(namespace) = self.0.get_mut(&key.namespace) else { return false };
        let Some(followed) = namespace.releases.remove(consumer) else { return false };
        followed.secrets.iter().for_each(|secret| forget(&mut namespace.by_secret, secret, consumer));
        followed.users.iter().for_each(|user| forget(&mut namespace.by_user, user, consumer));
        namespace.wanted.remove(key);
        namespace.in_flight.remove(key);
        let last = namespace.releases.is_empty();
        if last {
            self.0.remove(&key.namespace);
        }
        last
    }

    /// Adds Secrets and Pods to a release.
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

    /// Returns the UIDs of the consumers whose release a Pod affects.
    pub fn affected(&self, namespace: &str, pod: &PodView) -> BTreeSet<Uid> {
        let Some(namespace) = self.0.get(namespace) else { return BTreeSet::new() };
        let owners = pod.consumers.iter().filter(|uid| namespace.releases.contains_key(*uid));
        let readers = pod.secrets.iter().filter_map(|secret| namespace.by_secret.get(secret)).flatten();
        let users = namespace.by_user.get(&pod.meta.uid).into_iter().flatten();
        owners.chain(readers).chain(users).cloned().collect()
    }

    /// Returns the UIDs of all consumers that are being released in a namespace.
    pub fn all(&self, namespace: &str) -> impl Iterator<Item = &Uid> {
        self.0.get(namespace).into_iter().flat_map(|namespace| namespace.releases.keys())
    }

    /// Notes that a release needs a list of the Pods that is requested from now on.
    pub fn want_list(&mut self, key: &ObjectKey) {
        let Some(namespace) = self.0.get_mut(&key.namespace) else { return };
        if !namespace.in_flight.contains(key) {
            namespace.wanted.insert(key.clone());
        }
    }

    /// Whether a release waits for a list that has not been requested yet.
    pub fn wants_list(&self, namespace: &str) -> bool {
        self.0.get(namespace).is_some_and(|namespace| !namespace.wanted.is_empty())
    }

    /// Requests the list that releases wait for, or returns the time (monotonic) of the next one.
    pub fn request_list(&mut self, namespace: &str, now: Now) -> Result<(), Duration> {
        let Some(namespace) = self.0.get_mut(namespace) else { return Ok(()) };
        if now.monotonic < namespace.next {
            return Err(namespace.next);
        }
        namespace.requested = now.monotonic;
        namespace.in_flight.append(&mut namespace.wanted);
        Ok(())
    }

    /// Notes that the list has arrived, and returns the consumers that it serves.
    pub fn list_answered(&mut self, namespace: &str, now: Now) -> BTreeSet<ObjectKey> {
        let Some(namespace) = self.0.get_mut(namespace) else { return BTreeSet::new() };
        let took = now.monotonic.saturating_sub(namespace.requested);
        namespace.next = now.monotonic + (took * PAUSE).min(MAX_PAUSE);
        std::mem::take(&mut namespace.in_flight)
    }

    /// Notes that the list failed, and returns the consumers that keep waiting.
    pub fn list_failed(&mut self, namespace: &str, now: Now) -> BTreeSet<ObjectKey> {
        let waiting = self.list_answered(namespace, now);
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
    fn a_list_serves_only_releases_that_wanted_it_before_it_was_requested() {
        let at = |millis| Now { monotonic: Duration::from_millis(millis), ..Now::default() };
        let mut followers = Followers::default();
        let (one, two) = (ObjectKey::new("ns", "one"), ObjectKey::new("ns", "two"));
        assert!(followers.begin(&one.namespace, &Uid::from("1")));
        assert!(!followers.begin(&two.namespace, &Uid::from("2")));
        followers.want_list(&one);
        assert_eq!(followers.request_list("ns", at(1000)), Ok(()));
        followers.want_list(&two);
        assert_eq!(followers.list_answered("ns", at(1100)), [one.clone()].into());
        assert!(followers.wants_list("ns"));
        assert_eq!(followers.request_list("ns", at(1399)), Err(Duration::from_millis(1400)));
        assert_eq!(followers.request_list("ns", at(1400)), Ok(()));
        assert_eq!(followers.list_failed("ns", at(1500)), [two.clone()].into());
        assert!(followers.wants_list("ns"));
        assert!(!followers.end(&one, &Uid::from("1")));
        assert!(followers.end(&two, &Uid::from("2")));
        assert!(!followers.wants_list("ns"));
    }
}
