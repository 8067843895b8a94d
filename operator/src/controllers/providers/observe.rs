//! Changes that affect MaskProviders and their verification.

use super::sharing;
use crate::{
    controllers::{Change, Context, verification::provider_of},
    model::{Effect, LogEvent, ObjectKey, ReconcileRequest, Uid},
    state::{self, ProviderView, StoreChange, VerificationPod},
};

/// Observes a change.
pub fn observe(ctx: &mut Context, change: &Change<'_>) {
    match change {
        Change::Store(StoreChange::Mask(change)) => enqueue_verification(ctx, &change.key),
        Change::Store(StoreChange::Consumer(change)) => enqueue_verification(ctx, &change.key),
        Change::Store(StoreChange::Reservation(change)) => {
            let now = ctx.state.reservations.get(&change.key);
            let providers = change.before.iter().chain(now).filter_map(|view| view.provider());
            for provider in providers.collect::<Vec<_>>() {
                ctx.enqueue(ReconcileRequest::Provider(provider));
            }
        }
        Change::Store(StoreChange::Provider(change)) => provider_changed(ctx, change),
        Change::Store(StoreChange::VerificationPod(change)) => verification_pod_changed(ctx, change),
        Change::Store(
            StoreChange::Copy(_)
            | StoreChange::InjectedPod(_)
            | StoreChange::Server(_)
            | StoreChange::Client(_)
            | StoreChange::ServerSecret(_)
            | StoreChange::ServerObject(_)
            | StoreChange::ServerPod(_),
        )
        | Change::Keystore(_)
        | Change::ConnectedClients { .. }
        | Change::Pods(..) => {}
        Change::Credentials { provider, .. } => {
            ctx.enqueue(ReconcileRequest::Verification((*provider).clone()));
            ctx.enqueue(ReconcileRequest::Provider((*provider).clone()));
        }
        Change::SharedCredentials { providers, is_complete } => {
            let mut providers = providers.to_vec();
            if *is_complete {
                providers.extend(sharing::providers_with_condition(&ctx.state));
            }
            for provider in providers {
                ctx.enqueue(ReconcileRequest::Provider(provider));
            }
        }
        Change::Log(pod, event) => log_continued(ctx, pod, event),
    }
}

fn provider_changed(ctx: &mut Context, state::Change { key, before, .. }: &state::Change<ProviderView>) {
    let now = ctx.state.providers.get(key);
    if let Some(before) = before
        && now.is_none_or(|view| view.meta.uid != before.meta.uid)
    {
        ctx.memory.last_writes.remove(&before.meta.uid);
        ctx.memory.attempts.remove(&before.meta.uid);
        ctx.forget(ReconcileRequest::Provider(key.clone()));
        ctx.forget(ReconcileRequest::Verification(key.clone()));
    }
    ctx.enqueue(ReconcileRequest::Verification(key.clone()));
    ctx.enqueue(ReconcileRequest::Provider(key.clone()));
}

fn verification_pod_changed(ctx: &mut Context, state::Change { key, before, .. }: &state::Change<VerificationPod>) {
    let uid = ctx.state.verification_pods.get(key).map(|pod| &pod.meta.uid);
    if let Some(before) = before
        && uid != Some(&before.meta.uid)
        && ctx.memory.logs.remove(&before.meta.uid).is_some()
    {
        ctx.effects.push(Effect::UnfollowLog(before.meta.uid.clone()));
    }
    enqueue_verification(ctx, key);
}

/// Enqueues the verification that an object of that name may belong to.
fn enqueue_verification(ctx: &mut Context, key: &ObjectKey) {
    if let Some(provider) = provider_of(key)
        && ctx.state.providers.get(&provider).is_some()
    {
        ctx.enqueue(ReconcileRequest::Verification(provider));
    }
}

fn log_continued(ctx: &mut Context, pod: &Uid, event: &LogEvent) {
    let Some((_, log)) = ctx.memory.logs.get_mut(pod) else { return };
    match event {
        LogEvent::Line(line) => log.digest.push(line),
        LogEvent::Ended => log.ended = true,
        LogEvent::Unreadable(why) => (log.ended, log.unreadable) = (true, Some(why.clone())),
    }
    let found = ctx.state.verification_pods.values().find(|found| found.meta.uid == *pod);
    if let Some(key) = found.map(|found| found.meta.key.clone()) {
        enqueue_verification(ctx, &key);
    }
}
