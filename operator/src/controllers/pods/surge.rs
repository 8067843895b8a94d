//! Rolling updates while all slots are taken. The new Pod waits for a slot, and a Pod of the old revision gives up its
//! slot only when the new Pod is ready: a deadlock. So one Pod of the oldest revision is evicted, unless a
//! PodDisruptionBudget refuses that. The new Pod gets the slot if it is first in the queue.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use chrono::TimeDelta;
use vpn_types::{Reason, inject::Surge};

use super::{line, report};
use crate::{
    controllers::{Context, consumers},
    model::{ObjectKey, Operation, ReconcileRequest, RequestPriority, Step, Uid},
    state::{Assigned, ConsumerView, InjectedPod, ReplicaSetView},
};

/// How long a list of ReplicaSets serves for decisions.
pub const FRESH: Duration = Duration::from_secs(5);
/// When to decide again while another Pod is stopping or ahead in line.
const RECHECK: Duration = Duration::from_secs(1);
/// How old a Mask, or a Pod that shares one, has to be before a Pod is evicted for it. The evicted Pod is replaced at
/// once, and that one must be younger. Creation times have a resolution of one second.
const SETTLED: TimeDelta = TimeDelta::seconds(2);
/// How long a process evicts nothing after it has become the leader. It does not know the evictions of the leader before it,
/// and the slot of an evicted Pod may be on its way to the next Pod.
const AFTER_START: Duration = Duration::from_secs(5);
/// The longest hold of a slot that a Pod waits for instead of an eviction. The slot of a lost Pod may be held for much
/// longer, and that Pod may be of another workload.
pub const LONGEST_HOLD: Duration = Duration::from_secs(10 * 60);

/// What a waiting Pod does about Pods of older revisions.
pub enum SurgeDecision {
    /// Nothing: it waits in line.
    Wait,
    /// Nothing yet: decide again at this time (monotonic).
    WaitUntil(Duration),
    /// This is the step of the Pod, which may be to do nothing.
    Step(Step),
}

