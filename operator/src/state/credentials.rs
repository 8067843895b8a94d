//! The credentials of a slot: the Secret of the provider, with that of the slot laid over it where it has one.

use std::{collections::BTreeSet, sync::Arc};

use super::{ClusterState, ProviderView, Source, SourceView, project::combined};
use crate::model::ObjectKey;

impl ProviderView {
    /// The key of the credentials Secret.
    pub fn secret_key(&self) -> ObjectKey {
        self.key_beside(&self.secret)
    }

    /// The keys of all Secrets that its slots are made of.
    pub fn secret_keys(&self) -> BTreeSet<ObjectKey> {
        let own = self.slot_secrets.iter().flatten().map(|name| self.key_beside(name));
        own.chain([self.secret_key()]).collect()
    }

    /// Name of the Secret of one slot, if it has one of its own.
    pub fn slot_secret(&self, slot: u32) -> Option<&Arc<str>> {
        self.slot_secrets.get(slot as usize)?.as_ref()
    }

    /// The slots that have a Secret of their own, with its name.
    pub fn own_secrets(&self) -> impl Iterator<Item = (u32, &Arc<str>)> {
        let slots = (0..self.max_slots).zip(self.slot_secrets.iter());
        slots.filter_map(|(slot, name)| Some((slot, name.as_ref()?)))
    }

    pub(super) fn key_beside(&self, name: &Arc<str>) -> ObjectKey {
        ObjectKey { namespace: self.meta.key.namespace.clone(), name: name.clone() }
    }
}

impl ClusterState {
    /// What the consumer in that slot gets.
    pub fn credentials(&self, provider: &ProviderView, slot: u32) -> Source {
        let common = self.source(&provider.secret_key());
        let (Source::Present(common), Some(own)) = (common, provider.slot_secret(slot)) else { return common.clone() };
        match self.source(&provider.key_beside(own)) {
            Source::Present(own) => {
                let mut data = (*common.data).clone();
                data.extend((*own.data).clone());
                Source::Present(SourceView {
                    data: Arc::new(data),
                    hash: combined([&*common.hash, &own.hash]),
                    version: combined([&*common.version, &own.version]),
                    data_since: combined([&*common.data_since, &own.data_since]),
                })
            }
            other => other.clone(),
        }
    }

    /// All Secrets of a provider as one, to tell whether any has changed: its data is what all slots have in common.
    /// Secrets of slots may be missing.
    pub fn account(&self, provider: &ProviderView) -> Source {
        let common = self.source(&provider.secret_key());
        let Source::Present(source) = common else { return common.clone() };
        if provider.slot_secrets.iter().all(Option::is_none) {
            return common.clone();
        }
        let own = || provider.slot_secrets.iter().flatten().map(|name| self.source(&provider.key_beside(name)));
        if own().any(|source| matches!(source, Source::Unknown)) {
            return Source::Unknown;
        }
        let all = |part: fn(&SourceView) -> &Arc<str>| {
            let own = own().map(|source| if let Source::Present(source) = source { part(source) } else { "" });
            combined([&**part(source)].into_iter().chain(own))
        };
        Source::Present(SourceView {
            data: source.data.clone(),
            hash: all(|source| &source.hash),
            version: all(|source| &source.version),
            data_since: all(|source| &source.data_since),
        })
    }

    /// The slots that cannot be handed out because their own Secret is not there, each with its name and what is known of it.
    pub fn withheld<'a>(&'a self, provider: &'a ProviderView) -> impl Iterator<Item = (u32, &'a Arc<str>, &'a Source)> {
        provider.own_secrets().filter_map(|(slot, name)| {
            let source = self.source(&provider.key_beside(name));
            (!matches!(source, Source::Present(_))).then_some((slot, name, source))
        })
    }
}
