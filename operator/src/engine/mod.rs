//! The heart: takes what happened, says what to do next, and touches nothing else. The same inputs give the same
//! effects, so every decision can be tested, and a crash can be put between any two writes.
//!
//! Invariants: at most one request is under way for each object and controller; an outcome that is not known is read
//! back by name before anything else is decided for that object; nothing is decided before every store has synced.

mod answers;
mod observe;
mod request;
mod scene;
mod tally;
mod unreadable;
mod writing;

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

pub use request::*;
pub use scene::*;
pub use tally::{Controller, Tally};
use unreadable::Unreadable;
use writing::Writing;

use crate::{
    allocator::Allocator,
    consumers::{self, Followers, Progress, Throttle},
    masks, providers, reservations,
    verification::{self, Attempts, Logs, Settings},
    world::{Epoch, Kind, ObjectKey, Uid, World},
};

/// Room that the work queue keeps when it is empty.
const SPARE_ROOM: usize = 256;

/// Which controllers run in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Masks: W1, W5.
    pub masks: bool,
    /// Consumers: W2–W4, queue, eviction, release.
    pub consumers: bool,
    /// Reservations: W6, freeing, holds.
    pub reservations: bool,
    /// Providers: status, finalizer.
    pub providers: bool,
}

impl Roles {
    /// All controllers in one process.
    pub const ALL: Self = Self { masks: true, consumers: true, reservations: true, providers: true };

    /// The kinds that have to be watched as a whole.
    pub fn kinds(self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        for (wanted, kind) in [
            (self.masks || self.providers, Kind::Mask),
            (self.masks || self.consumers || self.reservations || self.providers, Kind::Consumer),
            (self.consumers || self.reservations || self.providers, Kind::Reservation),
            (self.consumers || self.providers, Kind::Provider),
            (self.consumers, Kind::Secret),
            (self.providers, Kind::Pod),
        ] {
            if wanted {
                kinds.push(kind);
            }
        }
        kinds
    }

    /// Whether of that kind only what belongs to verifications has to be watched: what has the label for it.
    pub fn needs_only_verifications(self, kind: Kind) -> bool {
        match kind {
            Kind::Mask => !self.masks,
            Kind::Consumer => !(self.masks || self.consumers || self.reservations),
            Kind::Pod => true,
            Kind::Reservation | Kind::Provider | Kind::Secret => false,
        }
    }

    /// Whether the controller that writes that kind's status runs here.
    fn owns(self, kind: Kind) -> bool {
        match kind {
            Kind::Mask => self.masks,
            Kind::Consumer => self.consumers,
            Kind::Reservation => self.reservations,
            Kind::Provider => self.providers,
            Kind::Secret | Kind::Pod => false,
        }
    }

    fn needs_sources(self) -> bool {
        self.consumers || self.providers
    }

    /// Whether the consumers controller, which hands out slots by a provider's `maxSlots`, has a watch of its own on
    /// providers: then the providers controller has to hear from it which `maxSlots` is in force.
    fn are_apart(self) -> bool {
        self.consumers != self.providers
    }
}

/// What is remembered of a request under way.
#[derive(Clone)]
struct InFlight {
    work: Work,
    op: Op,
    lane: Lane,
    notes: Vec<Note>,
    settles: bool,
    epoch: Epoch,
    /// UID and version of the target when the request was sent.
    seen: Option<(Uid, u64)>,
    /// Of a read of a Mask: the owner of its consumer when the request was sent, which the answer is about.
    owner: Option<Uid>,
}

