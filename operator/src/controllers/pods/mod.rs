//! Pods with the label `vpn.beebs.dev/inject`: creates the Mask of each, removes the scheduling gate of the Pod when the
//! slot is assigned, and deletes the Mask when the Pod has ended.
//!
//! Invariants: the gate is removed only while the MaskConsumer is Active (I9). The release deletes the Pod, even if the
//! request that removes the gate arrives late. A Mask has one Pod: its controller, or, if Pods share it, the one that
//! `status.pod` of its MaskConsumer names (I10). Another Pod follows only on evidence that the former one has ended.

mod line;
mod masks;
mod memory;
mod observe;
mod report;
mod surge;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;
use vpn_types::{Mask, MaskConsumerPhase, MaskSpec, Reason, inject::SLOT_GATE};

use line::{may_stay, may_use};
pub use memory::Memory;
use surge::SurgeDecision;

use super::{Context, Controller, Failure, Scope, controller::nothing_to_settle};
use crate::{
    model::{Backoff, Kind, NewObject, ObjectKey, Operation, ReconcileRequest, RequestPriority, Step, delete},
    state::{Assigned, ConsumerView, InjectedPod, MaskView, PodStage},
};

/// Name of this controller.
pub const NAME: &str = "pods";

/// The pods controller.
pub static CONTROLLER: Controller = Controller {
    name: NAME,
    watches: &[
        (Kind::InjectedPod, Scope::All),
        (Kind::Mask, Scope::All),
        (Kind::Consumer, Scope::All),
        (Kind::Provider, Scope::All),
    ],
    status_of: &[Kind::InjectedPod],
    needs_credentials: false,
    reads: &["GetPod", "GetMask", "GetMaskConsumer", "ListReplicaSets"],
    writes: &[
        "CreateMask",
        "DeleteMask",
        "UpdateMaskConsumerStatus",
        "UpdatePod",
        "UpdatePodStatus",
        "DeletePod",
        "EvictPod",
    ],
    handles: |request| matches!(request, ReconcileRequest::Pod(_) | ReconcileRequest::PodMask(_)),
    reconcile,
    observe: observe::observe,
    answered: observe::answered,
    failed,
    settle: nothing_to_settle,
};

/// A failure to evict another Pod does not delay this one.
fn failed(_: &mut Context, failure: &Failure<'_>, backoff: Backoff) -> Option<Backoff> {
    let is_about_others = matches!(failure.operation, Operation::Evict(..) | Operation::ListReplicaSets(_));
    Some(if is_about_others { backoff.without_gate() } else { backoff })
}

fn reconcile(ctx: &mut Context, request: &ReconcileRequest) -> Step {
    match request {
        ReconcileRequest::Pod(key) => decide(ctx, request, key),
        ReconcileRequest::PodMask(key) => masks::decide(ctx, key),
        _ => Step::Idle,
    }
}

/// Returns the next step for the Pod of that name.
fn decide(ctx: &Context, request: &ReconcileRequest, key: &ObjectKey) -> Step {
    let Some(pod) = ctx.state.injected_pods.get(key) else { return Step::Idle };
    if pod.meta.deleting || pod.stage == PodStage::Ended {
        return Step::Idle;
    }
    match pod.gate {
        None => keep(ctx, pod),
        Some(_) => wait(ctx, request, pod),
    }
}

/// A Pod without the gate: the release deletes it when the slot is taken back. If it seems to have no slot, for example
/// because somebody removed the gate by hand, a read confirms that.
fn keep(ctx: &Context, pod: &InjectedPod) -> Step {
    // Not only that of the present Mask: the release of an earlier one may still be in progress.
    let consumer = ctx.state.consumers.get(&pod.mask());
    if let Some(consumer) = consumer.filter(|consumer| may_stay(pod, consumer)) {
        return match consumer.assigned.as_deref().filter(|_| consumer.is_active()) {
            Some(assigned) => report::assigned(pod, assigned, ctx.now),
            None => Step::Idle,
        };
    }
    if !ctx.memory.pods.lost.contains(&pod.meta.uid) {
        return Step::send(Operation::Get(Kind::Consumer, pod.mask()));
    }
    let message = format!(
        "This Pod has neither a slot nor the scheduling gate {SLOT_GATE}, which nobody but the operator may remove"
    );
    let event = report::event(pod, true, Reason::Evicted, "Evict", message);
    Step::send(delete(Kind::InjectedPod, &pod.meta, None)).with_event([event])
}

/// A Pod that waits for its slot.
fn wait(ctx: &Context, request: &ReconcileRequest, pod: &InjectedPod) -> Step {
    let key = pod.mask();
    let mask = ctx.state.masks.get(&key);
    if let Some((reason, message)) = unusable_mask(pod, mask) {
        return report::waiting(pod, reason, &message, ctx.now);
    }
    let Some(mask) = mask else {
        return match &pod.other_gate {
            // A slot that nobody can use yet would be lost to all others.
            Some(gate) => {
                let message = format!("Another component has to remove the scheduling gate {gate} first");
                report::waiting(pod, Reason::OtherSchedulingGate, &message, ctx.now)
            }
            None => create_mask(ctx, request, pod),
        };
    };
    let consumer = ctx.state.consumers.get(&key).filter(|consumer| consumer.owner.as_ref() == Some(&mask.meta.uid));
    match consumer {
        Some(consumer) if consumer.is_active() => match consumer.assigned.as_deref() {
            Some(assigned) => remove_gate(ctx, request, pod, consumer, assigned),
            None => Step::Idle,
        },
        Some(consumer) => match &consumer.ready_condition {
            Some(condition) if consumer.status.phase != Some(MaskConsumerPhase::Terminating) => {
                let report = || report::waiting(pod, condition.reason, &condition.message, ctx.now);
                wait_and_report(surge::decide(ctx, request, pod, consumer), report)
            }
            // A release in progress ends soon. One that something holds, such as a lost node, may not.
            Some(condition) if condition.reason != Reason::Releasing => {
                report::waiting(pod, condition.reason, &condition.message, ctx.now)
            }
            _ => Step::Idle,
        },
        None => match mask.pod.as_ref().and_then(|pod| pod.ready_condition.as_ref()) {
            Some(condition) => report::waiting(pod, condition.reason, &condition.message, ctx.now),
            None => Step::Idle,
        },
    }
}

