//! Providers: tells whether slots of an account can be assigned, and holds the provider until all of them are back.
//!
//! Invariant: `status.observedGeneration` is the generation whose `maxSlots` is in force: it moves on only when no
//! slot beyond `maxSlots` is held, and the consumers controller hands out slots by it. Nothing is assigned while it lags.

mod sharing;

use std::{collections::HashMap, time::Duration};

use serde_json::json;
use vpn_types::{MaskProviderPhase, Reason};

use sharing::shared_credentials;
pub use sharing::with_condition;

use crate::{
    allocator::{Allocator, Pool},
    engine::{Note, Now, Op, Step, Trouble, add_finalizer, remove_finalizer, target},
    status::{self, Verdict},
    verification::{self, Attempts, Report},
    world::{Kind, ObjectKey, ProviderView, Source, Uid, World},
};

/// `status` is written at most once in this time for each provider.
pub const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// When (monotonic) each provider's status was last written, by UID.
pub type LastWrites = HashMap<Uid, Duration>;

/// What a decision works with.
pub struct Scene<'a> {
    /// All that is known.
    pub world: &'a World,
    /// Verifications under way.
    pub attempts: &'a Attempts,
    /// What holds up the verification at present.
    pub trouble: Option<&'a Trouble>,
    /// Whether the consumers controller is another process.
    pub are_apart: bool,
    /// The time.
    pub now: Now,
}

/// The next step for the provider of that name.
pub fn decide(scene: &Scene<'_>, writes: &mut LastWrites, key: &ObjectKey) -> Step {
    let &Scene { world, are_apart: apart, now, .. } = scene;
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
    // Nothing is written before then, and what is to be said takes a look at all reservations.
    if let Some(last) = writes.get(&provider.meta.uid)
        && *last + STATUS_INTERVAL > now.monotonic
    {
        return Step::WaitUntil(*last + STATUS_INTERVAL);
    }
    let report = match &world.account(provider) {
        Source::Present(source) => {
            let attempt = scene.attempts.get(&provider.meta.uid);
            verification::report(world, provider, source, attempt, scene.trouble, now.wall)
        }
        _ => verification::unchanged(provider),
    };
    let Some(verdict) = judge(world, provider, report.gate.as_ref()) else { return Step::Idle };
    let used = world.slots_used(key);
    let acknowledged = !apart || provider.assignment_generation == Some(provider.meta.generation);
    let in_force = acknowledged && !is_draining(world, provider);
    let observed = if in_force { Some(provider.meta.generation) } else { provider.status.observed_generation };
    let shared = shared_credentials(world, provider);
    let patch = status::provider(provider, &verdict, &report, shared.as_deref(), used, observed, now.wall);
    let Some(patch) = patch else { return Step::Idle };
    writes.insert(provider.meta.uid.clone(), now.monotonic);
    Step::tell(Op::PatchStatus(Kind::Provider, key.clone(), patch))
        .with_note(tell(world, provider, &verdict, &report))
        .with_note(sharing::news(provider, shared.as_ref()))
}

/// What the consumers controller, in a process of its own, tells the providers controller: from now on it hands out
/// slots by the `maxSlots` of this generation, and none beyond it is held. A reservation of a slot beyond it that is
/// still on its way from an earlier process leads to no commit.
pub fn acknowledge(world: &World, allocator: &Allocator, key: &ObjectKey) -> Step {
    let Some(provider) = world.providers.get(key) else { return Step::Idle };
    let generation = provider.meta.generation;
    let is_draining = allocator.pool(key).is_none_or(Pool::is_draining);
    if provider.assignment_generation == Some(generation) || provider.meta.deleting || is_draining {
        return Step::Idle;
    }
    Step::tell(Op::PatchStatus(Kind::Provider, key.clone(), json!({"status": {"assignmentGeneration": generation}})))
}

