//! Whether slots of a MaskProvider can be assigned, and the reason if not.

use vpn_types::{MaskProviderPhase, Reason};

use crate::{
    controllers::{ready::ReadyCondition, verification},
    state::{ClusterState, CredentialsState, ProviderView},
};

/// Evaluates the gates of a provider in order, and returns the condition of the first one that fails. Returns `None`
/// while the Secret is unknown. `unverified` is the gate of the verification.
pub fn evaluate(
    state: &ClusterState,
    provider: &ProviderView,
    unverified: Option<&ReadyCondition<MaskProviderPhase>>,
) -> Option<ReadyCondition<MaskProviderPhase>> {
    use MaskProviderPhase::{Active, ErrSecretNotFound, Pending, Ready, Terminating};
    let used = state.slots_used(&provider.meta.key);
    if provider.meta.deleting {
        let message = format!("The MaskProvider is being deleted; slots still to be released: {used}");
        return Some(ReadyCondition::not_ready(Terminating, Reason::Deleting, message));
    }
    if let Some(why) = &provider.invalid {
        return Some(ReadyCondition::not_ready(Pending, Reason::InvalidSpec, &**why));
    }
    match &state.account_credentials(provider) {
        CredentialsState::Unknown => return None,
        CredentialsState::Missing => {
            let message =
                format!("Secret {} does not exist in namespace {}", provider.secret, provider.meta.key.namespace);
            return Some(ReadyCondition::not_ready(ErrSecretNotFound, Reason::SecretNotFound, message));
        }
        CredentialsState::Unreadable(why) => {
            let message = format!("Secret {} cannot be read: {why}", provider.secret);
            return Some(ReadyCondition::not_ready(Pending, Reason::Forbidden, message));
        }
        CredentialsState::Present(_) => {}
    }
    if is_draining(state, provider) {
        let message = format!("spec.maxSlots is {}; slots beyond it are being released", provider.max_slots);
        return Some(ReadyCondition::not_ready(Active, Reason::ProviderDraining, message));
    }
    if provider.max_slots == 0 {
        return Some(ReadyCondition::not_ready(
            Pending,
            Reason::NoSlots,
            "spec.maxSlots is 0, so no slot can be assigned",
        ));
    }
    if let Some((count, why)) = withheld(state, provider)
        && count >= provider.max_slots
    {
        return Some(ReadyCondition::not_ready(ErrSecretNotFound, Reason::SecretNotFound, why));
    }
    if let Some(gate) = unverified {
        return Some(gate.clone());
    }
    let phase = if used == 0 { Ready } else { Active };
    let mut message = format!("{used} of {} slots are taken", provider.max_slots);
    let slot_problems = slot_problems(state, provider);
    for (_, problem) in &slot_problems {
        message += &format!(". {problem}");
    }
    if !slot_problems.is_empty() {
        message.push('.');
    }
    Some(ReadyCondition::ready(phase, Reason::Available, message))
}

/// Returns the problems of single slots of a usable provider.
pub fn slot_problems(state: &ClusterState, provider: &ProviderView) -> Vec<(Reason, String)> {
    let withheld = withheld(state, provider).map(|(_, why)| (Reason::SecretNotFound, why));
    // A MaskReservation that was not created by the operator blocks the slot of that name too.
    let mut foreign = state.reservations_on(&provider.meta.key).filter(|(_, other)| other.provider_uid.is_none());
    let foreign = foreign.next().map(|(_, other)| {
        let name = &other.meta.key.name;
        (
            Reason::SlotBlocked,
            format!("MaskReservation {name} was not created by the operator and blocks its slot; delete it"),
        )
    });
    withheld.into_iter().chain(foreign).collect()
}

/// Returns how many slots cannot be assigned because their own Secret is missing, and a message about the first one.
pub fn withheld(state: &ClusterState, provider: &ProviderView) -> Option<(u32, String)> {
    let mut withheld = state.withheld(provider);
    let (slot, secret, source) = withheld.next()?;
    let why = match source {
        CredentialsState::Unreadable(why) => format!("cannot be read: {why}"),
        _ => format!("does not exist in namespace {}", provider.meta.key.namespace),
    };
    let more = withheld.count();
    let others = if more == 0 { String::new() } else { format!(" (and {more} more)") };
    Some((1 + more as u32, format!("Slot {slot}{others} cannot be assigned: Secret {secret} {why}")))
}

/// Whether a slot beyond `maxSlots` is held.
pub fn is_draining(state: &ClusterState, provider: &ProviderView) -> bool {
    let mut ours = state.reservations_on(&provider.meta.key).rev().filter(|(_, one)| one.provider_uid.is_some());
    ours.next().is_some_and(|(slot, _)| slot >= provider.max_slots)
}

/// Returns the message for waiting consumers about why a provider cannot be used.
pub fn why_not_usable(state: &ClusterState, provider: &ProviderView) -> String {
    match evaluate(state, provider, None) {
        Some(condition) if !condition.ready => condition.message,
        // The message of its `Verified` condition.
        Some(_) if !verification::admits_users(state, provider) => match &provider.verified.condition {
            Some(condition) if condition.passed != Some(true) => condition.message.to_string(),
            _ => "The credentials have not been verified yet".to_owned(),
        },
        Some(_) | None => "Not reconciled yet".to_owned(),
    }
}

/// Whether a status that is not usable, or absent, is about to become usable or to get its first `Ready` condition.
pub fn is_about_to_change(state: &ClusterState, provider: &ProviderView) -> bool {
    !provider.meta.deleting
        && (provider.status.phase.is_none()
            || evaluate(state, provider, None).is_none_or(|condition| {
                condition.ready && !provider.is_usable() && verification::admits_users(state, provider)
            }))
}