/// Decides whether a Pod of an older revision is evicted for a waiting Pod.
pub fn decide(ctx: &Context, request: &ReconcileRequest, pod: &InjectedPod, consumer: &ConsumerView) -> SurgeDecision {
    let is_full = || consumer.ready_condition.as_ref().is_some_and(|ready| ready.reason == Reason::NoFreeSlot);
    let Some(replica_set) = pod.replica_set.as_ref().filter(|_| pod.shares.is_some() || is_full()) else {
        return SurgeDecision::Wait;
    };
    let is_first = match pod.shares {
        Some(_) => line::is_first(ctx, pod, consumer),
        None => ctx.state.is_first_waiting_pod(pod),
    };
    // The others of its ReplicaSet are behind it anyway.
    if !is_first {
        return SurgeDecision::Wait;
    }
    let holders = holders(ctx, pod, consumer);
    if holders.is_empty() {
        return SurgeDecision::Wait;
    }
    let now = ctx.now.monotonic;
    let recheck = SurgeDecision::WaitUntil(now + RECHECK);
    let providers: HashSet<_> =
        holders.iter().filter_map(|holder| assigned_to(ctx, holder)).map(|assigned| &assigned.provider).collect();
    let is_first_for = |provider: &&ObjectKey| pod.shares.is_some() || is_first_in_line(ctx, consumer, provider);
    let first_for: HashSet<_> = providers.iter().copied().filter(is_first_for).collect();
    if first_for.is_empty() {
        return recheck;
    }
    // One at a time: the slot of a Pod that is already going may be the one that the new Pod gets.
    let memory = &ctx.memory.pods;
    let is_handing_over = |pod: &InjectedPod| {
        let until = assigned_to(ctx, pod).and_then(|assigned| memory.handing_over.get(&assigned.provider));
        until.is_some_and(|until| *until > now)
    };
    let is_going =
        |pod: &&InjectedPod| pod.meta.deleting || memory.evicted.contains(&pod.meta.uid) || is_handing_over(pod);
    if holders.iter().any(is_going) {
        return recheck;
    }
    let started = ctx.leading_since + AFTER_START;
    if now < started {
        return SurgeDecision::WaitUntil(started);
    }
    if providers.into_iter().any(|provider| holds_slot(ctx, provider)) {
        return recheck;
    }
    // A revision that does not work must not replace one that does.
    let is_starting = |other: &InjectedPod| {
        other.replica_set.as_ref() == Some(replica_set) && other.is_ungated() && !other.is_ready && !other.meta.deleting
    };
    if ctx.state.injected_pods.values().any(is_starting) {
        return recheck;
    }
    let Some((listed, all)) = memory.replica_sets.get(&pod.meta.key.namespace) else {
        return list_replica_sets(ctx, request, pod);
    };
    let is_fresh = *listed + FRESH > now;
    let Some(older) = older_revisions(all, replica_set) else {
        // The list may be older than the newest rollout, unless this decision requested it.
        return match is_fresh {
            true if *listed == now => SurgeDecision::Wait,
            true => SurgeDecision::WaitUntil(*listed + FRESH),
            false => list_replica_sets(ctx, request, pod),
        };
    };
    let revision = |pod: &InjectedPod| older.get(pod.replica_set.as_ref()?).copied();
    let mut candidates: Vec<_> = holders.into_iter().filter(|holder| revision(holder).is_some()).collect();
    if candidates.is_empty() {
        return SurgeDecision::Wait;
    }
    candidates.sort_by_key(|pod| (revision(pod), pod.meta.created, pod.meta.key.clone()));
    let gets_slot =
        |holder: &&InjectedPod| assigned_to(ctx, holder).is_some_and(|assigned| first_for.contains(&assigned.provider));
    let Some(oldest) = candidates.into_iter().find(gets_slot) else { return recheck };
    if !is_fresh {
        return list_replica_sets(ctx, request, pod);
    }
    let created = match &pod.shares {
        Some(_) => pod.meta.created,
        None => consumer.mask.as_ref().map_or(consumer.meta.created, |mask| mask.created),
    };
    match (created + SETTLED - ctx.now.wall).to_std() {
        Ok(rest) if !rest.is_zero() => SurgeDecision::WaitUntil(now + rest),
        _ => SurgeDecision::Step(evict(ctx, request, pod, oldest)),
    }
}

/// Returns the Pods of other ReplicaSets whose slots the Pod could use.
fn holders<'a>(ctx: &'a Context, pod: &InjectedPod, consumer: &ConsumerView) -> Vec<&'a InjectedPod> {
    let of_another = |other: &&InjectedPod| {
        other.meta.key.namespace == pod.meta.key.namespace
            && other.is_ungated()
            && other.replica_set.is_some()
            && other.replica_set != pod.replica_set
    };
    match &pod.shares {
        Some(_) => {
            let holder = consumer.pod.as_ref().map(|holder| &holder.uid);
            let mask = pod.mask();
            let pods = ctx.state.pods_of_mask(&mask);
            pods.filter(|other| Some(&other.meta.uid) == holder).filter(of_another).collect()
        }
        None => {
            let requirements = consumers::requirements(&ctx.state, consumer);
            let fits = |other: &&InjectedPod| {
                let provider = assigned_to(ctx, other).and_then(|assigned| ctx.state.providers.get(&assigned.provider));
                provider.is_some_and(|provider| requirements.fit(provider))
            };
            ctx.state.injected_pods.values().filter(of_another).filter(fits).collect()
        }
    }
}

fn assigned_to<'a>(ctx: &'a Context, pod: &InjectedPod) -> Option<&'a Assigned> {
    let consumer = ctx.state.consumers.get(&pod.mask())?;
    consumer.assigned.as_deref().filter(|assigned| assigned.secret == pod.secret)
}

