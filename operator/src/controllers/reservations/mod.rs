//! Reservations: tells what each lock is doing (W6) and frees it when its consumer is gone (release, step 6).
//!
//! Invariant: a reservation outlives the consumer that it names (by UID). Whether that is gone is known from the
//! watch's own word or from a read, never from mere absence; any doubt holds the slot.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, SecondsFormat, Utc};
use vpn_types::{MaskProviderReleaseSpec, MaskReservationPhase, Reason};

use crate::{
    controllers::{ready::ReadyCondition, status, verification},
    model::{
        EventRecord, Kind, Now, ObjectKey, Operation, Step, Uid, add_finalizer, delete, object_reference,
        remove_finalizer,
    },
    state::{ClusterState, ConsumerView, ReservationView},
};

/// How long an uncommitted reservation is held once its consumer is gone: the POST of its Secret may be on its way,
/// and ends by its deadline well before that.
pub const UNCOMMITTED_HOLD: Duration = Duration::from_secs(15);

/// What is remembered of holds, by UID of the reservation. All times are monotonic.
pub type Holds = HashMap<Uid, Hold>;

/// A hold as this process knows it: whoever sets the wall clock neither ends nor prolongs one that is under way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hold {
    /// Since when the reservation is without its consumer, never having been committed.
    uncommitted_since: Option<Duration>,
    /// The deadline that was read, and when that is.
    deadline: Option<(DateTime<Utc>, Duration)>,
}

/// When a stored deadline is, by the monotonic clock: by the wall clock at first sight, and no later than the provider's
/// longest delay from then.
fn deadline(state: &ClusterState, holds: &mut Holds, reservation: &ReservationView, now: Now) -> Option<Duration> {
    let stored = reservation.hold_until?;
    let hold = holds.entry(reservation.meta.uid.clone()).or_default();
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

/// The next step for the reservation of that name.
pub fn decide(state: &ClusterState, holds: &mut Holds, key: &ObjectKey, now: Now) -> Step {
    let Some(reservation) = state.reservations.get(key) else { return Step::Idle };
    // Not made by an operator: nothing of it is ours to write.
    if reservation.provider_uid.is_none() {
        return Step::Idle;
    }
    let until = deadline(state, holds, reservation, now);
    let consumer = state.consumers.get(&reservation.consumer);
    match consumer.filter(|consumer| consumer.meta.uid == reservation.consumer_uid) {
        Some(consumer) => accompany(state, reservation, consumer, now),
        None => match state.departed(&reservation.consumer_uid) {
            None => Step::send(Operation::Get(Kind::Consumer, reservation.consumer.clone())),
            Some(departed) => {
                let committed = departed.committed.as_ref() == Some(&reservation.meta.uid)
                    || reservation.status.phase == Some(MaskReservationPhase::Active);
                hold(holds, reservation, until, committed, now).or_else(|| free(reservation))
            }
        },
    }
}

/// While the consumer lives.
fn accompany(state: &ClusterState, reservation: &ReservationView, consumer: &ConsumerView, now: Now) -> Step {
    let committed = consumer.assigned.as_ref().is_some_and(|assigned| assigned.reservation == reservation.meta.uid);
    if consumer.meta.deleting {
        // Sent early, so that one write is enough once the consumer is gone; our finalizer holds it until then.
        if !reservation.meta.deleting && reservation.meta.finalizer.is_some() {
            return Step::send(delete(Kind::Reservation, &reservation.meta, None));
        }
        // The slot would be free by now.
        if consumer.meta.finalizer.is_none() && consumer.meta.foreign {
            let message = format!("MaskConsumer {} is kept by somebody's finalizer", reservation.consumer);
            let phase = MaskReservationPhase::Terminating;
            let note = event(reservation, true, Reason::HeldByFinalizer, message.clone());
            return tell(reservation, phase, false, Reason::HeldByFinalizer, message, now).with_event(Some(note));
        }
        if verification::verified_by(state, consumer).is_some() {
            return Step::Idle;
        }
        let message = format!("MaskConsumer {} is giving the slot back", reservation.consumer);
        return tell(reservation, MaskReservationPhase::Terminating, false, Reason::Releasing, message, now);
    }
    if !committed {
        return Step::Idle;
    }
    if reservation.meta.finalizer.is_none() && !reservation.meta.deleting {
        return Step::maintain(add_finalizer(Kind::Reservation, &reservation.meta));
    }
    if reservation.meta.deleting {
        let message =
            format!("to be deleted; kept until MaskConsumer {} has given the slot back", reservation.consumer);
        let note = event(reservation, false, Reason::SlotInUse, message.clone());
        let phase = MaskReservationPhase::Active;
        return tell(reservation, phase, true, Reason::SlotInUse, message, now).with_event(Some(note));
    }
    let message = format!("held by MaskConsumer {}", reservation.consumer);
    tell(reservation, MaskReservationPhase::Active, true, Reason::SlotInUse, message, now)
}

/// The holds of a slot whose consumer is gone.
fn hold(holds: &mut Holds, reservation: &ReservationView, until: Option<Duration>, committed: bool, now: Now) -> Step {
    if let (Some(at), Some(stored)) = (until, reservation.hold_until)
        && at > now.monotonic
    {
        let stored = stored.to_rfc3339_opts(SecondsFormat::Secs, true);
        let message = format!("the last Pod is gone; held until {stored}");
        let phase = MaskReservationPhase::Terminating;
        return tell(reservation, phase, false, Reason::HeldUntilDeadline, message, now)
            .or_else(|| Step::WaitUntil(at));
    }
    if !committed {
        let hold = holds.entry(reservation.meta.uid.clone()).or_default();
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

fn tell(
    reservation: &ReservationView,
    phase: MaskReservationPhase,
    ready: bool,
    reason: Reason,
    message: String,
    now: Now,
) -> Step {
    let verdict = ReadyCondition { phase, ready, reason, message };
    match status::reservation(&reservation.meta, &reservation.status, &verdict, now.wall) {
        Some(patch) => Step::tell(Operation::PatchStatus(Kind::Reservation, reservation.meta.key.clone(), patch)),
        None => Step::Idle,
    }
}
