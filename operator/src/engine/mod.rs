//! The engine takes in what happened, says what to do next, and touches nothing else. The same inputs give the same
//! effects, so every decision can be tested, and a crash can be put between any two writes. What is to be done for an
//! object is decided by the controllers, which the engine knows only as a table.
//!
//! Invariants: at most one request is under way for each object and controller; an outcome that is not known is read
//! back by name before anything else is decided for that object; nothing is decided before every store has synced.

mod answers;
mod in_flight_limits;
mod input;
mod observe;
mod queue;
mod secret_watches;
mod unreadable;
mod writes_in_flight;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use in_flight_limits::InFlightLimits;
pub use input::Input;
use queue::WorkQueue;
use secret_watches::SecretWatches;
use unreadable::Unreadable;
use writes_in_flight::WritesInFlight;

use crate::{
    allocator::Allocator,
    controllers::{
        Backoffs, Context, ControllerSet, Memory, WorkChange, consumers, providers, table, verification::Settings,
    },
    model::{
        Counters, Effect, EventRecord, Kind, Now, ObjectKey, Operation, ReconcileRequest, Request, RequestPriority,
        Send, Step, Uid,
    },
    state::{ClusterState, Epoch},
};

/// How many requests may be in flight at once, by priority: twice as many as the runtime sends at once, so that it never
/// waits for the engine.
const IN_FLIGHT: [usize; RequestPriority::ALL.len()] = [64, 16, 24];

/// What is remembered of a request under way.
#[derive(Clone)]
struct InFlight {
    reconcile: ReconcileRequest,
    operation: Operation,
    priority: RequestPriority,
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
    controllers: ControllerSet,
    ctx: Context,
    queue: WorkQueue,
    secret_watches: SecretWatches,
    /// Objects to be read back before anything else is decided, since the outcome of a request is not known.
    unknown: HashMap<ReconcileRequest, (Kind, ObjectKey)>,
    unreadable: HashMap<(Kind, ObjectKey), Unreadable>,
    in_flight: HashMap<u64, InFlight>,
    in_progress: HashSet<ReconcileRequest>,
    writes_in_flight: WritesInFlight,
    limits: InFlightLimits,
    next_id: u64,
    /// A standby takes everything in and decides nothing.
    leading: bool,
}

impl Engine {
    /// An engine that knows nothing yet.
    pub fn new(controllers: ControllerSet) -> Self {
        Self {
            ctx: Context {
                are_apart: controllers.has(consumers::NAME) != controllers.has(providers::NAME),
                state: ClusterState::default(),
                allocator: Allocator::default(),
                memory: Memory::default(),
                settings: Arc::default(),
                backoffs: Backoffs::default(),
                effects: Vec::new(),
                work: Vec::new(),
                counters: Counters::default(),
                now: Now::default(),
            },
            controllers,
            queue: WorkQueue::default(),
            secret_watches: SecretWatches::default(),
            unknown: HashMap::new(),
            unreadable: HashMap::new(),
            in_flight: HashMap::new(),
            in_progress: HashSet::new(),
            writes_in_flight: WritesInFlight::default(),
            limits: InFlightLimits::new(IN_FLIGHT),
            next_id: 0,
            leading: true,
        }
    }

    /// The same, but it decides nothing until it hears [`Input::Lead`].
    pub fn standby(controllers: ControllerSet) -> Self {
        Self { leading: false, ..Self::new(controllers) }
    }

