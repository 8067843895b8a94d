//! Changes that affect MaskConsumers and the assignment of slots.

use std::sync::Arc;

use super::memory::ConsumerMemory;
use crate::{
    allocator::{DeviceKeys, PoolSpec},
    controllers::{Change, Context, providers::why_not_usable, verification},
    model::{Effect, ObjectKey, ReconcileRequest, Uid},
    state::{
        self, ConsumerView, CopyView, CredentialsState, Ending, InjectedPod, Login, Logins, PodStage, PodsChange,
        ProviderView, ReservationView, StoreChange,
    },
};

/// Observes a change.
pub fn observe(ctx: &mut Context, change: &Change<'_>) {
    match change {
        Change::Store(StoreChange::Consumer(change)) => consumer_changed(ctx, change),
        Change::Store(StoreChange::Reservation(change)) => reservation_changed(ctx, change),
        Change::Store(StoreChange::Provider(change)) => provider_changed(ctx, change),
        Change::Store(StoreChange::Copy(change)) => copy_changed(ctx, change),
        Change::Store(StoreChange::InjectedPod(change)) => injected_pod_changed(ctx, change),
        Change::Credentials { provider, data } => {
            refresh_pool(ctx, provider);
            if *data {
                enqueue_holders(ctx, provider);
            }
        }
        Change::Pods(namespace, change) => pods_changed(ctx, namespace, change),
        _ => {}
    }
}

/// Enqueues the report to the providers controller in another process about the `maxSlots` in force.
pub fn enqueue_acknowledgement(ctx: &mut Context, provider: &ObjectKey) {
    if ctx.are_apart {
        ctx.enqueue(ReconcileRequest::Acknowledgement(provider.clone()));
    }
}

fn consumer_changed(ctx: &mut Context, state::Change { key, before, .. }: &state::Change<ConsumerView>) {
    let now = ctx.state.consumers.get(key);
    let assigned = now.and_then(|view| view.assigned.clone());
    let assigned_before = before.as_ref().and_then(|view| view.assigned.as_ref());
    let (now, is_deleting) = (now.map(|view| view.meta.uid.clone()), now.is_some_and(|view| view.meta.deleting));
    if let (Some(_), None, Some(before)) = (&assigned, assigned_before, before) {
        ctx.counters.assigned.push(before.meta.created);
    }
    // The new holder comes first, so that a slot that stays with it is never free in between.
    if let Some(assigned) = &assigned {
        ctx.allocator.committed(&assigned.provider, assigned.slot);
    }
    if let Some(assigned) = assigned_before {
        ctx.allocator.uncommitted(&assigned.provider, assigned.slot);
    }
    if is_deleting && before.as_ref().is_some_and(|view| !view.meta.deleting) {
        // Backoffs of the assignment do not apply to the release.
        ctx.forget(ReconcileRequest::Consumer(key.clone()));
    }
    if let Some(before) = before
        && now.as_ref() != Some(&before.meta.uid)
    {
        let uid = &before.meta.uid;
        ctx.allocator.leave(uid);
        ctx.allocator.end_grant(uid);
        ctx.memory.consumers.by_uid.remove(uid);
        end_follow(ctx, key, uid);
        ctx.forget(ReconcileRequest::Consumer(key.clone()));
    }
    ctx.enqueue(ReconcileRequest::Consumer(key.clone()));
}

/// Stops the watch on a namespace's Pods once no release needs it.
fn end_follow(ctx: &mut Context, key: &ObjectKey, uid: &Uid) {
    if ctx.memory.consumers.followers.end(key, uid) {
        ctx.state.pods.remove(&key.namespace);
        ctx.forget(ReconcileRequest::PodList(key.namespace.clone()));
        ctx.effects.push(Effect::UnwatchPods(key.namespace.clone()));
    }
}

fn reservation_changed(ctx: &mut Context, state::Change { key, before, .. }: &state::Change<ReservationView>) {
    let slot_of = |view: &ReservationView| Some((view.provider()?, view.slot.as_ref()?.1, view.provider_uid.is_some()));
    let now = ctx.state.reservations.get(key);
    match (before.as_ref().and_then(slot_of), now.and_then(slot_of)) {
        (_, Some((provider, slot, is_ours))) => ctx.allocator.reserved(&provider, slot, is_ours),
        (Some((provider, slot, _)), None) => ctx.allocator.unreserved(&provider, slot),
        (None, None) => {}
    }
    let consumers: Vec<_> = before.iter().chain(now).map(|view| view.consumer.clone()).collect();
    for consumer in consumers {
        ctx.enqueue(ReconcileRequest::Consumer(consumer));
    }
}

fn provider_changed(ctx: &mut Context, state::Change { key, before, .. }: &state::Change<ProviderView>) {
    let now = ctx.state.providers.get(key);
    if let Some(before) = before
        && now.is_none_or(|view| view.meta.uid != before.meta.uid)
    {
        ctx.forget(ReconcileRequest::Acknowledgement(key.clone()));
    }
    // Status changes are frequent, and do not affect consumers that have a slot.
    let now = ctx.state.providers.get(key);
    let affects_holders = match (before, now) {
        (Some(before), Some(now)) => {
            before.meta.uid != now.meta.uid
                || before.meta.deleting != now.meta.deleting
                || before.max_slots != now.max_slots
                || before.status.phase != now.status.phase
                || before.secret != now.secret
                || before.slot_secrets != now.slot_secrets
                || before.releases_on_failure() != now.releases_on_failure()
        }
        _ => true,
    };
    refresh_pool(ctx, key);
    if affects_holders {
        enqueue_holders(ctx, key);
    }
    enqueue_acknowledgement(ctx, key);
}

