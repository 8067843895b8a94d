//! An assigned consumer: it keeps its slot (I3). What is missing beside it is made again; it is evicted only for the
//! reasons of I8.

use vpn_types::{MaskProviderPhase, Reason};

use super::{
    assign,
    context::{ConsumerContext, event, reservations},
    withdraw::{remove_copy, surrender},
};
use crate::{
    allocator::Grant,
    controllers::status,
    model::{EventRecord, Kind, ObjectKey, Operation, Propagation, Step, delete_unchanged},
    state::{Assigned, ConsumerView, ProviderView, ReservationView, Source},
};

/// The next step for a consumer that is committed to a slot.
pub fn decide(ctx: &mut ConsumerContext<'_>, consumer: &ConsumerView) -> Step {
    let Some(assigned) = consumer.assigned.as_deref() else { return Step::Idle };
    let state = ctx.state;
    let provider = match state.providers.get(&assigned.provider) {
        Some(provider) if provider.meta.uid == assigned.provider_uid => provider,
        Some(_) => return evict(consumer, format!("MaskProvider {} was deleted and created again", assigned.provider)),
        // Its event may be on its way: only a read tells that it is gone.
        None if ctx.recall(consumer).is_some_and(|memory| memory.provider_gone) => {
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
        && provider.verify.as_ref().is_some_and(|verify| verify.release_on_failure)
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
        // Somebody forced it away: the lock is posted again.
        None => Step::send(assign::reserve(consumer, &grant)).with_event(restored(consumer, "MaskReservation", &key)),
        // It may well be its own: the slot is locked, and nothing is known of anybody else who holds it.
        Some(reservation) if reservation.is_unreadable() => Step::Idle,
        // This may be the former holder still, when its watch is late: only a read tells.
        Some(reservation)
            if reservation.consumer_uid != consumer.meta.uid
                && !ctx.recall(consumer).is_some_and(|memory| memory.lock_gone) =>
        {
            Step::send(Operation::Get(Kind::Reservation, key))
        }
        Some(reservation) if reservation.consumer_uid != consumer.meta.uid => {
            evict(consumer, format!("MaskReservation {key} is now held by MaskConsumer {}", reservation.consumer))
        }
        Some(reservation) => keep_copy(ctx, consumer, assigned, provider, reservation)
            .or_else(|| keep_status(ctx, consumer, assigned, reservation))
            .or_else(|| free_surplus(ctx, consumer, assigned, reservation)),
    }
}

/// Evicts through the full release path. The masks controller makes a new consumer, which waits in its old place.
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
    // Without its source a copy stays as it is: assigned users keep running.
    let Source::Present(source) = &ctx.state.credentials(provider, assigned.slot) else { return Step::Idle };
    let key = ObjectKey { namespace: consumer.meta.key.namespace.clone(), name: assigned.secret.clone() };
    let known = ctx.state.copies.get(&key).cloned();
    match known.or_else(|| ctx.obstacle(consumer)) {
        None => {
            let note = restored(consumer, "Secret", &key);
            Step::maintain(assign::copy_credentials(consumer, reservation, provider, source, key)).with_event(note)
        }
        Some(copy) if copy.consumer_uid.as_ref() != Some(&consumer.meta.uid) || copy.meta.deleting => Step::Idle,
        Some(copy) if assign::is_current(&copy, reservation, source) => Step::Idle,
        Some(copy) => {
            // One that does not say what it was made from is of an older version.
            let changed = copy.source_hash.as_ref().is_some_and(|hash| *hash != source.hash);
            let message = format!(
                "Secret {} is being updated with the changed credentials of MaskProvider {}; running Pods keep the \
                 environment they started with",
                assigned.secret, assigned.provider
            );
            let news = changed.then(|| event(consumer, false, Reason::CredentialsChanged, "Copy", message));
            Step::maintain(assign::refresh_copy(&copy, Some(reservation), provider, source)).with_event(news)
        }
    }
}

fn restored(consumer: &ConsumerView, kind: &str, key: &ObjectKey) -> Option<EventRecord> {
    let message = format!("{kind} {key} was deleted and is being created again");
    Some(event(consumer, true, Reason::Restored, "Restore", message))
}

/// The status names the reservation that is there now, and says what this version says.
fn keep_status(
    ctx: &ConsumerContext<'_>,
    consumer: &ConsumerView,
    assigned: &Assigned,
    reservation: &ReservationView,
) -> Step {
    let assigned = Assigned { reservation: reservation.meta.uid.clone(), ..assigned.clone() };
    let verdict = assign::active(&assigned);
    match status::consumer(&consumer.meta, &consumer.status, &verdict, Some(&assigned), ctx.now.wall) {
        Some(patch) => Step::tell(Operation::PatchStatus(Kind::Consumer, consumer.meta.key.clone(), patch)),
        None => Step::Idle,
    }
}

/// What another operator won or made for this consumer at the same time: the commit has settled what counts.
fn free_surplus(
    ctx: &ConsumerContext<'_>,
    consumer: &ConsumerView,
    assigned: &Assigned,
    kept: &ReservationView,
) -> Step {
    let mut others = reservations(ctx.state, consumer).filter(|other| other.meta.uid != kept.meta.uid);
    others
        .next()
        .map_or(Step::Idle, |other| surrender(ctx, consumer, other))
        .or_else(|| remove_copy(ctx.state, consumer, |copy| *copy.meta.key.name != *assigned.secret))
}