    /// With settings for verifications other than the default ones.
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.ctx.settings = Arc::new(settings);
        self
    }

    /// With other limits for how many requests may be in flight at once, in the order of [`RequestPriority::ALL`].
    pub fn with_limits(mut self, limits: [usize; RequestPriority::ALL.len()]) -> Self {
        self.limits = InFlightLimits::new(limits);
        self
    }

    /// The cluster as it is known.
    pub fn state(&self) -> &ClusterState {
        &self.ctx.state
    }

    /// Queue and slots.
    pub fn allocator(&self) -> &Allocator {
        &self.ctx.allocator
    }

    /// What the last call of [`Self::handle`] did.
    pub fn counters(&self) -> &Counters {
        &self.ctx.counters
    }

    /// The controllers that run here.
    pub fn controllers(&self) -> &ControllerSet {
        &self.controllers
    }

    /// The kinds whose first list is still missing.
    pub fn unsynced(&self) -> Vec<Kind> {
        self.controllers.watches().into_keys().filter(|kind| !self.ctx.state.is_synced(*kind)).collect()
    }

    /// When [`Input::Tick`] is due (monotonic), if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.queue.next_deadline()
    }

    /// Takes in what happened, one input or many at once, and returns what to do.
    pub fn handle(&mut self, inputs: impl IntoIterator<Item = Input>, now: Now) -> Vec<Effect> {
        self.ctx.counters = Counters::default();
        self.ctx.now = now;
        for input in inputs {
            match input {
                Input::Watch(event) => self.watch_event(event),
                Input::Secret(key, source) => self.credentials_changed(key, source),
                Input::SecretUnreadable(key, why) => self.credentials_unreadable(&key, why),
                Input::Pods(namespace, event) => self.pods_event(&namespace, event),
                Input::Log(pod, event) => self.log_event(&pod, &event),
                Input::Answer(id, outcome) => self.answered(id, outcome),
                Input::Undecodable { target, error } => self.undecodable(target, error),
                Input::Lead => self.leading = true,
                Input::Tick => {}
            }
        }
        self.queue.advance(now.monotonic);
        if self.leading && self.unsynced().is_empty() {
            self.work_off();
        }
        std::mem::take(&mut self.ctx.effects)
    }

    /// Decides for all that changed, lets the controllers settle, and goes on until nothing is left to decide.
    fn work_off(&mut self) {
        loop {
            while let Some(request) = self.queue.pop() {
                self.reconcile(request);
            }
            for controller in self.controllers.iter() {
                (controller.settle)(&mut self.ctx);
                self.take_work();
            }
            if self.queue.is_empty() {
                let ready = self.limits.take_ready();
                if ready.is_empty() {
                    self.queue.shrink();
                    return;
                }
                ready.into_iter().for_each(|request| self.queue.push(request));
            }
        }
    }

    /// Takes over what controllers did to the work queue.
    fn take_work(&mut self) {
        for change in std::mem::take(&mut self.ctx.work) {
            match change {
                WorkChange::Enqueue(request) => self.enqueue(request),
                WorkChange::Forget(request) => self.forget(&request),
            }
        }
    }

    /// Has something reconciled, if that is for a controller of this process.
    fn enqueue(&mut self, request: ReconcileRequest) {
        let is_ours = match &request {
            ReconcileRequest::Read(..) => true,
            ReconcileRequest::Unreadable(kind, _) => self.controllers.own_status(*kind),
            request => self.controllers.handler(request).is_some(),
        };
        if is_ours {
            self.queue.push(request);
        }
    }

    /// Nothing of an object that is gone may hold back the next one of its name.
    fn forget(&mut self, request: &ReconcileRequest) {
        self.queue.clear_timer(request);
        for priority in RequestPriority::ALL {
            self.ctx.backoffs.remove(request, priority);
        }
        self.unknown.remove(request);
    }

    fn reconcile(&mut self, request: ReconcileRequest) {
        if self.in_progress.contains(&request) {
            // Its answer enqueues it again.
            return;
        }
        self.queue.clear_timer(&request);
        self.ctx.counters.reconciled(table::controller_of(&request).name);
        let first = self.ctx.effects.len();
        let step = match self.unknown.get(&request) {
            Some((kind, key)) => Step::send(Operation::Get(*kind, key.clone())),
            None => self.next_step(&request),
        };
        self.take_work();
        self.follow_pods(first);
        match step {
            Step::Idle => {}
            Step::WaitUntil(at) => self.queue.push_at(request, at),
            Step::Send(send) => match self.ctx.backoffs.get(&request, send.priority) {
                Some(backoff) if backoff.gate && backoff.is_active(self.ctx.now) => {
                    let until = backoff.until;
                    self.queue.push_at(request, until);
                }
                _ => {
                    let target = send.operation.written();
                    // What is read is needed to decide anything at all.
                    if target.is_some() && self.limits.defer(send.priority, &request) {
                        return;
                    }
                    if !target.is_some_and(|target| self.writes_in_flight.defer(target, send.priority, &request)) {
                        self.send(request, *send);
                    }
                }
            },
        }
    }

    fn next_step(&mut self, request: &ReconcileRequest) -> Step {
        match request {
            ReconcileRequest::Read(..) => Step::Idle,
            ReconcileRequest::Unreadable(kind, key) => match self.unreadable.get_mut(&(*kind, key.clone())) {
                Some(unreadable) if !unreadable.reported => {
                    unreadable.reported = true;
                    unreadable.report(*kind, key, self.ctx.now)
                }
                _ => Step::Idle,
            },
            request => match self.controllers.handler(request) {
                Some(controller) => (controller.reconcile)(&mut self.ctx, request),
                None => Step::Idle,
            },
        }
    }

    /// Keeps a view of the Pods of a namespace just as long as they are watched.
    fn follow_pods(&mut self, first: usize) {
        let Context { effects, state, .. } = &mut self.ctx;
        for effect in &effects[first..] {
            match effect {
                Effect::WatchPods(namespace) => drop(state.pods.insert(namespace.clone(), Default::default())),
                Effect::UnwatchPods(namespace) => drop(state.pods.remove(namespace)),
                _ => {}
            }
        }
    }

    fn send(&mut self, reconcile: ReconcileRequest, send: Send) {
        let Send { operation, priority, events, settles } = send;
        let id = self.next_id;
        self.next_id += 1;
        let state = &self.ctx.state;
        let (epoch, seen) = operation.target().map_or_else(Default::default, |(kind, key)| state.seen(kind, key));
        let owner = match &operation {
            Operation::Get(Kind::Mask, key) => state.consumers.get(key).and_then(|consumer| consumer.owner.clone()),
            _ => None,
        };
        if let Some(target) = operation.written() {
            self.writes_in_flight.began(target, priority);
            self.limits.sent(priority);
        }
        let request = Request { id, reconcile: reconcile.clone(), operation: operation.clone(), priority };
        self.ctx.effects.push(Effect::Send(request));
        self.in_progress.insert(reconcile.clone());
        let in_flight = InFlight { reconcile, operation, priority, events, settles, epoch, seen, owner };
        self.in_flight.insert(id, in_flight);
    }
}