fn enqueue_holders(ctx: &mut Context, provider: &ObjectKey) {
    // Highest slot first: the order of eviction when `maxSlots` is lowered.
    let state = &ctx.state;
    let holder = |(slot, view): (u32, &ReservationView)| {
        if !view.is_unreadable() {
            return Some(view.consumer.clone());
        }
        let has_slot = |consumer: &&ConsumerView| {
            consumer.assigned.as_ref().is_some_and(|assigned| assigned.provider == *provider && assigned.slot == slot)
        };
        state.consumers.values().find(has_slot).map(|consumer| consumer.meta.key.clone())
    };
    for consumer in state.reservations_on(provider).rev().filter_map(holder).collect::<Vec<_>>() {
        ctx.enqueue(ReconcileRequest::Consumer(consumer));
    }
}

/// Updates the pool of a provider in the allocator.
fn refresh_pool(ctx: &mut Context, key: &ObjectKey) {
    let state = &ctx.state;
    let Some(provider) = state.providers.get(key) else {
        ctx.allocator.remove_pool(key);
        return;
    };
    let has_source = matches!(state.credentials_secret(&provider.secret_key()), CredentialsState::Present(_));
    let held = has_source && provider.meta.finalizer.is_some() && !provider.meta.deleting;
    let usable = provider.is_usable() && held && verification::admits_users(state, provider);
    let spec = PoolSpec {
        uid: provider.meta.uid.clone(),
        capacity: provider.max_slots,
        withheld: state.withheld(provider).map(|(slot, ..)| slot).collect(),
        keys: state.logins.of(key).map(device_keys).unwrap_or_default(),
        tags: provider.tags.clone(),
        namespaces: provider.namespaces.clone(),
        usable,
        verifiable: provider.verify.is_some() && held,
        current: provider.is_current(),
        unusable_reason: if usable { String::new() } else { why_not_usable(state, provider) },
    };
    ctx.allocator.set_pool(key.clone(), spec);
}

/// Returns the keys of slots that log in as one device.
fn device_keys(logins: &Logins) -> DeviceKeys {
    let key = |login: &Option<Login>| login.as_ref().filter(|login| login.is_device).map(|login| login.fingerprint);
    let own = logins.own.iter().map(|(slot, login)| (*slot, key(login))).collect();
    DeviceKeys { common: key(&logins.common), own }
}

fn copy_changed(ctx: &mut Context, state::Change { key, before, .. }: &state::Change<CopyView>) {
    let now = ctx.state.copies.get(key);
    let is_gone = now.is_none();
    let mut owners: Vec<_> = before.iter().chain(now).filter_map(|view| view.consumer_uid.clone()).collect();
    if !owners.iter().any(|uid| ctx.state.consumer_by_uid(uid).is_some()) {
        // Its owner reference was removed, or it is of a MaskConsumer that is gone.
        let uses = |consumer: &&ConsumerView| {
            consumer.meta.key.namespace == key.namespace
                && consumer.assigned.as_ref().is_some_and(|assigned| assigned.secret == key.name)
        };
        owners.extend(ctx.state.consumers.values().filter(uses).map(|consumer| consumer.meta.uid.clone()));
    }
    for uid in owners {
        let Some(consumer) = ctx.state.consumer_by_uid(&uid) else { continue };
        let was_its_copy = consumer.assigned.as_ref().is_some_and(|assigned| assigned.secret == key.name);
        let consumer = consumer.meta.key.clone();
        if let Some(memory) = ctx.memory.consumers.by_uid.get_mut(&uid) {
            let ConsumerMemory { copy_gone, conflicting_secret, .. } = memory;
            // A Secret that disappears from the watch may have lost its label only, so that does not set it.
            *copy_gone &= is_gone || !was_its_copy;
            *conflicting_secret = None;
        }
        ctx.enqueue(ReconcileRequest::Consumer(consumer));
    }
}

/// Notes how a Pod ended that a slot was for: the release may begin only after the Pod is gone.
fn injected_pod_changed(ctx: &mut Context, state::Change { key, before, missed }: &state::Change<InjectedPod>) {
    let now = ctx.state.injected_pods.get(key);
    let Some(before) = before.as_ref().filter(|before| now.is_none_or(|now| now.meta.uid != before.meta.uid)) else {
        return;
    };
    let Some(consumer) = ctx.state.consumers.get(&before.mask()) else { return };
    let (uid, consumer_key) = (consumer.meta.uid.clone(), consumer.meta.key.clone());
    if consumer.slot_pod().is_some_and(|pod| pod.uid == before.meta.uid) {
        let ending = match before.stage {
            PodStage::Ended => Ending::Clean,
            PodStage::Unbound if !missed => Ending::Clean,
            PodStage::Unbound | PodStage::Running => Ending::Unclean,
        };
        ctx.memory.consumers.of(&uid).pod_ending = Some((before.meta.uid.clone(), ending));
        ctx.enqueue(ReconcileRequest::Consumer(consumer_key));
    }
}

fn pods_changed(ctx: &mut Context, namespace: &Arc<str>, change: &PodsChange) {
    let followers = &ctx.memory.consumers.followers;
    let affected: Vec<_> = match change {
        PodsChange::Listed => followers.all(namespace).cloned().collect(),
        PodsChange::Pod(pod) => followers.affected(namespace, pod).into_iter().collect(),
    };
    for uid in affected {
        if let Some(consumer) = ctx.state.consumer_by_uid(&uid) {
            let key = consumer.meta.key.clone();
            ctx.enqueue(ReconcileRequest::Consumer(key));
        }
    }
}
