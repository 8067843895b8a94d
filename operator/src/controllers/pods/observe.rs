//! Changes that affect injected Pods and their Masks.

use std::time::Duration;

use super::{line::may_stay, masks, memory::Unwatched, surge};
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

fn pod_changed(ctx: &mut Context, state::Change { key, before, missed }: &state::Change<InjectedPod>) {
    let now = ctx.state.injected_pods.get(key);
    let mut masks: Vec<_> = before.iter().chain(now).map(InjectedPod::mask).collect();
    masks.dedup();
    if let Some(before) = before
        && now.is_none_or(|now| now.meta.uid != before.meta.uid)
    {
        let uid = &before.meta.uid;
        ctx.memory.pods.lost.remove(uid);
        ctx.memory.pods.evicted.remove(uid);
        // Otherwise, only a read shows whether the Pod exists, because its label may have been removed.
        let known = match before.stage {
            PodStage::Ended => Some(Unwatched::Ended),
            PodStage::Unbound if !missed => Some(Unwatched::Unbound),
            PodStage::Unbound | PodStage::Running => None,
        };
        if let Some(known) = known.filter(|_| masks.iter().any(|mask| masks::needs(ctx, mask, uid))) {
            ctx.memory.pods.unwatched.insert(uid.clone(), known);
        }
        ctx.forget(ReconcileRequest::Pod(key.clone()));
    }
    if before.as_ref().is_some_and(InjectedPod::is_waiting)
        != ctx.state.injected_pods.get(key).is_some_and(InjectedPod::is_waiting)
    {
        // For one of them, a Pod of an older revision may be evicted.
        let first: Vec<_> = ctx.state.first_waiting_pods(&key.namespace).map(|pod| pod.meta.key.clone()).collect();
        for pod in first {
            ctx.enqueue(ReconcileRequest::Pod(pod));
        }
    }
    let is_ungated = ctx.state.injected_pods.get(key).is_some_and(InjectedPod::is_ungated);
    if let Some(before) = before.as_ref().filter(|before| before.is_ungated() && !is_ungated) {
        record_handover(ctx, before);
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

/// How long the release of a slot and its next assignment may take, beyond the time for which the slot is held.
const HANDOVER: Duration = Duration::from_secs(3);

/// Notes that the slot of a Pod will be free soon, so that no other Pod is evicted for it.
fn record_handover(ctx: &mut Context, pod: &InjectedPod) {
    let assigned = ctx.state.consumers.get(&pod.mask()).and_then(|consumer| consumer.assigned.as_deref());
    let Some(provider) = assigned.and_then(|assigned| ctx.state.providers.get(&assigned.provider)) else { return };
    let is_lost = pod.stage == PodStage::Running && ctx.state.injected_pods.get(&pod.meta.key).is_none();
    let hold = if is_lost { provider.unclean_delay } else { provider.release_delay };
    let now = ctx.now.monotonic;
    let until = now + hold + HANDOVER;
    ctx.memory.pods.handing_over.retain(|_, until| *until > now);
    ctx.memory.pods.handing_over.insert(provider.meta.key.clone(), until);
}

/// Forgets a Pod that is gone when its Mask does not need it any more.
fn forget(ctx: &mut Context, mask: &ObjectKey, pod: Option<&Uid>) {
    if let Some(uid) = pod.filter(|uid| !masks::needs(ctx, mask, uid)) {
        ctx.memory.pods.unwatched.remove(uid);
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
        (ReconcileRequest::PodMask(_), Operation::Get(Kind::InjectedPod, _), outcome) => {
            let Some(uid) = answer.expected.cloned() else { return };
            let now = ctx.now.monotonic;
            let known = ctx.memory.pods.unwatched.get(&uid);
            let gone = if known == Some(&Unwatched::Unbound) { Unwatched::Ended } else { Unwatched::Gone(now) };
            let found = match outcome {
                Outcome::NotFound => gone,
                Outcome::Object(object) => match &**object {
                    Object::InjectedPod(pod) if pod.meta.uid != uid => gone,
                    Object::InjectedPod(pod) if pod.stage == PodStage::Ended => Unwatched::Ended,
                    Object::InjectedPod(pod) => Unwatched::Unlabeled { at: now, gated: pod.gate.is_some() },
                    _ => return,
                },
                _ => return,
            };
            if !matches!(known, Some(Unwatched::Ended | Unwatched::Gone(_))) {
                ctx.memory.pods.unwatched.insert(uid, found);
            }
        }
        (ReconcileRequest::Pod(key), Operation::Get(Kind::Consumer, _), outcome) => {
            let Some(pod) = ctx.state.injected_pods.get(key) else { return };
            let is_lost = match outcome {
                Outcome::NotFound => true,
                Outcome::Object(object) => match &**object {
                    Object::Consumer(consumer) => !may_stay(pod, consumer),
                    _ => false,
                },
                _ => false,
            };
            if is_lost {
                ctx.memory.pods.lost.insert(pod.meta.uid.clone());
            }
        }
        (ReconcileRequest::Pod(_), Operation::ListReplicaSets(namespace), Outcome::ReplicaSets(all)) => {
            let now = ctx.now.monotonic;
            ctx.memory.pods.replica_sets.retain(|_, (at, _)| *at + surge::FRESH > now);
            ctx.memory.pods.replica_sets.insert(namespace.clone(), (ctx.now.monotonic, all.clone()));
        }
        (ReconcileRequest::Pod(_), Operation::Evict(_, uid), Outcome::Evicted) => {
            ctx.memory.pods.evicted.insert(uid.clone());
        }
        _ => {}
    }
}