/// The heart. A clone goes its own way from here: a model checker can try one input after the other.
#[derive(Clone)]
pub struct Engine {
    roles: Roles,
    world: World,
    allocator: Allocator,
    progress: HashMap<Uid, Progress>,
    holds: reservations::Holds,
    writes: providers::LastWrites,
    attempts: Attempts,
    logs: Logs,
    settings: Arc<Settings>,
    throttle: Throttle,
    followers: Followers,
    /// Credentials Secrets that are watched, by the providers that name them.
    sources: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    troubles: HashMap<(Work, Lane), Trouble>,
    unsure: HashMap<Work, (Kind, ObjectKey)>,
    unreadable: HashMap<(Kind, ObjectKey), Unreadable>,
    in_flight: HashMap<u64, InFlight>,
    busy: HashSet<Work>,
    writing: Writing,
    dirty: VecDeque<Work>,
    is_dirty: HashSet<Work>,
    timers: BTreeSet<(Duration, Work)>,
    timer_of: HashMap<Work, Duration>,
    next_id: u64,
    effects: Vec<Effect>,
    tally: Tally,
    /// A standby takes everything in and decides nothing.
    leading: bool,
}

impl Engine {
    /// A heart that knows nothing yet.
    pub fn new(roles: Roles) -> Self {
        Self {
            roles,
            world: World::default(),
            allocator: Allocator::default(),
            progress: HashMap::new(),
            holds: HashMap::new(),
            writes: HashMap::new(),
            attempts: Attempts::new(),
            logs: Logs::new(),
            settings: Arc::default(),
            throttle: Throttle::new(),
            followers: Followers::default(),
            sources: HashMap::new(),
            troubles: HashMap::new(),
            unsure: HashMap::new(),
            unreadable: HashMap::new(),
            in_flight: HashMap::new(),
            busy: HashSet::new(),
            writing: Writing::default(),
            dirty: VecDeque::new(),
            is_dirty: HashSet::new(),
            timers: BTreeSet::new(),
            timer_of: HashMap::new(),
            next_id: 0,
            effects: Vec::new(),
            tally: Tally::default(),
            leading: true,
        }
    }

    /// The same, but it decides nothing until it hears [`Input::Lead`].
    pub fn standby(roles: Roles) -> Self {
        Self { leading: false, ..Self::new(roles) }
    }

    /// With settings for verifications other than the default ones.
    pub fn with_settings(self, settings: Settings) -> Self {
        Self { settings: Arc::new(settings), ..self }
    }

    /// What is known.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Queue and slots.
    pub fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// What the last call of [`Self::handle`] did.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The controllers that run here.
    pub fn roles(&self) -> Roles {
        self.roles
    }

    /// The kinds whose first list is still missing.
    pub fn unsynced(&self) -> Vec<Kind> {
        let world = &self.world;
        let synced = |kind: &Kind| match kind {
            Kind::Mask => world.masks.is_synced(),
            Kind::Consumer => world.consumers.is_synced(),
            Kind::Reservation => world.reservations.is_synced(),
            Kind::Provider => world.providers.is_synced(),
            Kind::Secret => world.copies.is_synced(),
            Kind::Pod => world.verification_pods.is_synced(),
        };
        self.roles.kinds().into_iter().filter(|kind| !synced(kind)).collect()
    }

    /// When [`Input::Tick`] is due (monotonic), if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Takes in what happened, one input or many at once, and returns what to do.
    pub fn handle(&mut self, inputs: impl IntoIterator<Item = Input>, now: Now) -> Vec<Effect> {
        self.tally = Tally::default();
        for input in inputs {
            match input {
                Input::Watch(told) => self.told(told),
                Input::Secret(key, source) => self.source_told(key, source),
                Input::SecretUnreadable(key, why) => self.source_unreadable(&key, why),
                Input::Pods(namespace, told) => self.pods_told(namespace, told),
                Input::Log(uid, told) => self.log_told(&uid, told),
                Input::Answer(id, outcome) => self.answered(id, outcome, now),
                Input::Undecodable { target, error } => self.undecodable(target, error),
                Input::Lead => self.leading = true,
                Input::Tick => {}
            }
        }
        while let Some((at, work)) = self.timers.first().cloned() {
            if at > now.monotonic {
                break;
            }
            self.clear_timer(&work);
            self.mark(work);
        }
        if self.leading && self.unsynced().is_empty() {
            self.work_off(now);
        }
        std::mem::take(&mut self.effects)
    }

