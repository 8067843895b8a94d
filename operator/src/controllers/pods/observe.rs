//! Changes that affect injected Pods and their Masks.

use super::{masks, may_use, memory::Unwatched};
use crate::{
    controllers::{Answer, Change, Context},
    model::{Kind, ObjectKey, Operation, ReconcileRequest, Uid},
    state::{self, InjectedPod, Object, Outcome, PodStage, StoreChange},
};

/// Observes a change.
pub fn observe(ctx: &mut Context, change: &Change<'_>) {
    match change {
        Change::Store(StoreChange::InjectedPod(change)) => pod_changed(ctx, change),
        Change::Store(StoreChange::Mask(change)) => {
            let before = change.before.as_ref().and_then(|mask| mask.pod.as_ref()).map(|pod| &pod.uid);
            forget(ctx, &change.key, before);
            mask_changed(ctx, &change.key);
        }
        Change::Store(StoreChange::Consumer(change)) => {
            let before = change.before.as_ref().and_then(|consumer| consumer.pod.as_ref()).map(|pod| &pod.uid);
            forget(ctx, &change.key, before);
            mask_changed(ctx, &change.key);
        }
        _ => {}
    }
}

fn pod_changed(ctx: &mut Context, state::Change { key, before }: &state::Change<InjectedPod>) {
    let now = ctx.state.injected_pods.get(key);
    let mut masks: Vec<_> = before.iter().chain(now).map(InjectedPod::mask).collect();
    masks.dedup();
    if let Some(before) = before
        && now.is_none_or(|now| now.meta.uid != before.meta.uid)
    {
        let uid = &before.meta.uid;
        ctx.memory.pods.lost.remove(uid);
        ctx.memory.pods.evicted.remove(uid);
        if before.stage == PodStage::Running && masks.iter().any(|mask| masks::needs(ctx, mask, uid)) {
            ctx.memory.pods.ran.insert(uid.clone());
        }
        // Otherwise only a read tells whether it exists: its label may have been removed.
        if before.stage == PodStage::Ended && masks.iter().any(|mask| masks::needs(ctx, mask, uid)) {
            ctx.memory.pods.unwatched.insert(uid.clone(), Unwatched::Ended);
        }
        ctx.forget(ReconcileRequest::Pod(key.clone()));
    }
    // The next Pod of its ReplicaSet may be the first one that waits now.
    let was_waiting = before.as_ref().filter(|before| before.is_waiting());
    if let Some(replica_set) = was_waiting.and_then(|before| before.replica_set.clone())
        && ctx.state.injected_pods.get(key).is_none_or(|now| !now.is_waiting())
    {
        let is_next = |pod: &&InjectedPod| pod.is_waiting() && pod.replica_set.as_ref() == Some(&replica_set);
        let next: Vec<_> = ctx.state.injected_pods.values().filter(is_next).map(|pod| pod.meta.key.clone()).collect();
        for pod in next {
            ctx.enqueue(ReconcileRequest::Pod(pod));
        }
    }
    for mask in masks {
        let others: Vec<_> = ctx.state.pods_of_mask(&mask).map(|pod| pod.meta.key.clone()).collect();
        for other in others.into_iter().filter(|other| other != key) {
            ctx.enqueue(ReconcileRequest::Pod(other));
        }
        ctx.enqueue(ReconcileRequest::PodMask(mask));
    }
    ctx.enqueue(ReconcileRequest::Pod(key.clone()));
}

/// Forgets a Pod that is gone when its Mask does not need it any more.
fn forget(ctx: &mut Context, mask: &ObjectKey, pod: Option<&Uid>) {
    if let Some(uid) = pod.filter(|uid| !masks::needs(ctx, mask, uid)) {
        ctx.memory.pods.unwatched.remove(uid);
        ctx.memory.pods.ran.remove(uid);
        ctx.memory.pods.recorded.remove(uid);
    }
}

fn mask_changed(ctx: &mut Context, key: &ObjectKey) {
    let pods: Vec<_> = ctx.state.pods_of_mask(key).map(|pod| pod.meta.key.clone()).collect();
    let has_pods = !pods.is_empty();
    for pod in pods {
        ctx.enqueue(ReconcileRequest::Pod(pod));
    }
    let is_of_pod = ctx.state.masks.get(key).is_some_and(|mask| mask.pod.is_some());
    let has_holder = ctx.state.consumers.get(key).is_some_and(|consumer| consumer.pod.is_some());
    if has_pods || is_of_pod || has_holder {
        ctx.enqueue(ReconcileRequest::PodMask(key.clone()));
    }
}

/// Observes the outcome of a request of this controller.
pub fn answered(ctx: &mut Context, answer: &Answer<'_>) {
    match (answer.request, answer.operation, answer.outcome) {
        // Whether it succeeds or the MaskReservation is gone: the Mask can go.
        (ReconcileRequest::PodMask(mask), Operation::PatchStatus(Kind::Reservation, ..), outcome) => {
            if !matches!(outcome, Outcome::Unknown { .. } | Outcome::Refused { .. })
                && let Some(uid) = ctx.state.pod_using(mask).cloned()
            {
                ctx.memory.pods.recorded.insert(uid);
            }
        }
        (ReconcileRequest::PodMask(_), Operation::Get(Kind::InjectedPod, _), outcome) => {
            let Some(uid) = answer.expected.cloned() else { return };
            let now = ctx.now.monotonic;
            let found = match outcome {
                Outcome::NotFound => Unwatched::Gone(now),
                Outcome::Object(object) if object.meta().uid != uid => Unwatched::Gone(now),
                Outcome::Object(_) => Unwatched::Unlabeled(now),
                _ => return,
            };
            let known = ctx.memory.pods.unwatched.get(&uid);
            if !matches!(known, Some(Unwatched::Ended | Unwatched::Gone(_))) {
                ctx.memory.pods.unwatched.insert(uid, found);
            }
        }
        (ReconcileRequest::Pod(key), Operation::Get(Kind::Consumer, _), outcome) => {
            let Some(pod) = ctx.state.injected_pods.get(key) else { return };
            let is_lost = match outcome {
                Outcome::NotFound => true,
                Outcome::Object(object) => match &**object {
                    Object::Consumer(consumer) => !may_use(pod, consumer),
                    _ => false,
                },
                _ => false,
            };
            if is_lost {
                ctx.memory.pods.lost.insert(pod.meta.uid.clone());
            }
        }
        (ReconcileRequest::Pod(_), Operation::ListReplicaSets(namespace), Outcome::ReplicaSets(all)) => {
            ctx.memory.pods.replica_sets.insert(namespace.clone(), (ctx.now.monotonic, all.clone()));
        }
        (ReconcileRequest::Pod(_), Operation::Evict(_, uid), Outcome::Evicted) => {
            ctx.memory.pods.evicted.insert(uid.clone());
        }
        _ => {}
    }
}
