//! The credentials Secrets that are watched, each by its name: those that MaskProviders name.

use std::collections::{BTreeSet, HashMap};

use crate::{
    model::{Effect, ObjectKey},
    state::ProviderView,
};

/// The credentials Secrets that are watched.
#[derive(Clone, Default)]
pub struct SecretWatches {
    /// By Secret, the providers that name it.
    providers: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// Watches to begin or end.
    pub effects: Vec<Effect>,
}

impl SecretWatches {
    /// The providers that name a Secret, if any does.
    pub fn providers_of(&self, secret: &ObjectKey) -> Option<Vec<ObjectKey>> {
        Some(self.providers.get(secret)?.iter().cloned().collect())
    }

    /// A provider changed. Returns the Secrets that are watched no more.
    pub fn provider_changed(
        &mut self,
        provider: &ObjectKey,
        before: Option<&ProviderView>,
        now: Option<&ProviderView>,
    ) -> Vec<ObjectKey> {
        let secrets = |view: Option<&ProviderView>| view.map(ProviderView::secret_keys).unwrap_or_default();
        let (unwanted, wanted) = (secrets(before), secrets(now));
        let ended = unwanted.difference(&wanted).filter(|secret| self.unwatch(provider, secret)).cloned().collect();
        wanted.into_iter().for_each(|secret| self.watch(provider, secret));
        ended
    }

    fn watch(&mut self, provider: &ObjectKey, secret: ObjectKey) {
        let providers = self.providers.entry(secret.clone()).or_default();
        if providers.is_empty() {
            self.effects.push(Effect::WatchSecret(secret));
        }
        providers.insert(provider.clone());
    }

    /// True when nobody else names it.
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
