//! The credentials of a slot: the Secret of the provider, merged with the Secret of the slot if there is one.

use std::{collections::BTreeSet, sync::Arc};

use super::{ClusterState, CredentialsState, CredentialsView, ProviderView, project::combined};
use crate::model::ObjectKey;

impl ProviderView {
    /// Returns the key of the credentials Secret.
    pub fn secret_key(&self) -> ObjectKey {
        self.key_beside(&self.secret)
    }

    /// Returns the keys of all Secrets that its slots use.
    pub fn secret_keys(&self) -> BTreeSet<ObjectKey> {
        let own = self.slot_secrets.iter().flatten().map(|name| self.key_beside(name));
        own.chain([self.secret_key()]).collect()
    }

    /// Returns the name of the Secret of a slot, if the slot has its own.
    pub fn slot_secret(&self, slot: u32) -> Option<&Arc<str>> {
        self.slot_secrets.get(slot as usize)?.as_ref()
    }

    /// Returns the slots that have their own Secret, with its name.
    pub fn own_secrets(&self) -> impl Iterator<Item = (u32, &Arc<str>)> {
        let slots = (0..self.max_slots).zip(self.slot_secrets.iter());
        slots.filter_map(|(slot, name)| Some((slot, name.as_ref()?)))
    }

    pub(super) fn key_beside(&self, name: &Arc<str>) -> ObjectKey {
        ObjectKey { namespace: self.meta.key.namespace.clone(), name: name.clone() }
    }
}

impl ClusterState {
    /// Returns the credentials for the consumer of a slot.
    pub fn slot_credentials(&self, provider: &ProviderView, slot: u32) -> CredentialsState {
        let common = self.credentials_secret(&provider.secret_key());
        let (CredentialsState::Present(common), Some(own)) = (common, provider.slot_secret(slot)) else {
            return common.clone();
        };
        match self.credentials_secret(&provider.key_beside(own)) {
            CredentialsState::Present(own) => {
                let mut data = (*common.data).clone();
                data.extend((*own.data).clone());
                CredentialsState::Present(CredentialsView {
                    data: Arc::new(data),
                    hash: combined([&*common.hash, &own.hash]),
                    version: combined([&*common.version, &own.version]),
                    data_since: combined([&*common.data_since, &own.data_since]),
                })
            }
            other => other.clone(),
        }
    }

    /// Returns the combined state of all Secrets of a provider, to detect a change of any of them. The data is that of
    /// the Secret of the provider. Secrets of slots may be missing.
    pub fn account_credentials(&self, provider: &ProviderView) -> CredentialsState {
        let common = self.credentials_secret(&provider.secret_key());
        let CredentialsState::Present(credentials) = common else { return common.clone() };
        if provider.slot_secrets.iter().all(Option::is_none) {
            return common.clone();
        }
        let own =
            || provider.slot_secrets.iter().flatten().map(|name| self.credentials_secret(&provider.key_beside(name)));
        if own().any(|secret| matches!(secret, CredentialsState::Unknown)) {
            return CredentialsState::Unknown;
        }
        let all = |part: fn(&CredentialsView) -> &Arc<str>| {
            let own =
                own().map(|source| if let CredentialsState::Present(source) = source { part(source) } else { "" });
            combined([&**part(credentials)].into_iter().chain(own))
        };
        CredentialsState::Present(CredentialsView {
            data: credentials.data.clone(),
            hash: all(|credentials| &credentials.hash),
            version: all(|credentials| &credentials.version),
            data_since: all(|credentials| &credentials.data_since),
        })
    }

    /// Returns the slots that cannot be assigned because their own Secret is missing, and its name and state.
    pub fn withheld<'a>(
        &'a self,
        provider: &'a ProviderView,
    ) -> impl Iterator<Item = (u32, &'a Arc<str>, &'a CredentialsState)> {
        provider.own_secrets().filter_map(|(slot, name)| {
            let source = self.credentials_secret(&provider.key_beside(name));
            (!matches!(source, CredentialsState::Present(_))).then_some((slot, name, source))
        })
    }
}
