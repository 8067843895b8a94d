//! Reservations: reports the state of each lock (W6), and deletes it when its consumer is gone (release, step 6).
//!
//! Invariant: a reservation outlives the consumer that it names (by UID). Only a watch event or a read confirms that
//! the consumer is gone. Absence from the store does not. In doubt, the slot stays held.

mod memory;

use std::time::Duration;

use chrono::SecondsFormat;
use vpn_types::{MaskConsumerPhase, MaskProviderReleaseSpec, MaskReservationPhase, Reason};

pub use memory::Memory;

use crate::{
    controllers::{
        Answer, Change, Context, Controller, Scope,
        controller::{keep_backoff, nothing_to_settle},
        ready::ReadyCondition,
        status, verification,
    },
    model::{
        EventRecord, Kind, Now, ObjectKey, Operation, ReconcileRequest, Step, add_finalizer, delete, object_reference,
        remove_finalizer,
    },
    state::{ClusterState, ConsumerView, Outcome, ReservationView, StoreChange},
};

/// How long an uncommitted reservation is held after its consumer is gone. The POST of its Secret may still be in
/// flight; it times out well before this hold ends.
pub const UNCOMMITTED_HOLD: Duration = Duration::from_secs(15);

/// How long a release may wait before the status of its reservation reports it. Most Pods stop sooner.
const REPORT_DELAY: Duration = Duration::from_secs(10);

/// The same for a release whose MaskConsumer reports no wait: it is in progress, or its controller does not run.
const SILENT_REPORT_DELAY: Duration = Duration::from_secs(30);

/// Converts the stored deadline to the monotonic clock. The wall clock counts when the deadline is first seen; from
/// then on the hold lasts at most the longest delay of the provider.
fn deadline(state: &ClusterState, memory: &mut Memory, reservation: &ReservationView, now: Now) -> Option<Duration> {
    let stored = reservation.hold_until?;
    let hold = memory.holds.entry(reservation.meta.uid.clone()).or_default();
    if let Some((known, at)) = hold.deadline
        && known == stored
    {
        return Some(at);
    }
    let provider = reservation.provider().and_then(|key| state.providers.get(&key));
    let longest = provider.map_or(MaskProviderReleaseSpec::DEFAULT_UNCLEAN_DELAY, |provider| {
        provider.release_delay.max(provider.unclean_delay)
    });
    let at = now.monotonic + (stored - now.wall).to_std().unwrap_or_default().min(longest);
    hold.deadline = Some((stored, at));
    Some(at)
}

/// The reservations controller.
pub static CONTROLLER: Controller = Controller {
    name: "reservations",
    watches: &[(Kind::Consumer, Scope::All), (Kind::Reservation, Scope::All)],
    status_of: &[Kind::Reservation],
    needs_credentials: false,
    reads: &["GetMaskConsumer", "GetMaskReservation"],
    writes: &["UpdateMaskReservation", "UpdateMaskReservationStatus", "DeleteMaskReservation"],
    handles: |request| matches!(request, ReconcileRequest::Reservation(_)),
    reconcile,
    observe,
    answered,
    failed: keep_backoff,
    settle: nothing_to_settle,
};

fn reconcile(ctx: &mut Context, request: &ReconcileRequest) -> Step {
    let ReconcileRequest::Reservation(key) = request else { return Step::Idle };
    decide(&ctx.state, &mut ctx.memory.reservations, key, ctx.now)
}

fn observe(ctx: &mut Context, change: &Change<'_>) {
    match change {
        Change::Store(StoreChange::Reservation(change)) => {
            let now = ctx.state.reservations.get(&change.key);
            let request = ReconcileRequest::Reservation(change.key.clone());
            if let Some(before) = &change.before
                && now.is_none_or(|view| view.meta.uid != before.meta.uid)
            {
                ctx.memory.reservations.holds.remove(&before.meta.uid);
                ctx.forget(request.clone());
            }
            ctx.enqueue(request);
        }
        Change::Store(StoreChange::Consumer(change)) => {
            let now = ctx.state.consumers.get(&change.key).map(|view| &view.meta.uid);
            let before = change.before.as_ref().map(|view| &view.meta.uid).filter(|before| now != Some(before));
            let reservations = now.into_iter().chain(before).flat_map(|uid| ctx.state.reservations_of(uid));
            for key in reservations.map(|view| view.meta.key.clone()).collect::<Vec<_>>() {
                ctx.enqueue(ReconcileRequest::Reservation(key));
            }
        }
        _ => {}
    }
}

/// Handles a read of the consumer of a reservation.
fn answered(ctx: &mut Context, answer: &Answer<'_>) {
    let ReconcileRequest::Reservation(key) = answer.request else { return };
    if answer.operation.target().is_none_or(|(kind, _)| kind != Kind::Consumer) {
        return;
    }
    let Some(reservation) = ctx.state.reservations.get(key) else { return };
    let uid = reservation.consumer_uid.clone();
    let is_gone = match answer.outcome {
        Outcome::Gone | Outcome::NotFound => true,
        Outcome::Object(object) => object.meta().uid != uid,
        _ => false,
    };
    if is_gone {
        ctx.state.record_deleted_consumer(&uid);
    }
}

