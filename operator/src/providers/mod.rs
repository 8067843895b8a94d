//! Providers: tells whether slots of an account can be assigned, and holds the provider until all of them are back.
//!
//! Invariant: `status.observedGeneration` is the generation whose `maxSlots` is in force: it moves on only when no
//! slot beyond `maxSlots` is held. Nothing is assigned while it lags.

use std::{collections::HashMap, time::Duration};

use vpn_types::{MaskProviderPhase, Reason};

use crate::{
    engine::{Note, Now, Op, Step, add_finalizer, remove_finalizer, target},
    status::{self, Verdict},
    world::{Kind, ObjectKey, ProviderView, Source, Uid, World},
};

/// `status` is written at most once in this time for each provider.
pub const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// When (monotonic) each provider's status was last written, by UID.
pub type LastWrites = HashMap<Uid, Duration>;

/// The next step for the provider of that name.
pub fn decide(world: &World, writes: &mut LastWrites, key: &ObjectKey, now: Now) -> Step {
    let Some(provider) = world.providers.get(key) else { return Step::Idle };
    if provider.meta.deleting {
        let ours = |uid: &Option<Uid>| uid.as_ref() == Some(&provider.meta.uid);
        let held = world.reservations_on(key).any(|(_, reservation)| ours(&reservation.provider_uid));
        if !held {
            return remove_finalizer(Kind::Provider, &provider.meta).map_or(Step::Idle, Step::send);
        }
    } else if provider.meta.finalizer.is_none() {
        return Step::send(add_finalizer(Kind::Provider, &provider.meta));
    }
    let Some(verdict) = judge(world, provider) else { return Step::Idle };
    let used = world.slots_used(key);
    let observed =
        if is_draining(world, provider) { provider.status.observed_generation } else { Some(provider.meta.generation) };
    let patch = status::provider(&provider.meta, &provider.status, &verdict, used, observed, now.wall);
    let Some(patch) = patch else { return Step::Idle };
    if let Some(last) = writes.get(&provider.meta.uid)
        && *last + STATUS_INTERVAL > now.monotonic
    {
        return Step::WaitUntil(*last + STATUS_INTERVAL);
    }
    writes.insert(provider.meta.uid.clone(), now.monotonic);
    Step::tell(Op::PatchStatus(Kind::Provider, key.clone(), patch)).with_note(transition(provider, &verdict))
}

/// The state of a provider, from gates in order: the first that does not hold says why. `None`: not known yet.
fn judge(world: &World, provider: &ProviderView) -> Option<Verdict<MaskProviderPhase>> {
    use MaskProviderPhase::{Active, ErrSecretNotFound, Pending, Ready, Terminating};
    let used = world.slots_used(&provider.meta.key);
    if provider.meta.deleting {
        let message = format!("being deleted: {used} slots still have to be given back");
        return Some(Verdict::not_ready(Terminating, Reason::Deleting, message));
    }
    if let Some(why) = &provider.invalid {
        return Some(Verdict::not_ready(Pending, Reason::InvalidSpec, &**why));
    }
    match world.source(&provider.secret_key()) {
        Source::Unknown => return None,
        Source::Missing => {
            let message =
                format!("Secret {} does not exist in namespace {}", provider.secret, provider.meta.key.namespace);
            return Some(Verdict::not_ready(ErrSecretNotFound, Reason::SecretNotFound, message));
        }
        Source::Unreadable(why) => {
            let message = format!("Secret {} cannot be read: {why}", provider.secret);
            return Some(Verdict::not_ready(Pending, Reason::Forbidden, message));
        }
        Source::Present(_) => {}
    }
    if is_draining(world, provider) {
        let message = format!("maxSlots is {}: slots beyond it are being given back", provider.max_slots);
        return Some(Verdict::not_ready(Active, Reason::ProviderDraining, message));
    }
    if provider.max_slots == 0 {
        return Some(Verdict::not_ready(Pending, Reason::NoSlots, "maxSlots is 0"));
    }
    if !provider.skip_verification {
        let message = "the credentials have not been verified yet; no slot is assigned until they are";
        return Some(Verdict::not_ready(Pending, Reason::NotVerified, message));
    }
    let phase = if used == 0 { Ready } else { Active };
    let mut message = format!("{used} of {} slots are taken", provider.max_slots);
    // Somebody's own object of such a name blocks the slot as well as ours would.
    let mut foreign = world.reservations_on(&provider.meta.key).filter(|(_, other)| other.provider_uid.is_none());
    if let Some((_, other)) = foreign.next() {
        message +=
            &format!("; MaskReservation {} was not made by the operator and blocks its slot", other.meta.key.name);
    }
    Some(Verdict::ready(phase, Reason::Available, message))
}

/// Whether a slot beyond `maxSlots` is held.
fn is_draining(world: &World, provider: &ProviderView) -> bool {
    let highest = world.reservations_on(&provider.meta.key).next_back();
    highest.is_some_and(|(slot, _)| slot >= provider.max_slots)
}

/// Why nothing can be assigned to a provider, in words for those who wait for it.
pub fn why_not_usable(world: &World, provider: &ProviderView) -> String {
    match judge(world, provider) {
        Some(verdict) if !verdict.ready => verdict.message,
        Some(_) | None => "not looked at yet".to_owned(),
    }
}

/// Whether what its status says (or that it says nothing yet) is about to be replaced by "usable" or by a first verdict.
pub fn is_about_to_open(world: &World, provider: &ProviderView) -> bool {
    !provider.meta.deleting
        && (provider.status.phase.is_none()
            || judge(world, provider).is_none_or(|verdict| verdict.ready && !provider.is_usable()))
}

/// An Event when the provider turns usable or unusable, or is unusable from the start.
fn transition(provider: &ProviderView, verdict: &Verdict<MaskProviderPhase>) -> Option<Note> {
    let before = provider.status.ready.map(|(ready, _)| ready);
    let turned = before != Some(verdict.ready) || (!verdict.ready && provider.status.phase != Some(verdict.phase));
    turned.then(|| Note {
        regarding: target(Kind::Provider, &provider.meta.key, &provider.meta.uid),
        related: None,
        warning: !verdict.ready && verdict.phase != MaskProviderPhase::Terminating,
        reason: verdict.reason,
        action: "Judge",
        message: verdict.message.clone(),
    })
}
