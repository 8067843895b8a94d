//! Changes that affect injected Pods and their Masks.

use std::time::Duration;

use super::{line::may_stay, masks, memory::Unwatched, surge};
use crate::{
    controllers::{Answer, Change, Context},
    model::{Kind, ObjectKey, Operation, ReconcileRequest, Uid},
    state::{self, ConsumerView, InjectedPod, Object, Outcome, PodStage, StoreChange},
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
        Change::Store(StoreChange::Consumer(change)) => consumer_changed(ctx, change),
        _ => {}
    }
}

fn consumer_changed(ctx: &mut Context, state::Change { key, before, .. }: &state::Change<ConsumerView>) {
    let pod = before.as_ref().and_then(|consumer| consumer.pod.as_ref()).map(|pod| &pod.uid);
    forget(ctx, key, pod);
    let now = ctx.state.consumers.get(key);
    let has_pod = |consumer: &ConsumerView| consumer.mask.as_ref().is_some_and(|mask| mask.pod.is_some());
    let place = |consumer: &ConsumerView| (consumer.is_waiting() && has_pod(consumer)).then(|| consumer.rank());
    let has_moved = before.as_ref().and_then(place) != now.and_then(place);
    if let Some(released) = before.as_ref().and_then(|before| before.assigned.as_deref())
        && now.is_none_or(|now| now.assigned.is_none())
        // The watch on Pods is late: when it delivers the end of the Pod, nothing names its slot any more.
        && ctx.state.pods_of_mask(key).any(InjectedPod::is_ungated)
    {
        record_handover(ctx, &released.provider, false);
    }
    if has_moved {
        first_waiting_pods_changed(ctx, &key.namespace);
    }
    mask_changed(ctx, key);
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
        first_waiting_pods_changed(ctx, &key.namespace);
    }
    let now = ctx.state.injected_pods.get(key);
    if let Some(before) = before.as_ref().filter(|before| before.is_ungated())
        && !now.is_some_and(InjectedPod::is_ungated)
        && let Some(assigned) = ctx.state.consumers.get(&before.mask()).and_then(|one| one.assigned.as_deref())
    {
        let (provider, is_lost) = (assigned.provider.clone(), before.stage == PodStage::Running && now.is_none());
        record_handover(ctx, &provider, is_lost);
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

/// A Pod has joined or left a queue. For the first of each, a Pod of an older revision may be evicted.
fn first_waiting_pods_changed(ctx: &mut Context, namespace: &str) {
    let first: Vec<_> = ctx.state.first_waiting_pods(namespace).cloned().collect();
    for pod in first {
        ctx.enqueue(ReconcileRequest::Pod(pod));
    }
}

/// How long the release of a slot and its next assignment may take, beyond the time for which the slot is held.
const HANDOVER: Duration = Duration::from_secs(3);

/// Notes that the slot of a Pod will be free soon, so that no other Pod is evicted for it.
fn record_handover(ctx: &mut Context, provider: &ObjectKey, is_lost: bool) {
    let Some(provider) = ctx.state.providers.get(provider) else { return };
    let hold = if is_lost { provider.unclean_delay } else { provider.release_delay };
    if is_lost && hold > surge::LONGEST_HOLD {
        return;
    }
    let now = ctx.now.monotonic;
    let handing_over = &mut ctx.memory.pods.handing_over;
    handing_over.retain(|_, until| *until > now);
    let until = handing_over.entry(provider.meta.key.clone()).or_default();
    *until = (*until).max(now + hold + HANDOVER);
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
