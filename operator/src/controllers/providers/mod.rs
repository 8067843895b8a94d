//! Providers: reports whether slots of an account can be assigned, and keeps the provider until all of them are
//! released.
//!
//! Invariant: `status.observedGeneration` is the generation whose `maxSlots` is in force. It advances only when no slot
//! beyond `maxSlots` is held, and the consumers controller assigns slots by it. Nothing is assigned while it lags.

mod answers;
mod evaluate;
mod event;
mod memory;
mod observe;
mod sharing;

use std::time::Duration;

use vpn_types::{MaskProviderPhase, Reason};

use evaluate::{evaluate, is_draining, slot_problems};
pub use evaluate::{is_about_to_change, why_not_usable, withheld};
use event::event;
pub use memory::LastWrites;
use sharing::shared_credentials;

use crate::{
    controllers::{
        Context, Controller, Memory, Scope,
        controller::nothing_to_settle,
        ready::ReadyCondition,
        status,
        verification::{self, Attempts, Report},
    },
    model::{
        Backoff, EventRecord, Kind, Now, ObjectKey, Operation, ReconcileRequest, RequestPriority, Step, Uid,
        add_finalizer, remove_finalizer,
    },
    state::{ClusterState, CredentialsState, ProviderView},
};

/// The minimum interval between two status writes for one provider.
pub const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// The input of a decision.
pub struct ProviderContext<'a> {
    /// The cached state of the cluster.
    pub state: &'a ClusterState,
    /// Verifications in progress.
    pub attempts: &'a Attempts,
    /// The active backoff of the verification.
    pub backoff: Option<&'a Backoff>,
    /// Whether the consumers controller runs in another process.
    pub are_apart: bool,
    /// The current time.
    pub now: Now,
}

/// Name of this controller.
pub const NAME: &str = "providers";

/// The providers controller.
pub static CONTROLLER: Controller = Controller {
    name: NAME,
    watches: &[
        (Kind::Mask, Scope::Verifications),
        (Kind::Consumer, Scope::Verifications),
        (Kind::Reservation, Scope::All),
        (Kind::Provider, Scope::All),
        (Kind::Pod, Scope::Verifications),
    ],
    status_of: &[Kind::Provider],
    needs_credentials: true,
    reads: &["GetMask", "GetMaskProvider", "GetPod"],
    writes: &["CreateMask", "CreatePod", "UpdateMaskProvider", "UpdateMaskProviderStatus", "DeleteMask"],
    handles: |request| matches!(request, ReconcileRequest::Provider(_) | ReconcileRequest::Verification(_)),
    reconcile,
    observe: observe::observe,
    answered: answers::answered,
    failed: answers::failed,
    settle: nothing_to_settle,
};

fn reconcile(ctx: &mut Context, request: &ReconcileRequest) -> Step {
    match request {
        ReconcileRequest::Provider(key) => {
            let verification = ReconcileRequest::Verification(key.clone());
            let backoff = ctx.backoffs.get(&verification, RequestPriority::Slots);
            let view = ProviderContext {
                state: &ctx.state,
                attempts: &ctx.memory.attempts,
                backoff: backoff.filter(|backoff| backoff.is_active(ctx.now)),
                are_apart: ctx.are_apart,
                now: ctx.now,
            };
            decide(&view, &ctx.memory.last_writes, key)
        }
        ReconcileRequest::Verification(key) => {
            let Memory { attempts, logs, .. } = &mut ctx.memory;
            let mut view = verification::VerificationContext {
                state: &ctx.state,
                attempts,
                logs,
                effects: &mut ctx.effects,
                backoff: ctx.backoffs.get(request, RequestPriority::Slots),
                settings: &ctx.settings,
                now: ctx.now,
            };
            let step = verification::decide(&mut view, key);
            ctx.enqueue(ReconcileRequest::Provider(key.clone()));
            step
        }
        _ => Step::Idle,
    }
}

/// Returns the next step for the provider of that name.
fn decide(ctx: &ProviderContext<'_>, writes: &LastWrites, key: &ObjectKey) -> Step {
    let &ProviderContext { state, are_apart: apart, now, .. } = ctx;
    let Some(provider) = state.providers.get(key) else { return Step::Idle };
    if provider.meta.deleting {
        let ours = |uid: &Option<Uid>| uid.as_ref() == Some(&provider.meta.uid);
        let held = state.reservations_on(key).any(|(_, reservation)| ours(&reservation.provider_uid));
        if !held {
            return remove_finalizer(Kind::Provider, &provider.meta).map_or(Step::Idle, Step::send);
        }
    } else if provider.meta.finalizer.is_none() {
        return Step::send(add_finalizer(Kind::Provider, &provider.meta));
    }
    // Checked before anything is computed: the status takes a scan of all reservations, and could not be written yet.
    if let Some(last) = writes.get(&provider.meta.uid)
        && *last + STATUS_INTERVAL > now.monotonic
    {
        return Step::WaitUntil(*last + STATUS_INTERVAL);
    }
    let report = match &state.account_credentials(provider) {
        CredentialsState::Present(source) => {
            let attempt = ctx.attempts.get(&provider.meta.uid);
            verification::report(state, provider, source, attempt, ctx.backoff, now.wall)
        }
        _ => verification::unchanged(provider),
    };
    let Some(condition) = evaluate(state, provider, report.gate.as_ref()) else { return Step::Idle };
    let used = state.slots_used(key);
    let acknowledged = !apart || provider.assignment_generation == Some(provider.meta.generation);
    let in_force = acknowledged && !is_draining(state, provider);
    let observed = if in_force { Some(provider.meta.generation) } else { provider.status.observed_generation };
    let shared = shared_credentials(state, provider);
    let patch = status::provider(provider, &condition, &report, shared.as_deref(), used, observed, now.wall);
    let Some(patch) = patch else { return Step::Idle };
    Step::status(Operation::PatchStatus(Kind::Provider, key.clone(), patch))
        .with_event(change_event(state, provider, &condition, &report))
        .with_event(sharing::change_event(provider, shared.as_ref()))
}

/// Returns the Event for a new verification result, else for a new problem with a single slot, else [when the readiness
/// changes](transition).
fn change_event(
    state: &ClusterState,
    provider: &ProviderView,
    condition: &ReadyCondition<MaskProviderPhase>,
    report: &Report,
) -> Option<EventRecord> {
    if let Some((warning, reason, message)) = &report.new_result {
        return Some(event(provider, *warning, *reason, "Verify", message.clone()));
    }
    let problem = || {
        let is_new =
            |(_, why): &(Reason, String)| !provider.message.as_ref().is_some_and(|stored| stored.contains(why));
        let slot_problems = slot_problems(state, provider).into_iter().filter(|_| condition.ready);
        slot_problems
            .filter(is_new)
            .map(|(reason, _)| event(provider, true, reason, "Evaluate", condition.message.clone()))
            .next()
    };
    problem().or_else(|| transition(provider, condition))
}

/// Returns the Event when the provider becomes usable or unusable, or is unusable from the start.
fn transition(provider: &ProviderView, condition: &ReadyCondition<MaskProviderPhase>) -> Option<EventRecord> {
    let before = provider.status.ready.map(|(ready, _)| ready);
    let has_changed =
        before != Some(condition.ready) || (!condition.ready && provider.status.phase != Some(condition.phase));
    let is_bad = condition.phase != MaskProviderPhase::Terminating && condition.reason != Reason::Verifying;
    let warning = !condition.ready && is_bad;
    has_changed.then(|| event(provider, warning, condition.reason, "Evaluate", condition.message.clone()))
}