/// Whether a provider holds a slot after its release, for at most [`LONGEST_HOLD`]. After a restart, it does so for longer
/// than `holdUntil` says.
fn holds_slot(ctx: &Context, provider: &ObjectKey) -> bool {
    let mut ends = ctx.state.reservations_on(provider).filter_map(|(_, reservation)| reservation.hold_until);
    // It may be over.
    ends.any(|end| (end - ctx.now.wall).to_std().unwrap_or_default() <= LONGEST_HOLD)
}

/// Returns the older revisions of the Deployment of a ReplicaSet by UID, or `None` if it is not the newest itself.
fn older_revisions(all: &[ReplicaSetView], of: &Uid) -> Option<HashMap<Uid, u64>> {
    let newest = all.iter().find(|one| one.uid == *of)?;
    let (_, deployment) = newest.deployment.as_ref()?;
    let is_sibling = |one: &&ReplicaSetView| one.deployment.as_ref().is_some_and(|(_, uid)| uid == deployment);
    let siblings: Vec<_> = all.iter().filter(is_sibling).filter(|one| one.uid != *of).collect();
    let is_newest = siblings.iter().all(|one| one.revision < newest.revision);
    is_newest.then(|| siblings.into_iter().map(|one| (one.uid.clone(), one.revision)).collect())
}

/// Whether the next slot of a provider would go to a Pod with a Mask of its own.
fn is_first_in_line(ctx: &Context, consumer: &ConsumerView, provider: &ObjectKey) -> bool {
    let Some(provider) = ctx.state.providers.get(provider) else { return false };
    let rank = consumer.rank();
    let ahead = |other: &ConsumerView| other.rank() < rank && consumers::requirements(&ctx.state, other).fit(provider);
    !ctx.state.consumers.values().filter(|other| other.is_waiting()).any(ahead)
}

fn list_replica_sets(ctx: &Context, request: &ReconcileRequest, pod: &InjectedPod) -> SurgeDecision {
    let backoff = ctx.backoffs.get(request, RequestPriority::Slots).filter(|backoff| backoff.is_active(ctx.now));
    SurgeDecision::Step(match backoff {
        Some(backoff) => {
            let message = format!("Cannot find out which Pods are of older revisions: {}", backoff.message);
            report::waiting(pod, backoff.reason, &message, ctx.now).and_wait_until(backoff.until)
        }
        None => Step::send(Operation::ListReplicaSets(pod.meta.key.namespace.clone())).provisional(),
    })
}

fn evict(ctx: &Context, request: &ReconcileRequest, pod: &InjectedPod, oldest: &InjectedPod) -> Step {
    let ObjectKey { name, .. } = &oldest.meta.key;
    let what = format!("Pod {name} of an older revision has the slot that this Pod needs");
    let avoid = "use the strategy RollingUpdate with maxSurge: 0, so that the old Pod goes first";
    if pod.surge == Surge::Wait {
        let message = format!("{what}, and is not evicted (vpn.beebs.dev/surge: wait); {avoid}");
        return report::waiting(pod, Reason::EvictionRefused, &message, ctx.now);
    }
    let backoff = ctx.backoffs.get(request, RequestPriority::Slots);
    if let Some(backoff) = backoff.filter(|backoff| backoff.is_active(ctx.now)) {
        let message = format!("{what}, and cannot be evicted: {}; {avoid}", backoff.message);
        return report::waiting(pod, Reason::EvictionRefused, &message, ctx.now).and_wait_until(backoff.until);
    }
    let message =
        format!("Evicted for Pod {}, which belongs to a newer revision and needs the slot", pod.meta.key.name);
    let event = report::event(oldest, false, Reason::RevisionEvicted, "Evict", message);
    Step::send(Operation::Evict(oldest.meta.key.clone(), oldest.meta.uid.clone())).with_event([event])
}
