//! Consumers: assigns a slot to each MaskConsumer (W2–W4), maintains its objects, and releases the slot.
//!
//! Invariants: a consumer that has a reservation adopts it and never takes another one (I2). A reservation is given up
//! only when its consumer is being deleted, is committed to another one, or has been fenced (I3).

mod answers;
mod assign;
mod context;
mod followers;
mod held;
mod keep;
mod memory;
mod missing;
mod observe;
mod release;
mod shared;
mod waiting;
mod withdraw;

use serde_json::json;

use context::ConsumerContext;
pub use memory::Memory;
pub use observe::observe;
pub use waiting::requirements;

use super::{Backoffs, Context, Controller, Scope};
use crate::{
    allocator::Pool,
    model::{Kind, ObjectKey, Operation, ReconcileRequest, RequestPriority, Step, add_finalizer},
};

/// Name of this controller.
pub const NAME: &str = "consumers";

/// The consumers controller.
pub static CONTROLLER: Controller = Controller {
    name: NAME,
    watches: &[
        (Kind::Consumer, Scope::All),
        (Kind::Reservation, Scope::All),
        (Kind::Provider, Scope::All),
        (Kind::Secret, Scope::All),
        (Kind::InjectedPod, Scope::All),
    ],
    status_of: &[Kind::Consumer],
    needs_credentials: true,
    reads: &["GetMaskConsumer", "GetMaskReservation", "GetMaskProvider", "GetSecret", "GetPod", "ListPods"],
    writes: &[
        "CreateMaskReservation",
        "CreateSecret",
        "UpdateMaskConsumer",
        "UpdateMaskConsumerStatus",
        "UpdateMaskReservation",
        "UpdateMaskReservationStatus",
        "UpdateMaskProviderStatus",
        "UpdateSecret",
        "DeleteMaskConsumer",
        "DeleteMaskReservation",
        "DeleteSecret",
        "DeletePod",
    ],
    handles: |request| {
        use ReconcileRequest::{Acknowledgement, Consumer, PodList};
        matches!(request, Consumer(_) | Acknowledgement(_) | PodList(_))
    },
    reconcile,
    observe: observe::observe,
    answered: answers::answered,
    failed: answers::failed,
    settle,
};

fn reconcile(ctx: &mut Context, request: &ReconcileRequest) -> Step {
    match request {
        ReconcileRequest::Consumer(key) => reconcile_consumer(ctx, request, key),
        ReconcileRequest::PodList(namespace) => {
            let followers = &mut ctx.memory.consumers.followers;
            if !followers.wants_list(namespace) {
                return Step::Idle;
            }
            if let Some(backoff) = gate(&ctx.backoffs, request, ctx.now) {
                return backoff;
            }
            match followers.request_list(namespace, ctx.now) {
                Ok(()) => Step::send(Operation::ListPods(namespace.clone())),
                Err(until) => Step::WaitUntil(until),
            }
        }
        ReconcileRequest::Acknowledgement(key) => acknowledge(ctx, key),
        _ => Step::Idle,
    }
}

/// Waits while the list is in backoff. The engine would hold it back too, but then the list would count as sent.
fn gate(backoffs: &Backoffs, request: &ReconcileRequest, now: crate::model::Now) -> Option<Step> {
    let backoff = backoffs.get(request, RequestPriority::Slots)?;
    (backoff.gate && backoff.is_active(now)).then_some(Step::WaitUntil(backoff.until))
}

fn reconcile_consumer(ctx: &mut Context, request: &ReconcileRequest, key: &ObjectKey) -> Step {
    let mut backoff = ctx.backoffs.remove(request, RequestPriority::Slots);
    let list = ReconcileRequest::PodList(key.namespace.clone());
    let list_backoff = ctx.backoffs.get(&list, RequestPriority::Slots).filter(|backoff| backoff.should_be_reported());
    let Memory { by_uid, throttles, followers, revisit } = &mut ctx.memory.consumers;
    let step = decide(
        &mut ConsumerContext {
            state: &ctx.state,
            allocator: &mut ctx.allocator,
            memory: by_uid,
            throttles,
            effects: &mut ctx.effects,
            followers,
            list_backoff: list_backoff.cloned(),
            revisit,
            backoff: &mut backoff,
            now: ctx.now,
        },
        key,
    );
    if let Some(backoff) = backoff {
        ctx.backoffs.insert(request, RequestPriority::Slots, backoff);
    }
    if ctx.memory.consumers.followers.wants_list(&key.namespace) {
        ctx.enqueue(list);
    }
    step
}

/// Assigns the free slots.
fn settle(ctx: &mut Context) {
    let mut consumers = std::mem::take(&mut ctx.memory.consumers.revisit);
    consumers.extend(ctx.allocator.settle());
    consumers.extend(ctx.allocator.take_touched());
    for provider in ctx.allocator.take_released() {
        observe::enqueue_acknowledgement(ctx, &provider);
    }
    for key in consumers {
        ctx.enqueue(ReconcileRequest::Consumer(key));
    }
}

/// Returns the next step for the MaskConsumer of that name.
pub fn decide(ctx: &mut ConsumerContext<'_>, key: &ObjectKey) -> Step {
    let state = ctx.state;
    let Some(consumer) = state.consumers.get(key) else { return Step::Idle };
    if consumer.meta.deleting {
        ctx.leave_queue(consumer);
        return release::decide(ctx, consumer);
    }
    if consumer.meta.finalizer.is_none() {
        let operation = add_finalizer(Kind::Consumer, &consumer.meta);
        return if consumer.assigned.is_some() { Step::maintain(operation) } else { Step::send(operation) };
    }
    if consumer.assigned.is_some() {
        ctx.leave_queue(consumer);
        return keep::decide(ctx, consumer);
    }
    assign::decide(ctx, consumer)
}

/// Reports to the providers controller in another process that slots are now assigned by the `maxSlots` of this
/// generation, and that no slot beyond it is held. A reservation of a slot beyond it that is still in flight from an
/// earlier process never leads to a commit.
fn acknowledge(ctx: &Context, key: &ObjectKey) -> Step {
    let Some(provider) = ctx.state.providers.get(key) else { return Step::Idle };
    let generation = provider.meta.generation;
    let is_draining = ctx.allocator.pool(key).is_none_or(Pool::is_draining);
    if provider.assignment_generation == Some(generation) || provider.meta.deleting || is_draining {
        return Step::Idle;
    }
    let patch = json!({"status": {"assignmentGeneration": generation}});
    Step::status(Operation::PatchStatus(Kind::Provider, key.clone(), patch))
}
