//! Masks: creates the MaskConsumer of each Mask (W1), copies its status to the Mask (W5), and starts its release when
//! the Mask is gone. The garbage collector would delete the MaskConsumer too, but it is slow when there is much to do.
//!
//! Invariant: a Mask's status follows the MaskConsumer that this Mask controls (by UID) and that is not being deleted.
//! A MaskConsumer of that name with another owner is neither adopted nor changed. Only a watch or a read confirms that
//! a Mask is gone. Absence from the store does not, because its event may still be in flight.

mod labels;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use serde_json::{Value, json};
use vpn_types::{
    FINALIZER, Mask, MaskConsumer, MaskConsumerPhase, MaskConsumerSpec, MaskPhase, MaskReference, Reason, SlotPod,
    VERIFY_LABEL,
};

use crate::{
    controllers::{
        Answer, Change, Context, Controller, Scope,
        controller::{keep_backoff, nothing_to_settle},
        ready::ReadyCondition,
        status,
    },
    model::{
        Backoff, EventRecord, Kind, NewObject, Now, ObjectKey, Operation, Propagation, ReconcileRequest,
        RequestPriority, Step, delete, delete_unchanged, object_reference, remove_finalizer,
    },
    state::{ClusterState, ConsumerView, MaskView, Outcome, StoreChange},
};

/// Name of this controller.
pub const NAME: &str = "masks";

/// The masks controller.
pub static CONTROLLER: Controller = Controller {
    name: NAME,
    watches: &[(Kind::Mask, Scope::All), (Kind::Consumer, Scope::All)],
    status_of: &[Kind::Mask],
    needs_credentials: false,
    reads: &["GetMask", "GetMaskConsumer"],
    writes: &["CreateMaskConsumer", "UpdateMask", "UpdateMaskStatus", "UpdateMaskConsumer", "DeleteMaskConsumer"],
    handles: |request| matches!(request, ReconcileRequest::Mask(_)),
    reconcile,
    observe,
    answered,
    failed: keep_backoff,
    settle: nothing_to_settle,
};

fn reconcile(ctx: &mut Context, request: &ReconcileRequest) -> Step {
    let ReconcileRequest::Mask(key) = request else { return Step::Idle };
    let backoff = ctx.backoffs.get(request, RequestPriority::Slots);
    decide(&ctx.state, key, backoff, ctx.now)
}

fn observe(ctx: &mut Context, change: &Change<'_>) {
    let key = match change {
        Change::Store(StoreChange::Mask(change)) => &change.key,
        Change::Store(StoreChange::Consumer(change)) => &change.key,
        _ => return,
    };
    let request = ReconcileRequest::Mask(key.clone());
    if ctx.state.masks.get(key).is_none() && ctx.state.consumers.get(key).is_none() {
        ctx.forget(request.clone());
    }
    ctx.enqueue(request);
}

/// Handles a read of a Mask by name, which confirms whether the former owner of a MaskConsumer is gone.
fn answered(ctx: &mut Context, answer: &Answer<'_>) {
    let (Some(owner), Some((_, key))) = (answer.expected, answer.operation.target()) else { return };
    let is_gone = match answer.outcome {
        Outcome::NotFound => true,
        Outcome::Object(object) => object.meta().uid != *owner,
        _ => false,
    };
    if is_gone {
        ctx.state.record_deleted_mask(key, owner);
    }
}

/// Returns the next step for the Mask of that name.
fn decide(state: &ClusterState, key: &ObjectKey, backoff: Option<&Backoff>, now: Now) -> Step {
    let consumer = state.consumers.get(key);
    let Some(mask) = state.masks.get(key) else {
        return consumer.map_or(Step::Idle, |consumer| release_abandoned(state, consumer));
    };
    // Masks stored by 1.0.1 have a finalizer. They no longer need one, because their MaskConsumer has one.
    if let Some(operation) = remove_finalizer(Kind::Mask, &mask.meta) {
        return Step::maintain(operation);
    }
    if mask.meta.deleting {
        // With foreground deletion, the Mask stays until its MaskConsumer is gone.
        let own = consumer.filter(|consumer| consumer.owner.as_ref() == Some(&mask.meta.uid));
        return own.filter(|_| mask.meta.foreground).map_or(Step::Idle, release);
    }
    match consumer {
        None => match backoff.filter(|backoff| backoff.is_active(now)) {
            Some(backoff) => report(mask, &in_backoff(backoff), now).and_wait_until(backoff.until),
            None => Step::send(create_consumer(mask)),
        },
        Some(consumer) if consumer.owner.as_ref() == Some(&mask.meta.uid) && !consumer.meta.deleting => {
            follow_spec(mask, consumer).or_else(|| follow_status(mask, consumer, now))
        }
        // Created for a former Mask of this name.
        Some(consumer) if consumer.mask.as_ref().is_some_and(|made_for| made_for.uid != mask.meta.uid) => {
            release_abandoned(state, consumer).or_else(|| report(mask, &name_conflict(consumer), now))
        }
        Some(consumer) => report(mask, &name_conflict(consumer), now),
    }
}

