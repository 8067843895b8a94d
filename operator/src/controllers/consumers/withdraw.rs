//! Withdraws a reservation that its existing consumer cannot use: W3 or W4 was rejected, the slot or provider went away
//! in between, or the reservation was deleted before the commit.
//!
//! Order matters: first the consumer's status names the reservation as withdrawn. This is the fence: it moves the
//! resourceVersion that guards W4, so a commit to this reservation that is still in flight fails. Then the copy is
//! deleted, then the lock.

use vpn_types::{MaskConsumerPhase, Reason};

use super::context::{ConsumerContext, event};
use crate::{
    controllers::{ready::ReadyCondition, status},
    model::{Kind, Operation, Step, Uid, delete, remove_finalizer},
    state::{ClusterState, ConsumerView, CopyView, ReservationView},
};

/// Returns the next step towards "no reservation".
pub fn decide(ctx: &mut ConsumerContext<'_>, consumer: &ConsumerView, reservation: &ReservationView) -> Step {
    ctx.memory(consumer).withdrawing = Some(reservation.meta.uid.clone());
    let message = format!("MaskReservation {} could not be used; the Mask is back in line", reservation.meta.key);
    fence(ctx, consumer, &reservation.meta.uid, message).or_else(|| delete_reservation(ctx, consumer, reservation))
}

/// Fences the reservation with the UID `withdrawn`. `message` says so, unless a rejected request is the reason.
pub fn fence(ctx: &ConsumerContext<'_>, consumer: &ConsumerView, withdrawn: &Uid, message: String) -> Step {
    if consumer.withdrawn.as_ref() == Some(withdrawn) {
        return Step::Idle;
    }
    let (reason, message) = match &ctx.backoff {
        Some(backoff) => (backoff.reason, backoff.message.clone()),
        None => (Reason::NoFreeSlot, message),
    };
    let condition = ReadyCondition::not_ready(MaskConsumerPhase::Waiting, reason, message);
    let patch = status::fence(&consumer.meta, &consumer.status, &condition, withdrawn, ctx.now.wall);
    let is_known = consumer.ready_condition.as_ref().is_some_and(|stored| stored.reason == reason);
    let is_new = ctx.backoff.is_some() && !is_known;
    let event = is_new.then(|| event(consumer, true, reason, "Assign", condition.message));
    Step::send(Operation::PatchStatus(Kind::Consumer, consumer.meta.key.clone(), patch)).provisional().with_event(event)
}

/// Deletes a reservation that can no longer be committed: its copy, then the lock.
pub fn delete_reservation(ctx: &ConsumerContext<'_>, consumer: &ConsumerView, reservation: &ReservationView) -> Step {
    let is_its_copy = |copy: &CopyView| copy.reservation.as_ref() == Some(&reservation.meta.uid);
    remove_copy(ctx.state, consumer, is_its_copy).or_else(|| delete_lock(reservation))
}

/// Removes a copy that the consumer owns and does not need.
pub fn remove_copy(state: &ClusterState, consumer: &ConsumerView, is_useless: impl Fn(&CopyView) -> bool) -> Step {
    let mut copies = state.copies_of(&consumer.meta.uid);
    match copies.find(|copy| is_useless(copy) && !copy.meta.deleting) {
        Some(copy) => Step::send(delete(Kind::Secret, &copy.meta, None)).provisional(),
        None => Step::Idle,
    }
}

fn delete_lock(reservation: &ReservationView) -> Step {
    if !reservation.meta.deleting {
        return Step::send(delete(Kind::Reservation, &reservation.meta, None)).provisional();
    }
    match remove_finalizer(Kind::Reservation, &reservation.meta) {
        Some(operation) => Step::send(operation).provisional(),
        None => Step::Idle,
    }
}
