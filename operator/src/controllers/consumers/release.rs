//! Release: the slot is free only when its last user is gone.
//!
//! 0. The deletionTimestamp of the consumer is the durable intent; our finalizer keeps the object.
//! 1. The copied Secret is deleted: no new container can start with it.
//! 2. One consistent list of the namespace's Pods returns the remaining users; they are recorded on the reservation. The
//!    Pod that the slot was for is one of them even if it is gone, unless its end was seen.
//! 3. Users that the consumer owns are deleted, before the garbage collector can remove its owner reference from a Pod
//!    that has a second owner.
//! 4. If a user belongs to another workload, such as a Deployment, the deletion of the consumer is upgraded to
//!    foreground, so that owned workloads of any kind are deleted. Otherwise nothing is left that could start a
//!    container with the credentials, because the Secret is gone. The release then does not wait for the garbage
//!    collector, which is slow when there is much to do.
//! 5. When no user is left and any hold is recorded, our finalizer is removed.
//!
//! Step 6, deleting the reservation, belongs to the reservations controller.

use std::{sync::Arc, time::Duration};

use chrono::SecondsFormat;
use serde_json::json;
use vpn_types::{MaskConsumerPhase, MaskReservationStatus, Reason, SlotUser};

use super::{
    assign::copy_name,
    context::{ConsumerContext, event, reservations},
    held::describe_wait,
    memory::Listing,
    missing::{MissingPod, missing_pod},
    shared::shared,
};
use crate::{
    controllers::{ready::ReadyCondition, status, verification},
    model::{Backoff, Effect, Kind, ObjectKey, Operation, Propagation, Step, delete, delete_pod, remove_finalizer},
    state::{
        ConsumerView, CopyView, Ending, Injection, NamespacePods, PodStage, PodView, ReservationView, SlotUserView,
    },
};

/// How long the Pods of a release may take to stop before a status reports it. Most stop sooner.
const REPORT_DELAY: Duration = Duration::from_secs(3);

/// Returns the next step for a consumer that is being deleted.
pub fn decide(ctx: &mut ConsumerContext<'_>, consumer: &ConsumerView) -> Step {
    if consumer.meta.finalizer.is_none() {
        return Step::Idle;
    }
    let state = ctx.state;
    let held: Vec<_> = reservations(state, consumer).collect();
    if let Some(backoff) = ctx.active_backoff().filter(|backoff| backoff.should_be_reported()) {
        let backoff = backoff.clone();
        return report_backoff(ctx, consumer, &backoff);
    }
    let took_no_slot = held.is_empty() && consumer.assigned.is_none();
    remove_copies(ctx, consumer)
        .or_else(|| find_lock(ctx, consumer, &held))
        .or_else(|| if took_no_slot { Step::Idle } else { stop_users(ctx, consumer, &held) })
        .or_else(|| finish(ctx, consumer, &held))
}

fn report_backoff(ctx: &mut ConsumerContext<'_>, consumer: &ConsumerView, backoff: &Backoff) -> Step {
    let message = format!("Cannot release the slot: {}", backoff.message);
    report(ctx, consumer, backoff.reason, message).and_wait_until(backoff.until)
}

/// Step 1. `WaitUntil(MAX)` means "wait for the watch".
fn remove_copies(ctx: &mut ConsumerContext<'_>, consumer: &ConsumerView) -> Step {
    let state = ctx.state;
    let found = state.copies_of(&consumer.meta.uid).next().cloned();
    // The garbage collector may have removed the owner reference, and a user the label, by which it is watched.
    let read = || ctx.conflicting_secret(consumer).filter(|secret| is_copy(secret, consumer));
    if let Some(copy) = found.or_else(read) {
        if !copy.meta.deleting {
            return Step::send(delete(Kind::Secret, &copy.meta, None));
        }
        let message = format!(
            "A finalizer of another component keeps Secret {}; the slot is held until that finalizer is removed",
            copy.meta.key.name
        );
        return match ctx.wait_for_secret(consumer, &copy) {
            Step::WaitUntil(at) => report(ctx, consumer, Reason::HeldByFinalizer, message).and_wait_until(at),
            read => read,
        };
    }
    // A committed consumer has a copy. If the store has none, the watch may lag: only a read confirms that it is gone.
    match &consumer.assigned {
        Some(assigned) if !ctx.memory(consumer).copy_gone => {
            let key = ObjectKey { namespace: consumer.meta.key.namespace.clone(), name: assigned.secret.clone() };
            Step::send(Operation::Get(Kind::Secret, key))
        }
        _ => Step::Idle,
    }
}

