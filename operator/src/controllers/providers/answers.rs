//! Answers to requests of the providers controller that the stores do not handle: the name of a verification object is
//! taken, or its Pod was rejected.

use vpn_types::Reason;

use crate::{
    controllers::{
        Answer, Context,
        context::Failure,
        verification::{self, VerificationResult},
    },
    model::{Backoff, NewObject, ObjectKey, Operation, ReconcileRequest, RequestPriority},
    state::{Object, Outcome},
};

/// Handles the outcome of a request of this controller.
pub fn answered(ctx: &mut Context, answer: &Answer<'_>) {
    if let (ReconcileRequest::Provider(key), Operation::PatchStatus(..)) = (answer.request, answer.operation)
        && let Some(provider) = ctx.state.providers.get(key)
    {
        ctx.memory.last_writes.insert(provider.meta.uid.clone(), ctx.now.monotonic);
    }
    if let (ReconcileRequest::Verification(key), Operation::Get(..), Outcome::Object(object)) =
        (answer.request, answer.operation, answer.outcome)
    {
        name_read(ctx, answer.request, key, object);
    }
}

/// Handles a read of the object that has the name of a verification Mask or Pod.
fn name_read(ctx: &mut Context, request: &ReconcileRequest, key: &ObjectKey, object: &Object) {
    let Some(provider) = ctx.state.providers.get(key) else { return };
    let (kind, name) = (object.kind().as_str(), &object.meta().key);
    let message = format!("{kind} {name} already exists and was not created by the operator; delete or rename it");
    match object {
        Object::Mask(mask) if mask.verifies.is_none() => {
            let before = ctx.backoffs.get(request, RequestPriority::Slots);
            let backoff = Backoff::after(before, Reason::VerificationNameTaken, message, ctx.now);
            ctx.backoffs.insert(request, RequestPriority::Slots, backoff);
        }
        Object::Pod(pod) if pod.consumers.is_empty() => {
            if let Some(attempt) = ctx.memory.attempts.get_mut(&provider.meta.uid) {
                attempt.result = Some(VerificationResult::failed(Reason::VerificationNameTaken, message));
            }
        }
        _ => {}
    }
}

/// Handles a failed request. A rejected verification Pod ends the attempt: the slot is released, and a retry follows
/// later.
pub fn failed(ctx: &mut Context, failure: &Failure<'_>, backoff: Backoff) -> Option<Backoff> {
    if let (ReconcileRequest::Verification(key), Operation::Create(_, NewObject::Pod(_))) =
        (failure.request, failure.operation)
        && let Some(provider) = ctx.state.providers.get(key)
        && let Some(attempt) = ctx.memory.attempts.get_mut(&provider.meta.uid)
        && let Some(message) = failure.refusal
    {
        attempt.result = Some(verification::refused(backoff.reason, message));
        return None;
    }
    Some(backoff)
}