/// The state of a provider, from gates in order: the first that does not hold says why. `None`: not known yet.
fn judge(
    world: &World,
    provider: &ProviderView,
    unverified: Option<&Verdict<MaskProviderPhase>>,
) -> Option<Verdict<MaskProviderPhase>> {
    use MaskProviderPhase::{Active, ErrSecretNotFound, Pending, Ready, Terminating};
    let used = world.slots_used(&provider.meta.key);
    if provider.meta.deleting {
        let message = format!("being deleted: {used} slots still have to be given back");
        return Some(Verdict::not_ready(Terminating, Reason::Deleting, message));
    }
    if let Some(why) = &provider.invalid {
        return Some(Verdict::not_ready(Pending, Reason::InvalidSpec, &**why));
    }
    match &world.account(provider) {
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
    if let Some((count, why)) = withheld(world, provider)
        && count >= provider.max_slots
    {
        return Some(Verdict::not_ready(ErrSecretNotFound, Reason::SecretNotFound, why));
    }
    if let Some(gate) = unverified {
        return Some(gate.clone());
    }
    let phase = if used == 0 { Ready } else { Active };
    let mut message = format!("{used} of {} slots are taken", provider.max_slots);
    for (_, complaint) in complaints(world, provider) {
        message += &format!("; {complaint}");
    }
    Some(Verdict::ready(phase, Reason::Available, message))
}

/// What is wrong with single slots of a provider that is usable.
fn complaints(world: &World, provider: &ProviderView) -> Vec<(Reason, String)> {
    let withheld = withheld(world, provider).map(|(_, why)| (Reason::SecretNotFound, why));
    // Somebody's own object of such a name blocks the slot as well as ours would.
    let mut foreign = world.reservations_on(&provider.meta.key).filter(|(_, other)| other.provider_uid.is_none());
    let foreign = foreign.next().map(|(_, other)| {
        let name = &other.meta.key.name;
        (Reason::SlotBlocked, format!("MaskReservation {name} was not made by the operator and blocks its slot"))
    });
    withheld.into_iter().chain(foreign).collect()
}

/// How many slots are not handed out because their own Secret is missing, and the first of them, in words.
pub fn withheld(world: &World, provider: &ProviderView) -> Option<(u32, String)> {
    let mut withheld = world.withheld(provider);
    let (slot, secret, source) = withheld.next()?;
    let why = match source {
        Source::Unreadable(why) => format!("cannot be read: {why}"),
        _ => format!("does not exist in namespace {}", provider.meta.key.namespace),
    };
    let more = withheld.count();
    let others = if more == 0 { String::new() } else { format!(" (nor are {more} others)") };
    Some((1 + more as u32, format!("slot {slot} is not handed out{others}: its Secret {secret} {why}")))
}

/// Whether a slot beyond `maxSlots` is held.
fn is_draining(world: &World, provider: &ProviderView) -> bool {
    let highest = world.reservations_on(&provider.meta.key).next_back();
    highest.is_some_and(|(slot, _)| slot >= provider.max_slots)
}

/// Why nothing can be assigned to a provider, in words for those who wait for it.
pub fn why_not_usable(world: &World, provider: &ProviderView) -> String {
    match judge(world, provider, None) {
        Some(verdict) if !verdict.ready => verdict.message,
        // What its status says of the verification.
        Some(_) if !verification::admits_users(world, provider) => match &provider.verified.condition {
            Some(condition) if condition.passed != Some(true) => condition.message.to_string(),
            _ => "the credentials have not been verified yet".to_owned(),
        },
        Some(_) | None => "not looked at yet".to_owned(),
    }
}

/// Whether what its status says (or that it says nothing yet) is about to be replaced by "usable" or by a first verdict.
pub fn is_about_to_open(world: &World, provider: &ProviderView) -> bool {
    !provider.meta.deleting
        && (provider.status.phase.is_none()
            || judge(world, provider, None).is_none_or(|verdict| {
                verdict.ready && !provider.is_usable() && verification::admits_users(world, provider)
            }))
}

/// An Event for each verdict of a verification, else for what is newly wrong with single slots, else [when the state
/// changes](transition).
fn tell(world: &World, provider: &ProviderView, verdict: &Verdict<MaskProviderPhase>, report: &Report) -> Option<Note> {
    if let Some((warning, reason, message)) = &report.news {
        return Some(note(provider, *warning, *reason, "Verify", message.clone()));
    }
    let complaint = || {
        let is_new = |(_, why): &(Reason, String)| !provider.said.as_ref().is_some_and(|said| said.contains(why));
        let complaints = complaints(world, provider).into_iter().filter(|_| verdict.ready);
        complaints
            .filter(is_new)
            .map(|(reason, _)| note(provider, true, reason, "Judge", verdict.message.clone()))
            .next()
    };
    complaint().or_else(|| transition(provider, verdict))
}

fn note(provider: &ProviderView, warning: bool, reason: Reason, action: &'static str, message: String) -> Note {
    let regarding = target(Kind::Provider, &provider.meta.key, &provider.meta.uid);
    Note { regarding, related: None, warning, reason, action, message }
}

/// An Event when the provider turns usable or unusable, or is unusable from the start.
fn transition(provider: &ProviderView, verdict: &Verdict<MaskProviderPhase>) -> Option<Note> {
    let before = provider.status.ready.map(|(ready, _)| ready);
    let turned = before != Some(verdict.ready) || (!verdict.ready && provider.status.phase != Some(verdict.phase));
    let is_bad = verdict.phase != MaskProviderPhase::Terminating && verdict.reason != Reason::Verifying;
    let warning = !verdict.ready && is_bad;
    turned.then(|| note(provider, warning, verdict.reason, "Judge", verdict.message.clone()))
}
