//! Assigned consumers: they keep their slot (I3). Missing objects are created again. A consumer is evicted only for the
//! reasons of I8.

use vpn_types::{MaskProviderPhase, Reason};

use super::{
    assign,
    context::{ConsumerContext, event, reservations},
    withdraw::{delete_reservation, remove_copy},
};
use crate::{
    allocator::Grant,
    controllers::status,
    model::{EventRecord, Kind, ObjectKey, Operation, Propagation, Step, delete_unchanged},
    state::{Assigned, ConsumerView, CredentialsState, ProviderView, ReservationView},
};

/// Returns the next step for a consumer that is committed to a slot.
pub fn decide(ctx: &mut ConsumerContext<'_>, consumer: &ConsumerView) -> Step {
    let Some(assigned) = consumer.assigned.as_deref() else { return Step::Idle };
    let state = ctx.state;
    let provider = match state.providers.get(&assigned.provider) {
        Some(provider) if provider.meta.uid == assigned.provider_uid => provider,
        Some(_) => return evict(consumer, format!("MaskProvider {} was deleted and created again", assigned.provider)),
        // Its event may still be in flight: only a read confirms that it is gone.
        None if ctx.existing_memory(consumer).is_some_and(|memory| memory.provider_gone) => {
            return evict(consumer, format!("MaskProvider {} was deleted", assigned.provider));
        }
        None => return Step::send(Operation::Get(Kind::Provider, assigned.provider.clone())),
    };
    if provider.meta.deleting {
        return evict(consumer, format!("MaskProvider {} is being deleted", assigned.provider));
    }
    if assigned.slot >= provider.max_slots {
        let why = format!(
            "Slot {} of MaskProvider {} is beyond its maxSlots {}",
            assigned.slot, assigned.provider, provider.max_slots
        );
        return evict(consumer, why);
    }
    if provider.status.phase == Some(MaskProviderPhase::ErrVerifyFailed)
        && provider.releases_on_failure()
        && consumer.verifies.is_none()
    {
        let why = format!("MaskProvider {} failed verification (spec.verify.onFailure: Release)", assigned.provider);
        return evict(consumer, why);
    }
    let grant =
        Grant { provider: assigned.provider.clone(), provider_uid: assigned.provider_uid.clone(), slot: assigned.slot };
    let name = vpn_types::reservation_name(&assigned.provider.name, assigned.slot as usize);
    let key = ObjectKey::new(assigned.provider.namespace.clone(), name);
    match state.reservations.get(&key) {
        // It was force-deleted: create the lock again.
        None => Step::send(assign::reserve(consumer, &grant)).with_event(restored(consumer, "MaskReservation", &key)),
        // It is probably the consumer's own: the slot is locked, and no other holder is known.
        Some(reservation) if reservation.is_unreadable() => Step::Idle,
        // If the watch lags, this may still be the former holder: only a read confirms it.
        Some(reservation)
            if reservation.consumer_uid != consumer.meta.uid
                && !ctx.existing_memory(consumer).is_some_and(|memory| memory.lock_gone) =>
        {
            Step::send(Operation::Get(Kind::Reservation, key))
        }
        Some(reservation) if reservation.consumer_uid != consumer.meta.uid => {
            evict(consumer, format!("MaskReservation {key} is now held by MaskConsumer {}", reservation.consumer))
        }
        Some(reservation) => keep_copy(ctx, consumer, assigned, provider, reservation)
            .or_sooner(|| keep_status(ctx, consumer, assigned, reservation))
            .or_sooner(|| free_surplus(ctx, consumer, assigned, reservation)),
    }
}

/// Evicts a consumer through the full release path. The masks controller creates a new consumer, which keeps the queue
/// position of the old one.
fn evict(consumer: &ConsumerView, why: String) -> Step {
    let delete = delete_unchanged(Kind::Consumer, &consumer.meta, Some(Propagation::Background));
    Step::send(delete).with_event(Some(event(consumer, true, Reason::Evicted, "Evict", why)))
}

fn keep_copy(
    ctx: &mut ConsumerContext<'_>,
    consumer: &ConsumerView,
    assigned: &Assigned,
    provider: &ProviderView,
    reservation: &ReservationView,
) -> Step {
    // Without its source, a copy stays unchanged: assigned users keep running.
    let CredentialsState::Present(source) = &ctx.state.slot_credentials(provider, assigned.slot) else {
        return Step::Idle;
    };
    let key = ObjectKey { namespace: consumer.meta.key.namespace.clone(), name: assigned.secret.clone() };
    let known = ctx.state.copies.get(&key).cloned();
    match known.or_else(|| ctx.conflicting_secret(consumer)) {
        None => {
            let event = restored(consumer, "Secret", &key);
            Step::maintain(assign::copy_credentials(consumer, reservation, provider, source, key)).with_event(event)
        }
        Some(copy) if copy.consumer_uid.as_ref() != Some(&consumer.meta.uid) || copy.meta.deleting => {
            ctx.wait_for_secret(consumer, &copy)
        }
        Some(copy) if assign::is_current(&copy, reservation, source) => Step::Idle,
        Some(copy) => {
            // A copy without the hash of its source was created by an older version.
            let changed = copy.source_hash.as_ref().is_some_and(|hash| *hash != source.hash);
            let message = format!(
                "Secret {} is being updated with the changed credentials of MaskProvider {}; running Pods keep the \
                 environment they started with",
                assigned.secret, assigned.provider
            );
            let event = changed.then(|| event(consumer, false, Reason::CredentialsChanged, "Copy", message));
            Step::maintain(assign::refresh_copy(&copy, Some(reservation), provider, source)).with_event(event)
        }
    }
}

fn restored(consumer: &ConsumerView, kind: &str, key: &ObjectKey) -> Option<EventRecord> {
    let message = format!("{kind} {key} was deleted and is being created again");
    Some(event(consumer, true, Reason::Restored, "Restore", message))
}

/// Updates the status: the reservation that exists now, and the message of this version.
fn keep_status(
    ctx: &ConsumerContext<'_>,
    consumer: &ConsumerView,
    assigned: &Assigned,
    reservation: &ReservationView,
) -> Step {
    let assigned = Assigned { reservation: reservation.meta.uid.clone(), ..assigned.clone() };
    let condition = assign::active_condition(&assigned);
    match status::consumer(&consumer.meta, &consumer.status, &condition, Some(&assigned), ctx.now.wall) {
        Some(patch) => Step::status(Operation::PatchStatus(Kind::Consumer, consumer.meta.key.clone(), patch)),
        None => Step::Idle,
    }
}

/// Deletes what another operator created for this consumer at the same time: the commit has settled which objects
/// count.
fn free_surplus(
    ctx: &ConsumerContext<'_>,
    consumer: &ConsumerView,
    assigned: &Assigned,
    kept: &ReservationView,
) -> Step {
    let mut others = reservations(ctx.state, consumer).filter(|other| other.meta.uid != kept.meta.uid);
    others
        .next()
        .map_or(Step::Idle, |other| delete_reservation(ctx, consumer, other))
        .or_else(|| remove_copy(ctx.state, consumer, |copy| *copy.meta.key.name != *assigned.secret))
}
