//! The engine: takes what happened, says what to do next, and touches nothing else. The same inputs give the same
//! effects, so every decision can be tested, and a crash can be put between any two writes.
//!
//! Invariants: at most one request is under way for each object and controller; an outcome that is not known is read
//! back by name before anything else is decided for that object; nothing is decided before every store has synced.

mod answers;
mod counters;
mod input;
mod observe;
mod unreadable;
mod writes_in_flight;

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

pub use counters::{Controller, Counters};
pub use input::{Input, LogEvent};
use unreadable::Unreadable;
use writes_in_flight::WritesInFlight;

use crate::{
    allocator::Allocator,
    controllers::{
        consumers::{self, ConsumerMemory, Followers, Throttle},
        masks, providers, reservations,
        verification::{self, Attempts, Logs, Settings},
    },
    model::{
        Backoff, Effect, EventRecord, Kind, Now, ObjectKey, Operation, ReconcileRequest, Request, RequestPriority,
        Send, Step, Uid,
    },
    state::{ClusterState, Epoch},
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
    work: ReconcileRequest,
    op: Operation,
    lane: RequestPriority,
    events: Vec<EventRecord>,
    settles: bool,
    epoch: Epoch,
    /// UID and version of the target when the request was sent.
    seen: Option<(Uid, u64)>,
    /// Of a read of a Mask: the owner of its consumer when the request was sent, which the answer is about.
    owner: Option<Uid>,
}

/// The engine. A clone goes its own way from here: a model checker can try one input after the other.
#[derive(Clone)]
pub struct Engine {
    roles: Roles,
    state: ClusterState,
    allocator: Allocator,
    progress: HashMap<Uid, ConsumerMemory>,
    holds: reservations::Holds,
    writes: providers::LastWrites,
    attempts: Attempts,
    logs: Logs,
    settings: Arc<Settings>,
    throttle: Throttle,
    followers: Followers,
    /// Credentials Secrets that are watched, by the providers that name them.
    sources: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    backoffs: HashMap<(ReconcileRequest, RequestPriority), Backoff>,
    unsure: HashMap<ReconcileRequest, (Kind, ObjectKey)>,
    unreadable: HashMap<(Kind, ObjectKey), Unreadable>,
    in_flight: HashMap<u64, InFlight>,
    busy: HashSet<ReconcileRequest>,
    writing: WritesInFlight,
    dirty: VecDeque<ReconcileRequest>,
    is_dirty: HashSet<ReconcileRequest>,
    timers: BTreeSet<(Duration, ReconcileRequest)>,
    timer_of: HashMap<ReconcileRequest, Duration>,
    next_id: u64,
    effects: Vec<Effect>,
    counters: Counters,
    /// A standby takes everything in and decides nothing.
    leading: bool,
}

