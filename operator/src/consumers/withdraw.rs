//! Gives a reservation back that its living consumer cannot use: W3 or W4 was refused, the slot or provider went away
//! in between, or somebody deleted the reservation before the commit.
//!
//! Order matters: first the consumer's status is written (the fence: it moves the resourceVersion that guards W4, so
//! a commit to this reservation that is still on its way fails), then the copy goes, then the lock.

use vpn_types::{MaskConsumerPhase, Reason};

use super::Scene;
use crate::{
    engine::{Op, Step, delete, remove_finalizer},
    status::{self, Verdict},
    world::{ConsumerView, Kind, ReservationView},
};

/// The next step towards "no reservation".
pub fn decide(scene: &mut Scene<'_>, consumer: &ConsumerView, reservation: &ReservationView) -> Step {
    scene.progress(consumer).withdrawing = Some(reservation.meta.uid.clone());
    fence(scene, consumer, reservation).or_else(|| surrender(scene, consumer, reservation))
}

fn fence(scene: &Scene<'_>, consumer: &ConsumerView, reservation: &ReservationView) -> Step {
    let (reason, message) = match &scene.trouble {
        Some(trouble) => (trouble.reason, trouble.message.clone()),
        None => {
            (Reason::NoFreeSlot, format!("MaskReservation {} could not be used; back in line", reservation.meta.key))
        }
    };
    let verdict = Verdict::not_ready(MaskConsumerPhase::Waiting, reason, message);
    match status::consumer(&consumer.meta, &consumer.status, &verdict, None, scene.now.wall) {
        Some(patch) => Step::send(Op::PatchStatus(Kind::Consumer, consumer.meta.key.clone(), patch)).provisional(),
        None => Step::Idle,
    }
}

/// Lets go of a reservation that nothing can be committed to any more: its copy, then the lock.
pub fn surrender(scene: &Scene<'_>, consumer: &ConsumerView, reservation: &ReservationView) -> Step {
    let mut copies = scene.world.copies_of(&consumer.meta.uid);
    let copy = copies.find(|copy| copy.reservation.as_ref() == Some(&reservation.meta.uid));
    if let Some(copy) = copy.filter(|copy| !copy.meta.deleting) {
        return Step::send(delete(Kind::Secret, &copy.meta, None)).provisional();
    }
    if !reservation.meta.deleting {
        return Step::send(delete(Kind::Reservation, &reservation.meta, None)).provisional();
    }
    match remove_finalizer(Kind::Reservation, &reservation.meta) {
        Some(op) => Step::send(op).provisional(),
        None => Step::Idle,
    }
}