/// Returns the next step for the reservation of that name.
fn decide(state: &ClusterState, memory: &mut Memory, key: &ObjectKey, now: Now) -> Step {
    let Some(reservation) = state.reservations.get(key) else { return Step::Idle };
    // Not created by an operator: never write to it.
    if reservation.provider_uid.is_none() {
        return Step::Idle;
    }
    let until = deadline(state, memory, reservation, now);
    let consumer = state.consumers.get(&reservation.consumer);
    match consumer.filter(|consumer| consumer.meta.uid == reservation.consumer_uid) {
        Some(consumer) => follow_consumer(state, memory, reservation, consumer, now),
        None => match state.deleted_consumer(&reservation.consumer_uid) {
            None => Step::send(Operation::Get(Kind::Consumer, reservation.consumer.clone())),
            Some(departed) => {
                let committed = departed.committed.as_ref() == Some(&reservation.meta.uid)
                    || reservation.status.phase == Some(MaskReservationPhase::Active);
                hold(memory, reservation, until, committed, now).or_else(|| free(reservation))
            }
        },
    }
}

/// Returns the next step while the consumer exists.
fn follow_consumer(
    state: &ClusterState,
    memory: &mut Memory,
    reservation: &ReservationView,
    consumer: &ConsumerView,
    now: Now,
) -> Step {
    let committed = consumer.assigned.as_ref().is_some_and(|assigned| assigned.reservation == reservation.meta.uid);
    if consumer.meta.deleting {
        // Deleted early, so that a single write remains once the consumer is gone. The finalizer keeps it until then.
        if !reservation.meta.deleting && reservation.meta.finalizer.is_some() {
            return Step::send(delete(Kind::Reservation, &reservation.meta, None));
        }
        // Without that finalizer, the slot would be free by now.
        if consumer.meta.finalizer.is_none() && consumer.meta.foreign {
            let message = format!(
                "A finalizer of another component keeps MaskConsumer {}; the slot is held until that finalizer is \
                 removed",
                reservation.consumer
            );
            let phase = MaskReservationPhase::Terminating;
            let event = event(reservation, true, Reason::HeldByFinalizer, message.clone());
            return report(reservation, phase, false, Reason::HeldByFinalizer, message, now).with_event(Some(event));
        }
        if verification::verified_by(state, consumer).is_some() {
            return Step::Idle;
        }
        let hold = memory.holds.entry(reservation.meta.uid.clone()).or_default();
        let waits = consumer.status.phase == Some(MaskConsumerPhase::Terminating);
        let delay = if waits { REPORT_DELAY } else { SILENT_REPORT_DELAY };
        let report_at = *hold.releasing_since.get_or_insert(now.monotonic) + delay;
        if now.monotonic < report_at {
            return Step::WaitUntil(report_at);
        }
        let message = format!("MaskConsumer {} is releasing the slot", reservation.consumer);
        let step = report(reservation, MaskReservationPhase::Terminating, false, Reason::Releasing, message, now);
        if matches!(step, Step::Send(_))
            && let Err(until) = memory.releases.take(now)
        {
            return Step::WaitUntil(until);
        }
        return step;
    }
    if !committed {
        return Step::Idle;
    }
    if reservation.meta.finalizer.is_none() && !reservation.meta.deleting {
        return Step::maintain(add_finalizer(Kind::Reservation, &reservation.meta));
    }
    if reservation.meta.deleting {
        let message =
            format!("Marked for deletion; kept until MaskConsumer {} has released the slot", reservation.consumer);
        let event = event(reservation, false, Reason::SlotInUse, message.clone());
        let phase = MaskReservationPhase::Active;
        return report(reservation, phase, true, Reason::SlotInUse, message, now).with_event(Some(event));
    }
    let message = format!("Held by MaskConsumer {}", reservation.consumer);
    report(reservation, MaskReservationPhase::Active, true, Reason::SlotInUse, message, now)
}

/// Waits until the holds of a slot have expired after its consumer is gone.
fn hold(
    memory: &mut Memory,
    reservation: &ReservationView,
    until: Option<Duration>,
    committed: bool,
    now: Now,
) -> Step {
    if let (Some(at), Some(stored)) = (until, reservation.hold_until)
        && at > now.monotonic
    {
        let stored = stored.to_rfc3339_opts(SecondsFormat::Secs, true);
        let message = format!("The last Pod is gone; the slot is held until {stored}");
        let phase = MaskReservationPhase::Terminating;
        return report(reservation, phase, false, Reason::HeldUntilDeadline, message, now).and_wait_until(at);
    }
    if !committed {
        let hold = memory.holds.entry(reservation.meta.uid.clone()).or_default();
        let until = *hold.uncommitted_since.get_or_insert(now.monotonic) + UNCOMMITTED_HOLD;
        if until > now.monotonic {
            return Step::WaitUntil(until);
        }
    }
    Step::Idle
}

fn free(reservation: &ReservationView) -> Step {
    if !reservation.meta.deleting {
        return Step::send(delete(Kind::Reservation, &reservation.meta, None));
    }
    remove_finalizer(Kind::Reservation, &reservation.meta).map_or(Step::Idle, Step::send)
}

fn event(reservation: &ReservationView, warning: bool, reason: Reason, message: String) -> EventRecord {
    let regarding = object_reference(Kind::Reservation, &reservation.meta.key, &reservation.meta.uid);
    EventRecord { regarding, related: None, warning, reason, action: "Hold", message }
}

fn report(
    reservation: &ReservationView,
    phase: MaskReservationPhase,
    ready: bool,
    reason: Reason,
    message: String,
    now: Now,
) -> Step {
    let condition = ReadyCondition { phase, ready, reason, message };
    match status::reservation(&reservation.meta, &reservation.status, &condition, now.wall) {
        Some(patch) => Step::status(Operation::PatchStatus(Kind::Reservation, reservation.meta.key.clone(), patch)),
        None => Step::Idle,
    }
}
