//! Waiting: puts a consumer in line and tells why it waits, once; places in line are told to the first few, and
//! rewritten slowly.

use std::{cmp::Reverse, time::Duration};

use vpn_types::{MaskConsumerPhase, Reason};

use super::{Scene, note};
use crate::{
    allocator::{Allocator, Class, Pool, Rank, Standing},
    engine::{Now, Op, Step},
    providers::{is_about_to_open, why_not_usable, withheld},
    status::{self, Verdict},
    verification,
    world::{ConsumerView, ObjectKey, ProviderView, World},
};

/// A token bucket: at most `RATE` rewrites of waiting statuses a second. The Mask follows its consumer, which doubles
/// them.
#[derive(Clone, Debug)]
pub struct Throttle {
    next: Duration,
}

impl Throttle {
    const INTERVAL: Duration = Duration::from_millis(450);

    /// No token taken yet.
    pub fn new() -> Self {
        Self { next: Duration::ZERO }
    }

    /// Takes the token for a rewrite, or says when there is one.
    fn take(&mut self, now: Now) -> Result<(), Duration> {
        if now.monotonic < self.next {
            return Err(self.next);
        }
        self.next = now.monotonic + Self::INTERVAL;
        Ok(())
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

/// The next step for a consumer with neither slot nor grant.
pub fn decide(scene: &mut Scene<'_>, consumer: &ConsumerView) -> Step {
    let uid = &consumer.meta.uid;
    if let Some(trouble) = scene.trouble_now() {
        let verdict = Verdict::not_ready(MaskConsumerPhase::Waiting, trouble.reason, trouble.message.clone());
        let until = trouble.until;
        scene.allocator.leave(uid);
        return tell(scene, consumer, &verdict).or_else(|| Step::WaitUntil(until));
    }
    let newcomer = scene.allocator.standing(uid) == Standing::Absent;
    scene.allocator.wait(uid, class(scene.world, consumer), rank(consumer));
    if newcomer {
        // It may get a slot this instant: nothing is written about a wait that does not happen.
        scene.revisit.push(consumer.meta.key.clone());
        return Step::Idle;
    }
    let Standing::InLine { place, fitting } = scene.allocator.standing(uid) else { return Step::Idle };
    let verifies = verification::verified_by(scene.world, consumer).is_some();
    if verifies || is_settling(scene.world, &fitting) {
        // A provider that fits is about to be judged (or, before a verification, to have its Secret read): what would be
        // said now would be wrong in a moment.
        let now = scene.now.monotonic;
        let until = *scene.progress(consumer).settling_since.get_or_insert(now) + SETTLING_TIME;
        if now < until {
            return Step::WaitUntil(until);
        }
    } else if let Some(progress) = scene.recall(consumer) {
        progress.settling_since = None;
    }
    tell(scene, consumer, &outlook(scene.world, scene.allocator, consumer, place, &fitting))
}

/// How long nothing is said while a provider that fits is about to be judged.
const SETTLING_TIME: Duration = Duration::from_secs(2);

fn is_settling(world: &World, fitting: &[ObjectKey]) -> bool {
    let mut providers = fitting.iter().filter_map(|key| world.providers.get(key)).peekable();
    providers.peek().is_some()
        && !providers.clone().any(ProviderView::is_usable)
        && providers.any(|provider| is_about_to_open(world, provider))
}

/// What decides which providers fit a consumer.
pub fn class(world: &World, consumer: &ConsumerView) -> Class {
    Class {
        namespace: consumer.meta.key.namespace.clone(),
        tags: consumer.tags.clone(),
        verifies: verification::verified_by(world, consumer).map(|provider| provider.meta.uid.clone()),
    }
}

fn rank(consumer: &ConsumerView) -> Rank {
    Rank {
        priority: Reverse(consumer.priority),
        // The Mask's age, not the consumer's: one that is made again keeps its place.
        created: consumer.mask.as_ref().map_or(consumer.meta.created, |mask| mask.created),
        name: consumer.meta.key.name.clone(),
        key: consumer.meta.key.clone(),
        uid: consumer.meta.uid.clone(),
    }
}

/// Why it waits.
fn outlook(
    world: &World,
    allocator: &Allocator,
    consumer: &ConsumerView,
    place: Option<usize>,
    fitting: &[ObjectKey],
) -> Verdict<MaskConsumerPhase> {
    if let Some(provider) = verification::verified_by(world, consumer) {
        let message = format!("the verification of MaskProvider {} waits for a free slot", provider.meta.key);
        return Verdict::not_ready(MaskConsumerPhase::Waiting, Reason::NoFreeSlot, message);
    }
    if fitting.is_empty() {
        let wanted = match &consumer.tags {
            Some(tags) => format!(" with one of the tags {}", list(tags.iter())),
            None => String::new(),
        };
        let message = format!("no MaskProvider{wanted} admits namespace {}", consumer.meta.key.namespace);
        return Verdict::not_ready(MaskConsumerPhase::ErrNoProviders, Reason::NoProviderFits, message);
    }
    let providers: Vec<_> = fitting.iter().filter_map(|key| world.providers.get(key)).collect();
    let usable: Vec<_> = providers.iter().filter(|provider| provider.is_usable()).collect();
    if usable.is_empty() {
        let why =
            providers.iter().map(|provider| format!("{}: {}", provider.meta.key, why_not_usable(world, provider)));
        let message = format!("no MaskProvider that fits can be used ({})", list(why));
        return Verdict::not_ready(MaskConsumerPhase::ErrNoProviders, Reason::NoProviderUsable, message);
    }
    let place = match place {
        Some(place) => format!("place {place} in line"),
        None => format!("more than {} in line before it", crate::allocator::PLACES_SHOWN - 1),
    };
    let names = list(usable.iter().map(|provider| {
        let why = if allocator.pool(&provider.meta.key).is_some_and(Pool::is_short_of_keys) {
            " (slots with the same WireGuard private key are assigned one at a time)".to_owned()
        } else {
            withheld(world, provider).map_or_else(String::new, |(_, why)| format!(" ({why})"))
        };
        format!("{}{why}", provider.meta.key)
    }));
    let message = format!("all slots of {names} are taken; {place}");
    Verdict::not_ready(MaskConsumerPhase::Waiting, Reason::NoFreeSlot, message)
}

/// The first three of a list, and how many more there are.
fn list<T: ToString>(mut items: impl Iterator<Item = T>) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<_> = items.by_ref().take(SHOWN).map(|item| item.to_string()).collect();
    match items.count() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn tell(scene: &mut Scene<'_>, consumer: &ConsumerView, verdict: &Verdict<MaskConsumerPhase>) -> Step {
    let patch = status::consumer(&consumer.meta, &consumer.status, verdict, None, scene.now.wall);
    let Some(patch) = patch else { return Step::Idle };
    // Back from a refusal that has passed counts as a rewrite too: another operator may see that otherwise.
    let rewrite = consumer.status.phase == Some(verdict.phase)
        && (verdict.reason == Reason::NoFreeSlot
            || consumer.said.as_ref().is_some_and(|said| said.reason == verdict.reason));
    if rewrite && let Err(until) = scene.throttle.take(scene.now) {
        return Step::WaitUntil(until);
    }
    let warning = verdict.reason != Reason::NoFreeSlot;
    let event = (!rewrite).then(|| note(consumer, warning, verdict.reason, "Wait", verdict.message.clone()));
    Step::tell(Op::PatchStatus(crate::world::Kind::Consumer, consumer.meta.key.clone(), patch)).with_note(event)
}