    /// Decides for all that changed, hands out free slots, and goes on until nothing is left to decide.
    fn work_off(&mut self, now: Now) {
        loop {
            let mut revisit = Vec::new();
            while let Some(work) = self.dirty.pop_front() {
                self.is_dirty.remove(&work);
                self.decide(work, &mut revisit, now);
            }
            if self.roles.consumers {
                revisit.extend(self.allocator.settle());
                revisit.extend(self.allocator.take_touched());
                for provider in self.allocator.take_released() {
                    self.mark(Work::Acknowledgement(provider));
                }
            }
            if revisit.is_empty() && self.dirty.is_empty() {
                // After a start with thousands of objects this would stay as large as all of them.
                self.dirty.shrink_to(SPARE_ROOM);
                self.is_dirty.shrink_to(SPARE_ROOM);
                return;
            }
            for key in revisit {
                self.mark(Work::Consumer(key));
            }
        }
    }

    fn decide(&mut self, work: Work, revisit: &mut Vec<ObjectKey>, now: Now) {
        if self.busy.contains(&work) {
            // Its answer marks it again.
            return;
        }
        self.clear_timer(&work);
        self.tally.decided(&work);
        let first = self.effects.len();
        let step = match self.unsure.get(&work) {
            Some((kind, key)) => Step::send(Op::Get(*kind, key.clone())),
            None => self.next_step(&work, revisit, now),
        };
        for effect in &self.effects[first..] {
            match effect {
                Effect::WatchPods(namespace) => {
                    self.world.pods.insert(namespace.clone(), Default::default());
                }
                Effect::UnwatchPods(namespace) => {
                    self.world.pods.remove(namespace);
                }
                _ => {}
            }
        }
        match step {
            Step::Idle => {}
            Step::WaitUntil(at) => self.set_timer(work, at),
            Step::Send(send) => match self.troubles.get(&(work.clone(), send.lane)) {
                Some(trouble) if trouble.gate && trouble.is_active(now) => {
                    let until = trouble.until;
                    self.set_timer(work, until);
                }
                _ => {
                    let target = send.op.written();
                    if !target.is_some_and(|target| self.writing.defer(target, send.lane, &work)) {
                        self.send(work, *send);
                    }
                }
            },
        }
    }

    fn next_step(&mut self, work: &Work, revisit: &mut Vec<ObjectKey>, now: Now) -> Step {
        match work {
            Work::Mask(key) => {
                let trouble = self.troubles.get(&(work.clone(), Lane::Slots));
                masks::decide(&self.world, key, trouble, now)
            }
            Work::Consumer(key) => {
                let slot = (work.clone(), Lane::Slots);
                let mut trouble = self.troubles.remove(&slot);
                let list = (Work::PodList(key.namespace.clone()), Lane::Slots);
                let list_trouble = self.troubles.get(&list).filter(|trouble| trouble.is_worth_telling());
                let step = consumers::decide(
                    &mut consumers::Scene {
                        world: &self.world,
                        allocator: &mut self.allocator,
                        progress: &mut self.progress,
                        throttle: &mut self.throttle,
                        effects: &mut self.effects,
                        followers: &mut self.followers,
                        list_trouble: list_trouble.cloned(),
                        revisit,
                        trouble: &mut trouble,
                        now,
                    },
                    key,
                );
                if let Some(trouble) = trouble {
                    self.troubles.insert(slot, trouble);
                }
                if self.followers.wants_list(&key.namespace) {
                    self.mark(Work::PodList(key.namespace.clone()));
                }
                step
            }
            Work::PodList(namespace) if self.followers.wants_list(namespace) => {
                Step::send(Op::ListPods(namespace.clone()))
            }
            Work::PodList(_) => Step::Idle,
            Work::Reservation(key) => reservations::decide(&self.world, &mut self.holds, key, now),
            Work::Provider(key) => {
                let trouble = self.troubles.get(&(Work::Verification(key.clone()), Lane::Slots));
                let view = providers::Scene {
                    world: &self.world,
                    attempts: &self.attempts,
                    trouble: trouble.filter(|trouble| trouble.is_active(now)),
                    are_apart: self.roles.are_apart(),
                    now,
                };
                providers::decide(&view, &mut self.writes, key)
            }
            Work::Verification(key) => {
                let mut scene = verification::Scene {
                    world: &self.world,
                    attempts: &mut self.attempts,
                    logs: &mut self.logs,
                    effects: &mut self.effects,
                    trouble: self.troubles.get(&(work.clone(), Lane::Slots)),
                    settings: &self.settings,
                    now,
                };
                let step = verification::decide(&mut scene, key);
                self.mark(Work::Provider(key.clone()));
                step
            }
            Work::Acknowledgement(key) => providers::acknowledge(&self.world, &self.allocator, key),
            Work::Unreadable(kind, key) => match self.unreadable.get_mut(&(*kind, key.clone())) {
                Some(unreadable) if !unreadable.told => {
                    unreadable.told = true;
                    unreadable.tell(*kind, key, now)
                }
                _ => Step::Idle,
            },
            Work::Read(..) => Step::Idle,
        }
    }