/// Whether a Secret is the copy of an assigned consumer.
pub fn is_copy(secret: &CopyView, consumer: &ConsumerView) -> bool {
    match &secret.consumer_uid {
        Some(owner) => *owner == consumer.meta.uid,
        None => {
            let reservation = consumer.assigned.as_ref().map(|assigned| &assigned.reservation);
            secret.reservation.as_ref().is_some_and(|made_for| Some(made_for) == reservation)
        }
    }
}

/// Reads the lock of a committed consumer if the store has none: the watch may lag, and only a read confirms that it is
/// gone.
fn find_lock(ctx: &mut ConsumerContext<'_>, consumer: &ConsumerView, held: &[&ReservationView]) -> Step {
    let Some(assigned) = consumer.assigned.as_deref() else { return Step::Idle };
    let name = vpn_types::reservation_name(&assigned.provider.name, assigned.slot as usize);
    let key = ObjectKey::new(assigned.provider.namespace.clone(), name);
    let known = held.iter().any(|reservation| reservation.meta.key == key);
    if known || ctx.memory(consumer).lock_gone {
        return Step::Idle;
    }
    Step::send(Operation::Get(Kind::Reservation, key))
}

/// Steps 2 to 4, and the wait for the last user.
fn stop_users(ctx: &mut ConsumerContext<'_>, consumer: &ConsumerView, held: &[&ReservationView]) -> Step {
    if let Some(step) = list_users(ctx, consumer, held) {
        return step;
    }
    let namespace = &consumer.meta.key.namespace;
    let Some(pods) = ctx.state.pods.get(namespace) else { return Step::WaitUntil(Duration::MAX) };
    let missing = match missing_pod(ctx, consumer, pods) {
        MissingPod::Undelivered => return Step::WaitUntil(Duration::MAX),
        MissingPod::MayRun(pod) => Some(pod),
        MissingPod::None => None,
    };
    let users = update_users(ctx, consumer, held, pods, missing);
    // Order and other details do not count: another operator may not have seen yet that the same Pod is on a node.
    let covers = |known: &SlotUserView, user: &SlotUserView| {
        known.uid == user.uid && (known.node.is_some() || user.node.is_none())
    };
    let lacks = |recorded: &[SlotUserView]| users.iter().any(|user| !recorded.iter().any(|known| covers(known, user)));
    let present: Vec<_> = users.iter().filter_map(|user| pods.get(&user.uid)).collect();
    if let Some(reservation) = held.iter().find(|reservation| lacks(&reservation.users)) {
        return Step::send(record(reservation, &users)).with_event(shared(consumer, &present));
    }
    let owned = |pod: &&&PodView| may_start(consumer, pod) && !pod.meta.deleting;
    if let Some(pod) = present.iter().find(owned) {
        return Step::send(delete_pod(&pod.meta, pod.has_no_grace_period));
    }
    if let Some(step) = delete_in_foreground(ctx, consumer, held, pods) {
        return step;
    }
    let remaining: Vec<_> = present.into_iter().filter(|pod| pod.stage == PodStage::Running).collect();
    if let Some(wait) = describe_wait(consumer, &remaining, ctx.now) {
        let now = ctx.now.monotonic;
        let report_at = *ctx.memory(consumer).waiting_since.get_or_insert(now) + REPORT_DELAY;
        // Nobody has to act on a Pod that is stopping in time.
        if wait.reason == Reason::Releasing && now < report_at {
            return Step::WaitUntil(report_at.min(wait.until));
        }
        return report(ctx, consumer, wait.reason, wait.message).or_sooner(|| Step::WaitUntil(wait.until));
    }
    // Gone without evidence: the watch saw the user disappear while it ran, or never saw it.
    let is_unclean =
        |user: &&SlotUserView| pods.get(&user.uid).is_none() && pods.ending(&user.uid) != Some(Ending::Clean);
    if let Some(user) = users.iter().find(is_unclean) {
        ctx.memory(consumer).unclean = Some(user.name.clone());
    }
    Step::Idle
}

