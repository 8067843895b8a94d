//! Waiting: queues a consumer, and reports once why it waits. Only the first few consumers get their queue position,
//! and it is rewritten at a limited rate.

use std::time::Duration;

use vpn_types::{MaskConsumerPhase, Reason};

use super::context::{ConsumerContext, event};
use crate::{
    allocator::{Allocator, Pool, QueuePosition, Requirements},
    controllers::{
        providers::{is_about_to_change, why_not_usable, withheld},
        ready::ReadyCondition,
        status, verification,
    },
    model::{ObjectKey, Operation, Step},
    state::{ClusterState, ConsumerView, ProviderView},
};

/// Returns the next step for a consumer with neither slot nor grant.
pub fn decide(ctx: &mut ConsumerContext<'_>, consumer: &ConsumerView) -> Step {
    let uid = &consumer.meta.uid;
    if let Some(backoff) = ctx.active_backoff() {
        let condition = ReadyCondition::not_ready(MaskConsumerPhase::Waiting, backoff.reason, backoff.message.clone());
        let until = backoff.until;
        ctx.allocator.leave(uid);
        return report(ctx, consumer, &condition).and_wait_until(until);
    }
    let is_new = ctx.allocator.position(uid) == QueuePosition::NotQueued;
    ctx.allocator.wait(uid, requirements(ctx.state, consumer), consumer.rank());
    if is_new {
        // It may get a slot at once: do not write a status about a wait that does not happen.
        ctx.revisit.push(consumer.meta.key.clone());
        return Step::Idle;
    }
    let QueuePosition::Queued { position, fitting } = ctx.allocator.position(uid) else { return Step::Idle };
    let verifies = verification::verified_by(ctx.state, consumer).is_some();
    if verifies || is_settling(ctx.state, &fitting) {
        // A matching provider is about to get a new condition (or, before a verification, to have its Secret read): a
        // message written now would be outdated in a moment.
        let now = ctx.now.monotonic;
        let until = *ctx.memory(consumer).settling_since.get_or_insert(now) + SETTLING_TIME;
        if now < until {
            return Step::WaitUntil(until);
        }
    } else if let Some(memory) = ctx.existing_memory(consumer) {
        memory.settling_since = None;
    }
    report(ctx, consumer, &waiting_condition(ctx.state, ctx.allocator, consumer, position, &fitting))
}

/// How long no status is written while a matching provider is about to get a new condition.
const SETTLING_TIME: Duration = Duration::from_secs(2);

fn is_settling(state: &ClusterState, fitting: &[ObjectKey]) -> bool {
    let mut providers = fitting.iter().filter_map(|key| state.providers.get(key)).peekable();
    providers.peek().is_some()
        && !providers.clone().any(ProviderView::is_usable)
        && providers.any(|provider| is_about_to_change(state, provider))
}

/// Returns the requirements that decide which providers match a consumer.
pub fn requirements(state: &ClusterState, consumer: &ConsumerView) -> Requirements {
    Requirements {
        namespace: consumer.meta.key.namespace.clone(),
        tags: consumer.tags.clone(),
        verifies: verification::verified_by(state, consumer).map(|provider| provider.meta.uid.clone()),
    }
}

/// Returns the condition that says why a consumer waits.
fn waiting_condition(
    state: &ClusterState,
    allocator: &Allocator,
    consumer: &ConsumerView,
    position: Option<usize>,
    fitting: &[ObjectKey],
) -> ReadyCondition<MaskConsumerPhase> {
    if let Some(provider) = verification::verified_by(state, consumer) {
        let message = format!("The verification of MaskProvider {} is waiting for a free slot", provider.meta.key);
        return ReadyCondition::not_ready(MaskConsumerPhase::Waiting, Reason::NoFreeSlot, message);
    }
    if fitting.is_empty() {
        let wanted = match &consumer.tags {
            Some(tags) => format!(" with one of the tags {}", list(tags.iter())),
            None => String::new(),
        };
        let message = format!("There is no MaskProvider{wanted} that allows namespace {}", consumer.meta.key.namespace);
        return ReadyCondition::not_ready(MaskConsumerPhase::ErrNoProviders, Reason::NoProviderFits, message);
    }
    let providers: Vec<_> = fitting.iter().filter_map(|key| state.providers.get(key)).collect();
    let usable: Vec<_> = providers.iter().filter(|provider| provider.is_usable()).collect();
    if usable.is_empty() {
        let why =
            providers.iter().map(|provider| format!("{}: {}", provider.meta.key, why_not_usable(state, provider)));
        let message = format!("There is no MaskProvider that matches and is usable ({})", list(why));
        return ReadyCondition::not_ready(MaskConsumerPhase::ErrNoProviders, Reason::NoProviderUsable, message);
    }
    let place = match position {
        Some(position) => format!("place {position} in line"),
        None => format!("more than {} ahead in line", crate::allocator::POSITIONS_SHOWN - 1),
    };
    let names = list(usable.iter().map(|provider| {
        let pool = allocator.pool(&provider.meta.key);
        let why = if pool.is_some_and(Pool::is_draining) {
            " (the slots beyond maxSlots are being released first)".to_owned()
        } else if pool.is_some_and(Pool::is_short_of_keys) {
            " (slots with the same WireGuard private key are assigned one at a time)".to_owned()
        } else {
            withheld(state, provider).map_or_else(String::new, |(_, why)| format!(" ({why})"))
        };
        format!("{}{why}", provider.meta.key)
    }));
    let message = format!("All slots of {names} are taken; {place}");
    ReadyCondition::not_ready(MaskConsumerPhase::Waiting, Reason::NoFreeSlot, message)
}

/// Joins the first three items of a list, and the number of the others.
fn list<T: ToString>(mut items: impl Iterator<Item = T>) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<_> = items.by_ref().take(SHOWN).map(|item| item.to_string()).collect();
    match items.count() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn report(
    ctx: &mut ConsumerContext<'_>,
    consumer: &ConsumerView,
    condition: &ReadyCondition<MaskConsumerPhase>,
) -> Step {
    let patch = status::consumer(&consumer.meta, &consumer.status, condition, None, ctx.now.wall);
    let Some(patch) = patch else { return Step::Idle };
    // The return to `NoFreeSlot` after a rejection counts as a rewrite too: another operator may see it differently.
    let rewrite = consumer.status.phase == Some(condition.phase)
        && (condition.reason == Reason::NoFreeSlot
            || consumer.ready_condition.as_ref().is_some_and(|stored| stored.reason == condition.reason));
    if rewrite && let Err(until) = ctx.throttles.positions.take(ctx.now) {
        return Step::WaitUntil(until);
    }
    let warning = condition.reason != Reason::NoFreeSlot;
    let event = (!rewrite).then(|| event(consumer, warning, condition.reason, "Wait", condition.message.clone()));
    Step::status(Operation::PatchStatus(crate::model::Kind::Consumer, consumer.meta.key.clone(), patch))
        .with_event(event)
}