/// W1. The MaskConsumer carries the creation time and priority of the Mask, so that the queue does not depend on Masks.
fn create_consumer(mask: &MaskView) -> Operation {
    let owner = OwnerReference {
        api_version: Mask::api_version(&()).into_owned(),
        kind: Mask::kind(&()).into_owned(),
        name: mask.meta.key.name.to_string(),
        uid: mask.meta.uid.to_string(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    let mut consumer = MaskConsumer::new(
        &mask.meta.key.name,
        MaskConsumerSpec {
            providers: tags(mask),
            priority: (mask.priority != 0).then_some(mask.priority),
            secret_name: mask.secret_name.as_ref().map(ToString::to_string),
            mask: Some(made_for_mask(mask)),
        },
    );
    consumer.metadata.namespace = Some(mask.meta.key.namespace.to_string());
    // With the verification label, a MaskConsumer gets a slot of that provider whatever its `namespaces` allow.
    let inherited = |key: &str| (key != VERIFY_LABEL || mask.verifies.is_some()) && !labels::is_of_delivery_tool(key);
    let labels = mask.labels.iter().filter(|(key, _)| inherited(key));
    let labels: BTreeMap<_, _> = labels.map(|(key, value)| (key.to_string(), value.to_string())).collect();
    consumer.metadata.labels = (!labels.is_empty()).then_some(labels);
    consumer.metadata.owner_references = Some(vec![owner]);
    consumer.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    Operation::Create(mask.meta.key.clone(), NewObject::Consumer(Box::new(consumer)))
}

fn made_for_mask(mask: &MaskView) -> MaskReference {
    MaskReference {
        uid: mask.meta.uid.to_string(),
        creation_timestamp: mask.meta.created,
        pod: mask.pod.as_ref().map(|pod| SlotPod { name: pod.name.to_string(), uid: pod.uid.to_string() }),
    }
}

fn tags(mask: &MaskView) -> Option<Vec<String>> {
    mask.tags.as_ref().map(|tags| tags.iter().map(|tag| tag.to_string()).collect())
}

/// Copies a changed Mask spec to its MaskConsumer while that waits. An assigned MaskConsumer keeps its slot and its
/// spec.
fn follow_spec(mask: &MaskView, consumer: &ConsumerView) -> Step {
    let made_for = consumer.mask.as_ref().is_some_and(|made_for| made_for.uid == mask.meta.uid);
    let same = consumer.assigned.is_some() || (consumer.tags == mask.tags && consumer.priority == mask.priority);
    if same && made_for {
        return Step::Idle;
    }
    // MaskConsumers stored by 1.0.1 do not name the Mask that they were created for.
    let mut spec = json!({"mask": made_for_mask(mask)});
    if !same {
        spec["providers"] = tags(mask).map_or(Value::Null, Value::from);
        spec["priority"] = if mask.priority == 0 { Value::Null } else { Value::from(mask.priority) };
    }
    let patch = json!({
        "metadata": {"uid": consumer.meta.uid.as_str(), "resourceVersion": consumer.meta.version.to_string()},
        "spec": spec,
    });
    let operation = Operation::Patch(Kind::Consumer, consumer.meta.key.clone(), patch);
    if same { Step::maintain(operation) } else { Step::send(operation) }
}

fn follow_status(mask: &MaskView, consumer: &ConsumerView, now: Now) -> Step {
    let Some(stored) = &consumer.ready_condition else { return Step::Idle };
    let phase = match consumer.status.phase {
        // Nothing to report yet.
        None | Some(MaskConsumerPhase::Pending) => return Step::Idle,
        Some(MaskConsumerPhase::Waiting) => MaskPhase::Waiting,
        Some(MaskConsumerPhase::Active) => MaskPhase::Active,
        Some(MaskConsumerPhase::Terminating) => MaskPhase::Terminating,
        Some(MaskConsumerPhase::ErrNoProviders) => MaskPhase::ErrNoProviders,
    };
    let condition =
        ReadyCondition { phase, ready: stored.ready, reason: stored.reason, message: stored.message.to_string() };
    match status::mask(&mask.meta, &mask.status, &condition, consumer.assigned.as_deref(), now.wall) {
        Some(patch) => Step::status(Operation::PatchStatus(Kind::Mask, mask.meta.key.clone(), patch)),
        None => Step::Idle,
    }
}

fn in_backoff(backoff: &Backoff) -> ReadyCondition<MaskPhase> {
    let message = format!("Cannot create the MaskConsumer: {}", backoff.message);
    ReadyCondition::not_ready(MaskPhase::Pending, backoff.reason, message)
}

fn name_conflict(consumer: &ConsumerView) -> ReadyCondition<MaskPhase> {
    let name = &consumer.meta.key.name;
    // A MaskConsumer that was created for a Mask is deleted with that Mask: waiting is enough.
    if consumer.meta.deleting || (consumer.mask.is_some() && consumer.owner.is_some()) {
        let message = format!("Waiting for the previous MaskConsumer {name} to release its slot");
        return ReadyCondition::not_ready(MaskPhase::Waiting, Reason::PreviousConsumerTerminating, message);
    }
    let message =
        format!("MaskConsumer {name} already exists and does not belong to this Mask; delete it or rename the Mask");
    ReadyCondition::not_ready(MaskPhase::Waiting, Reason::ConsumerNameTaken, message)
}

fn report(mask: &MaskView, condition: &ReadyCondition<MaskPhase>, now: Now) -> Step {
    let Some(patch) = status::mask(&mask.meta, &mask.status, condition, None, now.wall) else { return Step::Idle };
    let event = EventRecord {
        regarding: object_reference(Kind::Mask, &mask.meta.key, &mask.meta.uid),
        related: None,
        warning: true,
        reason: condition.reason,
        action: "Wait",
        message: condition.message.clone(),
    };
    Step::status(Operation::PatchStatus(Kind::Mask, mask.meta.key.clone(), patch)).with_event(Some(event))
}

/// Releases a MaskConsumer whose Mask does not exist, or no longer exists.
fn release_abandoned(state: &ClusterState, consumer: &ConsumerView) -> Step {
    if consumer.meta.deleting {
        return Step::Idle;
    }
    match (&consumer.owner, &consumer.mask) {
        (Some(_), _) if state.is_mask_deleted(consumer) => release(consumer),
        (Some(owner), Some(made_for)) if *owner == made_for.uid => {
            Step::send(Operation::Get(Kind::Mask, consumer.meta.key.clone()))
        }
        (None, Some(_)) => release_orphan(consumer),
        // Created by a user.
        _ => Step::Idle,
    }
}

/// Release, step 0: the deletion of the MaskConsumer triggers all other steps.
fn release(consumer: &ConsumerView) -> Step {
    if consumer.meta.deleting {
        return Step::Idle;
    }
    Step::send(delete(Kind::Consumer, &consumer.meta, Some(Propagation::Background)))
}

/// A Mask deleted with `--cascade=orphan` leaves its MaskConsumer without an owner: no other component would release
/// it.
fn release_orphan(consumer: &ConsumerView) -> Step {
    let event = EventRecord {
        regarding: object_reference(Kind::Consumer, &consumer.meta.key, &consumer.meta.uid),
        related: None,
        warning: true,
        reason: Reason::Evicted,
        action: "Evict",
        message: "The Mask was deleted without this MaskConsumer (--cascade=orphan); its slot is being released"
            .to_owned(),
    };
    Step::send(delete_unchanged(Kind::Consumer, &consumer.meta, Some(Propagation::Background))).with_event(Some(event))
}
