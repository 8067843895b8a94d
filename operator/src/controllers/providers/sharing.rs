//! Tells where one account, or one device, is declared twice. Each MaskProvider counts its own slots, so together they
//! can go over the limit while every object looks right.

use vpn_types::Reason;

use super::event::event;
use crate::{
    model::{EventRecord, ObjectKey},
    state::{ClusterState, ProviderView, SharedWith},
};

/// What the `SharedCredentials` condition says; absent when there is nothing to say.
pub fn shared_credentials(state: &ClusterState, provider: &ProviderView) -> Option<String> {
    // While some Secret has not been told yet, what was found out before stays.
    if let Some(said) = &provider.shared
        && !state.logins.is_complete()
    {
        return Some(said.message.to_string());
    }
    let key = &provider.meta.key;
    let providers = state.logins.shared_with(key).map(|other| {
        let other = match other {
            SharedWith::Neighbor(name) => format!("MaskProvider {name}"),
            SharedWith::Elsewhere => "A MaskProvider in another namespace".to_owned(),
        };
        format!(
            "{other} has the same credentials. Each MaskProvider counts its own slots, so together they can exceed the \
             device limit of the account. Keep one MaskProvider for each account."
        )
    });
    let slots = slots_with_one_key(state, provider);
    match (providers, slots) {
        (Some(providers), Some(slots)) => Some(format!("{providers} {slots}")),
        (providers, slots) => providers.or(slots),
    }
}

/// The Event when the condition is new or says something else.
pub fn news(provider: &ProviderView, message: Option<&String>) -> Option<EventRecord> {
    let message = message?;
    let is_new = provider.shared.as_ref().is_none_or(|said| *said.message != **message);
    is_new.then(|| event(provider, true, Reason::SharedCredentials, "Judge", message.clone()))
}

/// Which slots of a provider have the same WireGuard key, if some have.
fn slots_with_one_key(state: &ClusterState, provider: &ProviderView) -> Option<String> {
    const SHOWN: usize = 3;
    let logins = state.logins.of(&provider.meta.key)?;
    let key_of = |slot: u32| {
        let login = logins.own.get(&slot).unwrap_or(&logins.common).as_ref();
        login.filter(|login| login.is_device).map(|login| login.fingerprint)
    };
    // The lowest slot that has the key of another one: that is one with a Secret of its own, or the first without.
    let without = (0..provider.max_slots).find(|slot| !logins.own.contains_key(slot));
    let mut first = logins.own.keys().copied().chain(without).collect::<Vec<_>>();
    first.sort_unstable();
    first.into_iter().find_map(|slot| {
        let key = key_of(slot)?;
        let own = logins.own.keys().filter(|other| key_of(**other) == Some(key)).count();
        let is_common = logins.common.as_ref().is_some_and(|login| login.fingerprint == key);
        let common = if is_common { provider.max_slots as usize - logins.own.len() } else { 0 };
        let count = own + common;
        if count < 2 {
            return None;
        }
        let slots = (slot..provider.max_slots).filter(|slot| key_of(*slot) == Some(key)).take(count.min(SHOWN));
        let mut named: Vec<_> = slots.map(|slot| slot.to_string()).collect();
        let last = if count > SHOWN { format!("{} more", count - SHOWN) } else { named.pop()? };
        Some(format!(
            "Slots {} and {last} have the same WireGuard private key. One key is one device, so the operator assigns \
             only one of these slots at a time. Give each slot its own key (spec.slots).",
            named.join(", ")
        ))
    })
}

/// The providers that have to be looked at once nothing is unknown any more.
pub fn with_condition(state: &ClusterState) -> impl Iterator<Item = ObjectKey> {
    let told = state.providers.values().filter(|provider| provider.shared.is_some());
    told.map(|provider| provider.meta.key.clone())
}
