//! The watches on Secrets of users: one for each Secret that a MaskProvider or an OpenVPNServer references.

use std::collections::{BTreeSet, HashMap};

use crate::{
    model::{Effect, ObjectKey},
    state::{ProviderView, ServerView},
};

/// What references a Secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretUser {
    /// A MaskProvider, for its credentials or those of a slot.
    Provider(ObjectKey),
    /// An OpenVPNServer, for its keystore.
    Server(ObjectKey),
}

/// The watches on Secrets of users.
#[derive(Clone, Default)]
pub struct SecretWatches {
    /// What references a Secret, by Secret.
    users: HashMap<ObjectKey, BTreeSet<SecretUser>>,
    /// Watches to start or stop.
    pub effects: Vec<Effect>,
}

impl SecretWatches {
    /// Returns what references a Secret, if anything does.
    pub fn users_of(&self, secret: &ObjectKey) -> Option<Vec<SecretUser>> {
        Some(self.users.get(secret)?.iter().cloned().collect())
    }

    /// Handles a change of a provider. Returns the Secrets that are no longer watched.
    pub fn provider_changed(
        &mut self,
        provider: &ObjectKey,
        before: Option<&ProviderView>,
        now: Option<&ProviderView>,
    ) -> Vec<ObjectKey> {
        let secrets = |view: Option<&ProviderView>| view.map(ProviderView::secret_keys).unwrap_or_default();
        self.changed(&SecretUser::Provider(provider.clone()), &secrets(before), secrets(now))
    }

    /// Handles a change of a server. Returns the Secrets that are no longer watched.
    pub fn server_changed(
        &mut self,
        server: &ObjectKey,
        before: Option<&ServerView>,
        now: Option<&ServerView>,
    ) -> Vec<ObjectKey> {
        let secrets = |view: Option<&ServerView>| view.and_then(ServerView::keystore_key).into_iter().collect();
        self.changed(&SecretUser::Server(server.clone()), &secrets(before), secrets(now))
    }

    fn changed(
        &mut self,
        user: &SecretUser,
        unwanted: &BTreeSet<ObjectKey>,
        wanted: BTreeSet<ObjectKey>,
    ) -> Vec<ObjectKey> {
        let stopped = unwanted.difference(&wanted).filter(|secret| self.unwatch(user, secret)).cloned().collect();
        wanted.into_iter().for_each(|secret| self.watch(user, secret));
        stopped
    }

    fn watch(&mut self, user: &SecretUser, secret: ObjectKey) {
        let users = self.users.entry(secret.clone()).or_default();
        if users.is_empty() {
            self.effects.push(Effect::WatchSecret(secret));
        }
        users.insert(user.clone());
    }

    /// Returns true if nothing else references the Secret.
    fn unwatch(&mut self, user: &SecretUser, secret: &ObjectKey) -> bool {
        let Some(users) = self.users.get_mut(secret) else { return false };
        let is_last = users.remove(user) && users.is_empty();
        if is_last {
            self.users.remove(secret);
            self.effects.push(Effect::UnwatchSecret(secret.clone()));
        }
        is_last
    }
}
