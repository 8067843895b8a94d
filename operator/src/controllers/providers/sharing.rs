//! Detects accounts and devices that are declared twice. Each MaskProvider counts only its own slots, so together they
//! can exceed the device limit although each object is correct.

use vpn_types::Reason;

use super::event::event;
use crate::{
    model::{EventRecord, ObjectKey},
    state::{ClusterState, ProviderView, SharedWith},
};

/// Returns the message of the `SharedCredentials` condition, or `None` if credentials are not shared.
pub fn shared_credentials(state: &ClusterState, provider: &ProviderView) -> Option<String> {
    // Until all Secrets are known, the stored condition stays.
    if let Some(stored) = &provider.shared
        && !state.logins.is_complete()
    {
        return Some(stored.message.to_string());
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

/// Returns the Event when the condition is new or its message has changed.
pub fn change_event(provider: &ProviderView, message: Option<&String>) -> Option<EventRecord> {
    let message = message?;
    let is_new = provider.shared.as_ref().is_none_or(|stored| *stored.message != **message);
    is_new.then(|| event(provider, true, Reason::SharedCredentials, "Evaluate", message.clone()))
}

/// Returns a message about the slots of a provider that have the same WireGuard key, if there are any.
fn slots_with_one_key(state: &ClusterState, provider: &ProviderView) -> Option<String> {
    const SHOWN: usize = 3;
    let logins = state.logins.of(&provider.meta.key)?;
    let key_of = |slot: u32| {
        let login = logins.own.get(&slot).unwrap_or(&logins.common).as_ref();
        login.filter(|login| login.is_device).map(|login| login.fingerprint)
    };
    // The lowest slot that shares its key has its own Secret, or is the first slot without one.
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

/// Returns the providers to reconcile once all Secrets are known.
pub fn providers_with_condition(state: &ClusterState) -> impl Iterator<Item = ObjectKey> {
    let shared = state.providers.values().filter(|provider| provider.shared.is_some());
    shared.map(|provider| provider.meta.key.clone())
}