    fn send(&mut self, work: Work, send: Send) {
        let Send { op, lane, notes, settles } = send;
        let id = self.next_id;
        self.next_id += 1;
        let (epoch, seen) = op.target().map_or_else(Default::default, |(kind, key)| self.seen(kind, key));
        self.effects.push(Effect::Send(Request { id, work: work.clone(), op: op.clone(), lane }));
        self.busy.insert(work.clone());
        if let Some(target) = op.written() {
            self.writing.began(target, lane);
        }
        if let Op::ListPods(namespace) = &op {
            self.followers.list_sent(namespace);
        }
        let owner = match (&work, &op) {
            (Work::Mask(key), Op::Get(Kind::Mask, _)) => {
                self.world.consumers.get(key).and_then(|consumer| consumer.owner.clone())
            }
            _ => None,
        };
        self.in_flight.insert(id, InFlight { work, op, lane, notes, settles, epoch, seen, owner });
    }

    /// What the store says of a request's target at this moment.
    fn seen(&self, kind: Kind, key: &ObjectKey) -> (Epoch, Option<(Uid, u64)>) {
        use crate::world::{Store, Versioned};
        fn of<V: Versioned>(store: &Store<V>, key: &ObjectKey) -> (Epoch, Option<(Uid, u64)>) {
            (store.epoch(), store.get(key).map(|view| (view.uid().clone(), view.version())))
        }
        match kind {
            Kind::Mask => of(&self.world.masks, key),
            Kind::Consumer => of(&self.world.consumers, key),
            Kind::Reservation => of(&self.world.reservations, key),
            Kind::Provider => of(&self.world.providers, key),
            Kind::Secret => of(&self.world.copies, key),
            Kind::Pod => of(&self.world.verification_pods, key),
        }
    }

    fn mark(&mut self, work: Work) {
        let ours = match &work {
            Work::Mask(_) => self.roles.masks,
            Work::Consumer(_) | Work::PodList(_) => self.roles.consumers,
            Work::Reservation(_) => self.roles.reservations,
            Work::Provider(_) | Work::Verification(_) => self.roles.providers,
            Work::Acknowledgement(_) => self.roles.consumers && self.roles.are_apart(),
            Work::Unreadable(kind, _) => self.roles.owns(*kind),
            Work::Read(..) => true,
        };
        if ours && self.is_dirty.insert(work.clone()) {
            self.dirty.push_back(work);
        }
    }

    fn set_timer(&mut self, work: Work, at: Duration) {
        if at != Duration::MAX {
            self.timers.insert((at, work.clone()));
            self.timer_of.insert(work, at);
        }
    }

    fn clear_timer(&mut self, work: &Work) {
        if let Some(at) = self.timer_of.remove(work) {
            self.timers.remove(&(at, work.clone()));
        }
    }
}