/// Returns the known users, and Pods that have been created since. A controller may recreate a Pod, and it counts as
/// soon as it is bound, even if it cannot start without the Secret.
fn update_users(
    ctx: &mut ConsumerContext<'_>,
    consumer: &ConsumerView,
    held: &[&ReservationView],
    pods: &NamespacePods,
    missing: Option<SlotUserView>,
) -> Vec<SlotUserView> {
    let known = ctx.memory(consumer).users.clone().unwrap_or_default();
    let mut users = find_users(consumer, held, pods);
    users.extend(missing.filter(|pod| !users.iter().any(|user| user.uid == pod.uid)));
    users.extend(
        known.iter().filter(|user| !users.iter().any(|other| other.uid == user.uid)).cloned().collect::<Vec<_>>(),
    );
    users.sort_by(|one, other| (&one.name, &one.uid).cmp(&(&other.name, &other.uid)));
    if users != known {
        ctx.memory(consumer).users = Some(users.clone());
    }
    let secrets = secrets(consumer, held);
    let uids = users.iter().map(|user| &user.uid);
    ctx.followers.follow(&consumer.meta.key.namespace, &consumer.meta.uid, &secrets, uids);
    users
}

/// Step 4, once, where it is needed. Pods without a node count too: a Pod of a Deployment would start with the next
/// Secret of that name, which exists again when the Mask is recreated.
fn delete_in_foreground(
    ctx: &mut ConsumerContext<'_>,
    consumer: &ConsumerView,
    held: &[&ReservationView],
    pods: &NamespacePods,
) -> Option<Step> {
    let secrets = secrets(consumer, held);
    let mut related = pods.related(&consumer.meta.uid, &secrets);
    if !related.any(|pod| pod.is_of_workload && pod.injection.is_none() && pod.stage != PodStage::Ended) {
        return None;
    }
    let memory = ctx.memory(consumer);
    memory.upgraded |= consumer.meta.foreground;
    (!memory.upgraded).then(|| Step::send(delete(Kind::Consumer, &consumer.meta, Some(Propagation::Foreground))))
}

/// Step 2. Returns `None` once the users are known.
fn list_users(ctx: &mut ConsumerContext<'_>, consumer: &ConsumerView, held: &[&ReservationView]) -> Option<Step> {
    let namespace = consumer.meta.key.namespace.clone();
    if ctx.memory(consumer).users.is_some() {
        return None;
    }
    let watched = ctx.state.pods.get(&namespace);
    match ctx.memory(consumer).listing {
        Listing::NotYet => {
            let first = ctx.followers.begin(&namespace, &consumer.meta.uid);
            ctx.memory(consumer).listing = if first { Listing::ByWatch } else { Listing::ByRequest };
            if first {
                // The watch starts after the Secret is gone, so its first list is the consistent list.
                ctx.effects.push(Effect::WatchPods(namespace));
                return Some(Step::WaitUntil(Duration::MAX));
            }
            list_users(ctx, consumer, held)
        }
        // Only after its first list does the watch miss no ending.
        _ if !watched.is_some_and(NamespacePods::is_synced) => Some(Step::WaitUntil(Duration::MAX)),
        Listing::ByRequest => {
            ctx.followers.want_list(&consumer.meta.key);
            Some(match ctx.list_backoff.clone() {
                Some(backoff) => report_backoff(ctx, consumer, &backoff),
                None => Step::WaitUntil(Duration::MAX),
            })
        }
        Listing::ByWatch => {
            let users = watched.map(|pods| find_users(consumer, held, pods)).unwrap_or_default();
            ctx.memory(consumer).users = Some(users);
            None
        }
    }
}

/// Returns the names that the copied Secret of a consumer has or had.
fn secrets(consumer: &ConsumerView, held: &[&ReservationView]) -> Vec<Arc<str>> {
    let providers = held.iter().filter_map(|reservation| reservation.provider_uid.as_ref());
    let mut secrets: Vec<Arc<str>> = providers.map(|provider| copy_name(consumer, provider)).collect();
    secrets.extend(consumer.assigned.as_ref().map(|assigned| assigned.secret.clone()));
    secrets.sort_unstable();
    secrets.dedup();
    secrets
}

/// Returns the current users, and those that were recorded before a restart.
pub fn find_users(consumer: &ConsumerView, held: &[&ReservationView], pods: &NamespacePods) -> Vec<SlotUserView> {
    let uses = |pod: &&PodView| match pod.stage {
        PodStage::Ended => false,
        // Not a user yet, but about to become one: if the consumer owns it, it is deleted with the others.
        PodStage::Unbound => may_start(consumer, pod),
        PodStage::Running => true,
    };
    let secrets = secrets(consumer, held);
    let mut users: Vec<_> = (pods.related(&consumer.meta.uid, &secrets))
        .filter(uses)
        .map(|pod| SlotUserView { name: pod.meta.key.name.clone(), uid: pod.meta.uid.clone(), node: pod.node.clone() })
        .collect();
    for user in held.iter().flat_map(|reservation| reservation.users.iter()) {
        if !users.iter().any(|known| known.uid == user.uid) {
            users.push(user.clone());
        }
    }
    users.sort_by(|one, other| (&one.name, &one.uid).cmp(&(&other.name, &other.uid)));
    users
}