impl Engine {
    /// A engine that knows nothing yet.
    pub fn new(roles: Roles) -> Self {
        Self {
            roles,
            state: ClusterState::default(),
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
            backoffs: HashMap::new(),
            unsure: HashMap::new(),
            unreadable: HashMap::new(),
            in_flight: HashMap::new(),
            busy: HashSet::new(),
            writing: WritesInFlight::default(),
            dirty: VecDeque::new(),
            is_dirty: HashSet::new(),
            timers: BTreeSet::new(),
            timer_of: HashMap::new(),
            next_id: 0,
            effects: Vec::new(),
            counters: Counters::default(),
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
    pub fn state(&self) -> &ClusterState {
        &self.state
    }

    /// Queue and slots.
    pub fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// What the last call of [`Self::handle`] did.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The controllers that run here.
    pub fn roles(&self) -> Roles {
        self.roles
    }

    /// The kinds whose first list is still missing.
    pub fn unsynced(&self) -> Vec<Kind> {
        let state = &self.state;
        let synced = |kind: &Kind| match kind {
            Kind::Mask => state.masks.is_synced(),
            Kind::Consumer => state.consumers.is_synced(),
            Kind::Reservation => state.reservations.is_synced(),
            Kind::Provider => state.providers.is_synced(),
            Kind::Secret => state.copies.is_synced(),
            Kind::Pod => state.verification_pods.is_synced(),
        };
        self.roles.kinds().into_iter().filter(|kind| !synced(kind)).collect()
    }

    /// When [`Input::Tick`] is due (monotonic), if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Takes in what happened, one input or many at once, and returns what to do.
    pub fn handle(&mut self, inputs: impl IntoIterator<Item = Input>, now: Now) -> Vec<Effect> {
        self.counters = Counters::default();
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
                    self.mark(ReconcileRequest::Acknowledgement(provider));
                }
            }
            if revisit.is_empty() && self.dirty.is_empty() {
                // After a start with thousands of objects this would stay as large as all of them.
                self.dirty.shrink_to(SPARE_ROOM);
                self.is_dirty.shrink_to(SPARE_ROOM);
                return;
            }
            for key in revisit {
                self.mark(ReconcileRequest::Consumer(key));
            }
        }
    }

    fn decide(&mut self, work: ReconcileRequest, revisit: &mut Vec<ObjectKey>, now: Now) {
        if self.busy.contains(&work) {
            // Its answer marks it again.
            return;
        }
        self.clear_timer(&work);
        self.counters.decided(&work);
        let first = self.effects.len();
        let step = match self.unsure.get(&work) {
            Some((kind, key)) => Step::send(Operation::Get(*kind, key.clone())),
            None => self.next_step(&work, revisit, now),
        };
        for effect in &self.effects[first..] {
            match effect {
                Effect::WatchPods(namespace) => {
                    self.state.pods.insert(namespace.clone(), Default::default());
                }
                Effect::UnwatchPods(namespace) => {
                    self.state.pods.remove(namespace);
                }
                _ => {}
            }
        }
        match step {
            Step::Idle => {}
            Step::WaitUntil(at) => self.set_timer(work, at),
            Step::Send(send) => match self.backoffs.get(&(work.clone(), send.lane)) {
                Some(backoff) if backoff.gate && backoff.is_active(now) => {
                    let until = backoff.until;
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

    fn next_step(&mut self, work: &ReconcileRequest, revisit: &mut Vec<ObjectKey>, now: Now) -> Step {
        match work {
            ReconcileRequest::Mask(key) => {
                let backoff = self.backoffs.get(&(work.clone(), RequestPriority::Slots));
                masks::decide(&self.state, key, backoff, now)
            }
            ReconcileRequest::Consumer(key) => {
                let slot = (work.clone(), RequestPriority::Slots);
                let mut backoff = self.backoffs.remove(&slot);
                let list = (ReconcileRequest::PodList(key.namespace.clone()), RequestPriority::Slots);
                let list_backoff = self.backoffs.get(&list).filter(|backoff| backoff.is_worth_telling());
                let step = consumers::decide(
                    &mut consumers::Context {
                        state: &self.state,
                        allocator: &mut self.allocator,
                        progress: &mut self.progress,
                        throttle: &mut self.throttle,
                        effects: &mut self.effects,
                        followers: &mut self.followers,
                        list_backoff: list_backoff.cloned(),
                        revisit,
                        backoff: &mut backoff,
                        now,
                    },
                    key,
                );
                if let Some(backoff) = backoff {
                    self.backoffs.insert(slot, backoff);
                }
                if self.followers.wants_list(&key.namespace) {
                    self.mark(ReconcileRequest::PodList(key.namespace.clone()));
                }
                step
            }
            ReconcileRequest::PodList(namespace) if self.followers.wants_list(namespace) => {
                Step::send(Operation::ListPods(namespace.clone()))
            }
            ReconcileRequest::PodList(_) => Step::Idle,
            ReconcileRequest::Reservation(key) => reservations::decide(&self.state, &mut self.holds, key, now),
            ReconcileRequest::Provider(key) => {
                let backoff = self.backoffs.get(&(ReconcileRequest::Verification(key.clone()), RequestPriority::Slots));
                let view = providers::Context {
                    state: &self.state,
                    attempts: &self.attempts,
                    backoff: backoff.filter(|backoff| backoff.is_active(now)),
                    are_apart: self.roles.are_apart(),
                    now,
                };
                providers::decide(&view, &mut self.writes, key)
            }
            ReconcileRequest::Verification(key) => {
                let mut ctx = verification::Context {
                    state: &self.state,
                    attempts: &mut self.attempts,
                    logs: &mut self.logs,
                    effects: &mut self.effects,
                    backoff: self.backoffs.get(&(work.clone(), RequestPriority::Slots)),
                    settings: &self.settings,
                    now,
                };
                let step = verification::decide(&mut ctx, key);
                self.mark(ReconcileRequest::Provider(key.clone()));
                step
            }
            ReconcileRequest::Acknowledgement(key) => providers::acknowledge(&self.state, &self.allocator, key),
            ReconcileRequest::Unreadable(kind, key) => match self.unreadable.get_mut(&(*kind, key.clone())) {
                Some(unreadable) if !unreadable.told => {
                    unreadable.told = true;
                    unreadable.tell(*kind, key, now)
                }
                _ => Step::Idle,
            },
            ReconcileRequest::Read(..) => Step::Idle,
        }
    }

    fn send(&mut self, work: ReconcileRequest, send: Send) {
        let Send { op, lane, events, settles } = send;
        let id = self.next_id;
        self.next_id += 1;
        let (epoch, seen) = op.target().map_or_else(Default::default, |(kind, key)| self.seen(kind, key));
        self.effects.push(Effect::Send(Request { id, work: work.clone(), op: op.clone(), lane }));
        self.busy.insert(work.clone());
        if let Some(target) = op.written() {
            self.writing.began(target, lane);
        }
        if let Operation::ListPods(namespace) = &op {
            self.followers.list_sent(namespace);
        }
        let owner = match (&work, &op) {
            (ReconcileRequest::Mask(key), Operation::Get(Kind::Mask, _)) => {
                self.state.consumers.get(key).and_then(|consumer| consumer.owner.clone())
            }
            _ => None,
        };
        self.in_flight.insert(id, InFlight { work, op, lane, events, settles, epoch, seen, owner });
    }

    /// What the store says of a request's target at this moment.
    fn seen(&self, kind: Kind, key: &ObjectKey) -> (Epoch, Option<(Uid, u64)>) {
        use crate::state::{Store, Versioned};
        fn of<V: Versioned>(store: &Store<V>, key: &ObjectKey) -> (Epoch, Option<(Uid, u64)>) {
            (store.epoch(), store.get(key).map(|view| (view.uid().clone(), view.version())))
        }
        match kind {
            Kind::Mask => of(&self.state.masks, key),
            Kind::Consumer => of(&self.state.consumers, key),
            Kind::Reservation => of(&self.state.reservations, key),
            Kind::Provider => of(&self.state.providers, key),
            Kind::Secret => of(&self.state.copies, key),
            Kind::Pod => of(&self.state.verification_pods, key),
        }
    }

    fn mark(&mut self, work: ReconcileRequest) {
        let ours = match &work {
            ReconcileRequest::Mask(_) => self.roles.masks,
            ReconcileRequest::Consumer(_) | ReconcileRequest::PodList(_) => self.roles.consumers,
            ReconcileRequest::Reservation(_) => self.roles.reservations,
            ReconcileRequest::Provider(_) | ReconcileRequest::Verification(_) => self.roles.providers,
            ReconcileRequest::Acknowledgement(_) => self.roles.consumers && self.roles.are_apart(),
            ReconcileRequest::Unreadable(kind, _) => self.roles.owns(*kind),
            ReconcileRequest::Read(..) => true,
        };
        if ours && self.is_dirty.insert(work.clone()) {
            self.dirty.push_back(work);
        }
    }

    fn set_timer(&mut self, work: ReconcileRequest, at: Duration) {
        if at != Duration::MAX {
            self.timers.insert((at, work.clone()));
            self.timer_of.insert(work, at);
        }
    }

    fn clear_timer(&mut self, work: &ReconcileRequest) {
        if let Some(at) = self.timer_of.remove(work) {
            self.timers.remove(&(at, work.clone()));
        }
    }
}