/// Lets a Pod wait, and report why.
fn wait_and_report(decision: SurgeDecision, report: impl FnOnce() -> Step) -> Step {
    match decision {
        SurgeDecision::Wait => report(),
        SurgeDecision::WaitUntil(at) => report().and_wait_until(at),
        SurgeDecision::Step(step) => step,
    }
}

/// Returns why a Pod cannot use the Mask of this name.
fn unusable_mask(pod: &InjectedPod, mask: Option<&MaskView>) -> Option<(Reason, String)> {
    let name = &pod.mask().name;
    let owner = mask.and_then(|mask| mask.pod.as_ref());
    match (&pod.shares, mask, owner) {
        (Some(_), None, _) => Some((Reason::MaskNotUsable, format!("Mask {name} does not exist"))),
        (Some(_), _, Some(owner)) => {
            let message = format!("Mask {name} belongs to Pod {}; name a Mask that you created yourself", owner.name);
            Some((Reason::MaskNotUsable, message))
        }
        (None, Some(_), owner) if owner.is_none_or(|owner| owner.uid != pod.meta.uid) => {
            let message = format!("Mask {name} already exists and does not belong to this Pod; create the Pod again");
            Some((Reason::MaskNameTaken, message))
        }
        _ => None,
    }
}

/// Creates the Mask of a Pod. The garbage collector would delete it with the Pod if no operator did.
fn create_mask(ctx: &Context, request: &ReconcileRequest, pod: &InjectedPod) -> Step {
    let backoff = ctx.backoffs.get(request, RequestPriority::Slots);
    if let Some(backoff) = backoff.filter(|backoff| backoff.is_active(ctx.now)) {
        let message = format!("Cannot create the Mask: {}", backoff.message);
        return report::waiting(pod, backoff.reason, &message, ctx.now).and_wait_until(backoff.until);
    }
    let mut mask = Mask::new(
        &pod.secret,
        MaskSpec {
            providers: pod.tags.as_ref().map(|tags| tags.iter().map(ToString::to_string).collect()),
            priority: (pod.priority != 0).then_some(pod.priority),
            secret_name: Some(pod.secret.to_string()),
        },
    );
    mask.metadata.namespace = Some(pod.meta.key.namespace.to_string());
    mask.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod.meta.key.name.to_string(),
        uid: pod.meta.uid.to_string(),
        controller: Some(true),
        // A deletion of the Pod in the foreground would wait for the Mask, and its release for the Pod.
        block_owner_deletion: None,
    }]);
    Step::send(Operation::Create(pod.mask(), NewObject::Mask(Box::new(mask))))
}

/// The slot is assigned: removes the gate.
///
/// The MaskConsumer does not become an owner of the Pod. A Pod with two owners stays when one of them is deleted, such as
/// its ReplicaSet. The release finds the Pod by its Secret.
fn remove_gate(
    ctx: &Context,
    request: &ReconcileRequest,
    pod: &InjectedPod,
    consumer: &ConsumerView,
    assigned: &Assigned,
) -> Step {
    let Some(gate) = pod.gate else { return Step::Idle };
    if assigned.secret != pod.secret {
        // The Mask had another slot when the Pod was created. A Pod that nothing replaces is not deleted.
        let message = format!(
            "The credentials of Mask {} are now in Secret {}, but this Pod uses Secret {}; create the Pod again",
            pod.mask().name,
            assigned.secret,
            pod.secret
        );
        if pod.is_controlled {
            let event = report::event(pod, true, Reason::MaskNotUsable, "Delete", message);
            return Step::send(delete(Kind::InjectedPod, &pod.meta, None)).with_event([event]);
        }
        return report::waiting(pod, Reason::MaskNotUsable, &message, ctx.now);
    }
    if !may_use(pod, consumer) {
        let decision = surge::decide(ctx, request, pod, consumer);
        return wait_and_report(decision, || line::report(ctx, pod, consumer));
    }
    let backoff = ctx.backoffs.get(request, RequestPriority::Slots);
    if let Some(backoff) =
        backoff.filter(|backoff| backoff.gate && backoff.is_active(ctx.now) && backoff.should_be_reported())
    {
        let message = format!("A slot is assigned, but the scheduling gate cannot be removed: {}", backoff.message);
        return report::waiting(pod, backoff.reason, &message, ctx.now).and_wait_until(backoff.until);
    }
    let path = format!("/spec/schedulingGates/{gate}");
    let patch = json!([
        {"op": "test", "path": "/metadata/uid", "value": pod.meta.uid.as_str()},
        {"op": "test", "path": format!("{path}/name"), "value": SLOT_GATE},
        {"op": "remove", "path": path},
    ]);
    Step::send(Operation::JsonPatch(Kind::InjectedPod, pod.meta.key.clone(), patch))
}