/// Whether a Pod may start on the slot: the consumer owns it, or a request that removes its scheduling gate may still
/// arrive. Of the Pods that share a Mask, only the one in `status.pod` can get such a request.
fn may_start(consumer: &ConsumerView, pod: &PodView) -> bool {
    pod.consumers.contains(&consumer.meta.uid)
        || pod.injection == Some(Injection::OwnMask)
        || consumer.pod.as_ref().is_some_and(|named| named.uid == pod.meta.uid)
}

fn record(reservation: &ReservationView, users: &[SlotUserView]) -> Operation {
    let users = users.iter().map(|user| SlotUser {
        name: user.name.to_string(),
        uid: user.uid.to_string(),
        node: user.node.as_ref().map(ToString::to_string),
    });
    let status = MaskReservationStatus { users: Some(users.collect()), ..MaskReservationStatus::default() };
    patch_reservation(reservation, &json!(status))
}

fn patch_reservation(reservation: &ReservationView, status: &serde_json::Value) -> Operation {
    let version = reservation.meta.version.to_string();
    let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
    Operation::PatchStatus(Kind::Reservation, reservation.meta.key.clone(), patch)
}

/// Step 5.
fn finish(ctx: &mut ConsumerContext<'_>, consumer: &ConsumerView, held: &[&ReservationView]) -> Step {
    for reservation in held {
        let delay = hold(ctx, consumer, reservation);
        if delay > Duration::ZERO && reservation.hold_until.is_none() {
            let until = ctx.now.wall + delay;
            let until = until.to_rfc3339_opts(SecondsFormat::Secs, true);
            let unclean = ctx.memory(consumer).unclean.clone();
            let why = unclean.as_ref().map_or_else(String::new, |pod| {
                format!(", because Pod {pod} was removed before its node confirmed that its containers had stopped")
            });
            let message = format!("MaskReservation {} is held until {until}{why}", reservation.meta.key);
            let operation = patch_reservation(reservation, &json!({ "holdUntil": until }));
            let reason = Reason::HeldUntilDeadline;
            return Step::send(operation).with_event(Some(event(consumer, unclean.is_some(), reason, "Hold", message)));
        }
    }
    let released = consumer.assigned.as_ref().map(|assigned| {
        let message = format!("Released slot {} of MaskProvider {}", assigned.slot, assigned.provider);
        event(consumer, false, Reason::SlotFree, "Release", message)
    });
    match remove_finalizer(Kind::Consumer, &consumer.meta) {
        Some(operation) => Step::send(operation).with_event(released),
        None => Step::Idle,
    }
}

/// Returns how long the slot stays held after its last user: a VPN service counts a dropped session for a while.
fn hold(ctx: &mut ConsumerContext<'_>, consumer: &ConsumerView, reservation: &ReservationView) -> Duration {
    let unclean = ctx.memory(consumer).unclean.is_some();
    let provider = reservation.provider().and_then(|key| ctx.state.providers.get(&key));
    match provider {
        Some(provider) if unclean => provider.unclean_delay,
        Some(provider) => provider.release_delay,
        None if unclean => vpn_types::MaskProviderReleaseSpec::DEFAULT_UNCLEAN_DELAY,
        None => Duration::ZERO,
    }
}

fn report(ctx: &mut ConsumerContext<'_>, consumer: &ConsumerView, reason: Reason, message: String) -> Step {
    // The end of a verification is not worth a status or an Event.
    if reason == Reason::Releasing && verification::verified_by(ctx.state, consumer).is_some() {
        return Step::Idle;
    }
    let condition = ReadyCondition::not_ready(MaskConsumerPhase::Terminating, reason, message);
    // The slot still belongs to this consumer: `status.provider` stays until the consumer is gone.
    let assigned = consumer.assigned.as_deref();
    let patch = status::consumer(&consumer.meta, &consumer.status, &condition, assigned, ctx.now.wall);
    let Some(patch) = patch else { return Step::Idle };
    if reason == Reason::Releasing
        && let Err(until) = ctx.throttles.releases.take(ctx.now)
    {
        return Step::WaitUntil(until);
    }
    let event =
        (reason != Reason::Releasing).then(|| event(consumer, true, reason, "Release", condition.message.clone()));
    Step::status(Operation::PatchStatus(Kind::Consumer, consumer.meta.key.clone(), patch)).with_event(event)
}
