//! Reservations: tells what each lock is doing (W6) and frees it when its consumer is gone (release, step 6).
//!
//! Invariant: a reservation outlives the consumer that it names (by UID). Whether that is gone is known from the
//! watch's own word or from a read, never from mere absence; any doubt holds the slot.

use std::{collections::HashMap, time::Duration};

use chrono::SecondsFormat;
use vpn_types::{MaskReservationPhase, Reason};

use crate::{
    engine::{Now, Op, Step, add_finalizer, delete, remove_finalizer},
    status::{self, Verdict},
    world::{ConsumerView, Kind, ObjectKey, ReservationView, Uid, World},
};

/// How long an uncommitted reservation is held once its consumer is gone: the POST of its Secret may be on its way,
/// and ends by its deadline well before that.
pub const UNCOMMITTED_HOLD: Duration = Duration::from_secs(15);

/// Since when (monotonic) uncommitted reservations without a consumer are held, by UID.
pub type Holds = HashMap<Uid, Duration>;

/// The next step for the reservation of that name.
pub fn decide(world: &World, holds: &mut Holds, key: &ObjectKey, now: Now) -> Step {
    let Some(reservation) = world.reservations.get(key) else { return Step::Idle };
    // Not made by an operator: nothing of it is ours to write.
    if reservation.provider_uid.is_none() {
        return Step::Idle;
    }
    let consumer = world.consumers.get(&reservation.consumer);
    match consumer.filter(|consumer| consumer.meta.uid == reservation.consumer_uid) {
        Some(consumer) => accompany(reservation, consumer, now),
        None => match world.departed(&reservation.consumer_uid) {
            None => Step::send(Op::Get(Kind::Consumer, reservation.consumer.clone())),
            Some(departed) => {
                let committed = departed.committed.as_ref() == Some(&reservation.meta.uid)
                    || reservation.status.phase == Some(MaskReservationPhase::Active);
                hold(holds, reservation, committed, now).or_else(|| free(reservation))
            }
        },
    }
}

/// While the consumer lives.
fn accompany(reservation: &ReservationView, consumer: &ConsumerView, now: Now) -> Step {
    let committed = consumer.assigned.as_ref().is_some_and(|assigned| assigned.reservation == reservation.meta.uid);
    if consumer.meta.deleting {
        // Sent early, so that one write is enough once the consumer is gone; our finalizer holds it until then.
        if !reservation.meta.deleting && reservation.meta.finalizer.is_some() {
            return Step::send(delete(Kind::Reservation, &reservation.meta, None));
        }
        let message = format!("MaskConsumer {} is giving the slot back", reservation.consumer);
        return tell(reservation, MaskReservationPhase::Terminating, false, Reason::Releasing, message, now);
    }
    if !committed {
        return Step::Idle;
    }
    if reservation.meta.finalizer.is_none() && !reservation.meta.deleting {
        return Step::send(add_finalizer(Kind::Reservation, &reservation.meta));
    }
    let message = format!("held by MaskConsumer {}", reservation.consumer);
    tell(reservation, MaskReservationPhase::Active, true, Reason::SlotInUse, message, now)
}

/// The holds of a slot whose consumer is gone.
fn hold(holds: &mut Holds, reservation: &ReservationView, committed: bool, now: Now) -> Step {
    if let Some(until) = reservation.hold_until
        && let Ok(rest) = (until - now.wall).to_std()
        && !rest.is_zero()
    {
        let until = until.to_rfc3339_opts(SecondsFormat::Secs, true);
        let message = format!("the last Pod is gone; held until {until}");
        let phase = MaskReservationPhase::Terminating;
        return tell(reservation, phase, false, Reason::HeldUntilDeadline, message, now)
            .or_else(|| Step::WaitUntil(now.monotonic + rest));
    }
    if !committed {
        let until = *holds.entry(reservation.meta.uid.clone()).or_insert(now.monotonic) + UNCOMMITTED_HOLD;
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

fn tell(
    reservation: &ReservationView,
    phase: MaskReservationPhase,
    ready: bool,
    reason: Reason,
    message: String,
    now: Now,
) -> Step {
    let verdict = Verdict { phase, ready, reason, message };
    match status::reservation(&reservation.meta, &reservation.status, &verdict, now.wall) {
        Some(patch) => Step::tell(Op::PatchStatus(Kind::Reservation, reservation.meta.key.clone(), patch)),
        None => Step::Idle,
    }
}
