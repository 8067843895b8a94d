//! The watches on credentials Secrets: one for each Secret that a MaskProvider references.

use std::collections::{BTreeSet, HashMap};

use crate::{
    model::{Effect, ObjectKey},
    state::ProviderView,
};

/// The watches on credentials Secrets.
#[derive(Clone, Default)]
pub struct SecretWatches {
    /// The providers that reference a Secret, by Secret.
    providers: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// Watches to start or stop.
    pub effects: Vec<Effect>,
}

impl SecretWatches {
    /// Returns the providers that reference a Secret, if there are any.
    pub fn providers_of(&self, secret: &ObjectKey) -> Option<Vec<ObjectKey>> {
        Some(self.providers.get(secret)?.iter().cloned().collect())
    }

    /// Handles a change of a provider. Returns the Secrets that are no longer watched.
    pub fn provider_changed(
        &mut self,
        provider: &ObjectKey,
        before: Option<&ProviderView>,
        now: Option<&ProviderView>,
    ) -> Vec<ObjectKey> {
        let secrets = |view: Option<&ProviderView>| view.map(ProviderView::secret_keys).unwrap_or_default();
        let (unwanted, wanted) = (secrets(before), secrets(now));
        let stopped = unwanted.difference(&wanted).filter(|secret| self.unwatch(provider, secret)).cloned().collect();
        wanted.into_iter().for_each(|secret| self.watch(provider, secret));
        stopped
    }

    fn watch(&mut self, provider: &ObjectKey, secret: ObjectKey) {
        let providers = self.providers.entry(secret.clone()).or_default();
        if providers.is_empty() {
            self.effects.push(Effect::WatchSecret(secret));
        }
        providers.insert(provider.clone());
    }

    /// Returns true if no other provider references the Secret.
    fn unwatch(&mut self, provider: &ObjectKey, secret: &ObjectKey) -> bool {
        let Some(providers) = self.providers.get_mut(secret) else { return false };
        let is_last = providers.remove(provider) && providers.is_empty();
        if is_last {
            self.providers.remove(secret);
            self.effects.push(Effect::UnwatchSecret(secret.clone()));
        }
        is_last
    }
}
