//! Answers to requests of the consumers controller that the stores do not handle.

use vpn_types::Reason;

use super::{
    context::event,
    release::{find_users, is_copy},
};
use crate::{
    controllers::{Answer, Context, context::Failure},
    model::{Backoff, Kind, NewObject, ObjectKey, Operation, Propagation, ReconcileRequest, Uid},
    state::{CopyView, Object, Outcome, PodView},
};

/// Handles the outcome of a request of this controller.
pub fn answered(ctx: &mut Context, answer: &Answer<'_>) {
    let Answer { request, operation, outcome, .. } = answer;
    match (request, outcome) {
        (ReconcileRequest::PodList(namespace), Outcome::Pods(pods)) => pods_listed(ctx, namespace, pods),
        (ReconcileRequest::PodList(namespace), _) => {
            for consumer in ctx.memory.consumers.followers.list_failed(namespace, ctx.now) {
                ctx.enqueue(ReconcileRequest::Consumer(consumer));
            }
        }
        (_, Outcome::Gone | Outcome::NotFound | Outcome::Conflict) if is_about_pod(operation) => {
            pod_gone(ctx, operation);
        }
        // The write that removes the last finalizer returns the object one last time.
        (_, Outcome::Object(object)) if !operation.is_read() && object.is_final_state() => {}
        (ReconcileRequest::Consumer(key), Outcome::Object(object)) => {
            object_seen(ctx, key, object);
            note_foreground_deletion(ctx, operation, object);
        }
        (ReconcileRequest::Consumer(key), Outcome::Gone | Outcome::NotFound) => dependency_gone(ctx, key, operation),
        _ => {}
    }
}

fn is_about_pod(operation: &Operation) -> bool {
    operation.target().is_some_and(|(kind, _)| kind == Kind::Pod)
}

fn pod_gone(ctx: &mut Context, operation: &Operation) {
    if let Operation::Delete { key, uid, .. } = operation
        && let Some(pods) = ctx.state.pods.get_mut(&key.namespace)
    {
        pods.not_found(uid);
    }
}

/// Notes that step 4 of the release is done.
fn note_foreground_deletion(ctx: &mut Context, operation: &Operation, object: &Object) {
    if let Operation::Delete { kind: Kind::Consumer, propagation: Some(Propagation::Foreground), .. } = operation {
        ctx.memory.consumers.of(&object.meta().uid).upgraded = true;
    }
}

fn uid_of(ctx: &Context, key: &ObjectKey) -> Option<Uid> {
    ctx.state.consumers.get(key).map(|consumer| consumer.meta.uid.clone())
}

/// Notes that an object that a consumer depends on is gone.
fn dependency_gone(ctx: &mut Context, key: &ObjectKey, operation: &Operation) {
    let Some(uid) = uid_of(ctx, key) else { return };
    match operation.target().map(|(kind, _)| kind) {
        Some(Kind::Secret) => {
            let memory = ctx.memory.consumers.of(&uid);
            memory.copy_gone = true;
            memory.conflicting_secret = None;
        }
        Some(Kind::Provider) => ctx.memory.consumers.of(&uid).provider_gone = true,
        Some(Kind::Reservation) if matches!(operation, Operation::Get(..)) => {
            ctx.memory.consumers.of(&uid).lock_gone = true;
        }
        _ => {}
    }
}

/// Notes an object that a consumer depends on, as it was written or read.
fn object_seen(ctx: &mut Context, key: &ObjectKey, object: &Object) {
    let Some(uid) = uid_of(ctx, key) else { return };
    match object {
        Object::Copy(copy) => copy_seen(ctx, &uid, copy),
        Object::Provider(_) => ctx.memory.consumers.of(&uid).provider_gone = false,
        Object::Reservation(reservation) => {
            if uid != reservation.consumer_uid {
                ctx.memory.consumers.of(&uid).lock_gone = true;
            } else if let Some(memory) = ctx.memory.consumers.by_uid.get_mut(&uid) {
                memory.lock_gone = false;
            }
        }
        _ => {}
    }
}

fn copy_seen(ctx: &mut Context, uid: &Uid, copy: &CopyView) {
    let is_ours = copy.consumer_uid.as_ref() == Some(uid);
    if is_ours && copy.labeled && !ctx.memory.consumers.by_uid.contains_key(uid) {
        // The expected case, in which nothing has to be remembered.
        return;
    }
    let is_copy = ctx.state.consumer_by_uid(uid).is_some_and(|consumer| is_copy(copy, consumer));
    let memory = ctx.memory.consumers.of(uid);
    // If the Secret belongs to something else, our copy is gone, which is all that the release needs to know.
    memory.copy_gone = !is_copy;
    let before = memory.conflicting_secret.take();
    memory.conflicting_secret = (!is_ours || !copy.labeled).then(|| (copy.clone(), ctx.now.monotonic));
    if !is_copy && before.is_none_or(|(before, _)| before.meta.uid != copy.meta.uid) {
        report_foreign_secret(ctx, uid, copy);
    }
}

/// Records that a Secret has the name of the copy of an active consumer. A consumer without a slot reports that in its
/// status.
fn report_foreign_secret(ctx: &mut Context, uid: &Uid, copy: &CopyView) {
    let Some(consumer) = ctx.state.consumer_by_uid(uid).filter(|consumer| consumer.is_active()) else { return };
    let message = format!(
        "Secret {} does not belong to MaskConsumer {}: something created it after the copy of the credentials was \
         deleted. Delete it, and the operator copies the credentials again",
        copy.meta.key.name, consumer.meta.key.name
    );
    let taken = event(consumer, true, Reason::SecretNameTaken, "Restore", message);
    ctx.record(taken);
}

fn pods_listed(ctx: &mut Context, namespace: &std::sync::Arc<str>, listed: &[PodView]) {
    let Some(pods) = ctx.state.pods.get_mut(namespace) else { return };
    pods.merge(listed);
    for key in ctx.memory.consumers.followers.list_answered(namespace, ctx.now) {
        let Some(consumer) = ctx.state.consumers.get(&key) else { continue };
        let held: Vec<_> = ctx.state.reservations_of(&consumer.meta.uid).collect();
        let users = find_users(consumer, &held, &ctx.state.pods[namespace]);
        let uid = consumer.meta.uid.clone();
        ctx.memory.consumers.of(&uid).users = Some(users);
        ctx.enqueue(ReconcileRequest::Consumer(key));
    }
}

/// Handles a failed request. A consumer that cannot take its slot leaves it to the next one in the queue, and retries
/// after a backoff.
pub fn failed(ctx: &mut Context, failure: &Failure<'_>, mut backoff: Backoff) -> Option<Backoff> {
    if let ReconcileRequest::Consumer(key) = failure.request
        && let Some(consumer) = ctx.state.consumers.get(key)
        && consumer.is_waiting()
    {
        let uid = consumer.meta.uid.clone();
        match failure.operation {
            Operation::Create(_, NewObject::Reservation(_)) => {
                ctx.allocator.end_grant(&uid);
                backoff.gate = false;
            }
            Operation::Create(_, NewObject::Secret(_)) | Operation::PatchStatus(Kind::Consumer, ..) => {
                let reservation = ctx.state.reservations_of(&uid).next().map(|view| view.meta.uid.clone());
                let memory = ctx.memory.consumers.of(&uid);
                // A second rejection while withdrawing means that the fence itself is rejected: that has to wait.
                backoff.gate = memory.withdrawing.is_some();
                memory.withdrawing = reservation;
            }
            _ => {}
        }
    }
    Some(backoff)
}
