//! The engine: turns inputs into effects, without any I/O. The same inputs give the same effects, so tests can cover
//! every decision, and place a crash between any two writes. The controllers decide what to do for an object; the
//! engine knows them only as a table.
//!
//! Invariants: at most one request is in flight for each object and controller. If the outcome of a request is unknown,
//! the engine reads the object by name before any other decision about it. There are no decisions before every store
//! has synced.

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
use unreadable::UnreadableObjects;
use writes_in_flight::WritesInFlight;

use crate::{
    allocator::Allocator,
    controllers::{
        Backoffs, Context, ControllerSet, Memory, WorkChange, consumers, providers,
        servers::Settings as ServerSettings, table, verification::Settings,
    },
    model::{
        Counters, Effect, EventRecord, Kind, Now, ObjectKey, Operation, ReconcileRequest, Request, RequestPriority,
        Send, Step, Uid,
    },
    state::{ClusterState, Epoch},
};

/// The maximum number of requests in flight, by priority. It is twice the number of concurrent requests of the runtime,
/// so that the runtime never waits for the engine.
const IN_FLIGHT: [usize; RequestPriority::ALL.len()] = [64, 16, 24];

/// The maximum number of objects that are reconciled before the next inputs are handled, so that a change of one object that
/// concerns thousands of others does not hold up what comes after it.
const MAX_RECONCILES: usize = 256;

/// A request in flight.
#[derive(Clone)]
struct InFlight {
    reconcile: ReconcileRequest,
    operation: Operation,
    priority: RequestPriority,
    events: Vec<EventRecord>,
    clears_backoff: bool,
    epoch: Epoch,
    /// The UID and version of the target when the request was sent.
    target_version: Option<(Uid, u64)>,
    /// For a read of a Mask or an injected Pod: its expected UID when the request was sent, which is what the response
    /// is about.
    expected: Option<Uid>,
}

/// The engine. Clones are independent, so a test can try several inputs from the same state.
#[derive(Clone)]
pub struct Engine {
    controllers: ControllerSet,
    ctx: Context,
    queue: WorkQueue,
    secret_watches: SecretWatches,
    /// Objects to read before any other decision about them.
    to_read: HashMap<ReconcileRequest, (Kind, ObjectKey)>,
    unreadable: UnreadableObjects,
    in_flight: HashMap<u64, InFlight>,
    in_progress: HashSet<ReconcileRequest>,
    writes_in_flight: WritesInFlight,
    limits: InFlightLimits,
    max_reconciles: usize,
    next_id: u64,
    /// A standby updates its cache, and makes no decisions.
    leading: bool,
}

impl Engine {
    /// Creates an engine with an empty cache.
    pub fn new(controllers: ControllerSet) -> Self {
        Self {
            ctx: Context {
                are_apart: controllers.has(consumers::NAME) != controllers.has(providers::NAME),
                state: ClusterState::default(),
                allocator: Allocator::default(),
                memory: Memory::default(),
                settings: Arc::default(),
                servers: Arc::default(),
                backoffs: Backoffs::default(),
                effects: Vec::new(),
                work: Vec::new(),
                counters: Counters::default(),
                leading_since: Duration::ZERO,
                now: Now::default(),
            },
            controllers,
            queue: WorkQueue::default(),
            secret_watches: SecretWatches::default(),
            to_read: HashMap::new(),
            unreadable: UnreadableObjects::default(),
            in_flight: HashMap::new(),
            in_progress: HashSet::new(),
            writes_in_flight: WritesInFlight::default(),
            limits: InFlightLimits::new(IN_FLIGHT),
            max_reconciles: MAX_RECONCILES,
            next_id: 0,
            leading: true,
        }
    }

    /// Creates an engine that makes no decisions before [`Input::Lead`].
    pub fn standby(controllers: ControllerSet) -> Self {
        Self { leading: false, ..Self::new(controllers) }
    }

    /// Sets the settings of verifications.
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.ctx.settings = Arc::new(settings);
        self
    }

    /// Sets the settings of OpenVPN servers.
    pub fn with_servers(mut self, settings: ServerSettings) -> Self {
        self.ctx.servers = Arc::new(settings);
        self
    }

    /// Sets the maximum number of requests in flight, in the order of [`RequestPriority::ALL`].
    pub fn with_limits(mut self, limits: [usize; RequestPriority::ALL.len()]) -> Self {
        self.limits = InFlightLimits::new(limits);
        self
    }

    /// Sets the maximum number of objects that are reconciled in one call of [`Self::handle`].
    pub fn with_max_reconciles(mut self, max: usize) -> Self {
        self.max_reconciles = max;
        self
    }

    /// Returns the cache.
    pub fn state(&self) -> &ClusterState {
        &self.ctx.state
    }

    /// Returns the allocator.
    pub fn allocator(&self) -> &Allocator {
        &self.ctx.allocator
    }

    /// Returns the counters of the last call of [`Self::handle`].
    pub fn counters(&self) -> &Counters {
        &self.ctx.counters
    }

    /// Returns the controllers of this process.
    pub fn controllers(&self) -> &ControllerSet {
        &self.controllers
    }

    /// Returns the kinds whose first list is not complete.
    pub fn unsynced(&self) -> Vec<Kind> {
        self.controllers.watches().into_keys().filter(|kind| !self.ctx.state.is_synced(*kind)).collect()
    }

    /// Returns the time (monotonic) of the next [`Input::Tick`]. It is not in the future if there is more to decide now.
    pub fn next_deadline(&self) -> Option<Duration> {
        if !self.queue.is_empty() && self.may_decide() {
            Some(self.ctx.now.monotonic)
        } else {
            self.queue.next_deadline()
        }
    }

    fn may_decide(&self) -> bool {
        self.leading && self.unsynced().is_empty()
    }

    /// Handles one or more inputs, and returns the effects.
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
                Input::ConnectedClients(server, uid, count) => self.connected_clients(&server, &uid, count),
                Input::Answer(id, outcome) => self.answered(id, outcome),
                Input::Undecodable { target, version, error } => self.undecodable(&target, version, error),
                Input::Lead => {
                    self.leading = true;
                    self.ctx.leading_since = now.monotonic;
                }
                Input::Tick => {}
            }
        }
        self.queue.advance(now.monotonic);
        if self.may_decide() {
            self.process_queue();
        }
        std::mem::take(&mut self.ctx.effects)
    }

    /// Reconciles the items of the work queue until it stays empty after the controllers have settled, or until it has
    /// reconciled the maximum. Slots are assigned only when the queue is empty: before that, an older waiter may not be in
    /// line yet.
    fn process_queue(&mut self) {
        let mut reconciled = 0;
        loop {
            while let Some(request) = self.queue.pop() {
                self.reconcile(request);
                reconciled += 1;
                if reconciled >= self.max_reconciles && !self.queue.is_empty() {
                    return;
                }
            }
            for controller in self.controllers.iter() {
                (controller.settle)(&mut self.ctx);
                self.apply_work_changes();
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

    /// Applies the changes of the work queue that controllers requested.
    fn apply_work_changes(&mut self) {
        for change in std::mem::take(&mut self.ctx.work) {
            match change {
                WorkChange::Enqueue(request) => self.enqueue(request),
                WorkChange::Forget(request) => self.forget(&request),
            }
        }
    }

    /// Adds a request to the work queue, if a controller of this process handles it.
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

    /// Drops the timer and the backoffs of a deleted object, so that they do not affect the next object of its name.
    fn forget(&mut self, request: &ReconcileRequest) {
        self.queue.clear_timer(request);
        for priority in RequestPriority::ALL {
            self.ctx.backoffs.remove(request, priority);
        }
        self.to_read.remove(request);
    }

    fn reconcile(&mut self, request: ReconcileRequest) {
        if self.in_progress.contains(&request) {
            // The response requeues it.
            return;
        }
        self.queue.clear_timer(&request);
        self.ctx.counters.reconciled(table::controller_of(&request).name);
        let first = self.ctx.effects.len();
        let step = match self.to_read.get(&request) {
            Some((kind, key)) => Step::send(Operation::Get(*kind, key.clone())),
            None => self.next_step(&request),
        };
        self.apply_work_changes();
        self.sync_pod_stores(first);
        match step {
            Step::Idle => {}
            Step::WaitUntil(at) => self.queue.push_at(request, at),
            Step::Send(send) => {
                if let Some(until) = self.delay(&request, &send) {
                    let wake = send.wake.filter(|wake| *wake > self.ctx.now.monotonic).unwrap_or(Duration::MAX);
                    self.queue.push_at(request, until.min(wake));
                } else {
                    self.send(request, *send);
                }
            }
        }
    }

    /// Returns until when (monotonic) a request cannot be sent. `Duration::MAX`: its item is enqueued when it can.
    fn delay(&mut self, request: &ReconcileRequest, send: &Send) -> Option<Duration> {
        let backoff = self.ctx.backoffs.get(request, send.priority);
        if let Some(backoff) = backoff.filter(|backoff| backoff.gate && backoff.is_active(self.ctx.now)) {
            return Some(backoff.until);
        }
        // What is read is needed to decide anything at all.
        let target = send.operation.written()?;
        let is_deferred =
            self.limits.defer(send.priority, request) || self.writes_in_flight.defer(target, send.priority, request);
        is_deferred.then_some(Duration::MAX)
    }

    fn next_step(&mut self, request: &ReconcileRequest) -> Step {
        match request {
            ReconcileRequest::Read(..) => Step::Idle,
            ReconcileRequest::Unreadable(kind, key) => self.unreadable.report(*kind, key, self.ctx.now),
            request => match self.controllers.handler(request) {
                Some(controller) => (controller.reconcile)(&mut self.ctx, request),
                None => Step::Idle,
            },
        }
    }

    /// Adds and removes the stores of Pods, as their watches start and stop.
    fn sync_pod_stores(&mut self, first: usize) {
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
        let Send { operation, priority, events, clears_backoff, .. } = send;
        let id = self.next_id;
        self.next_id += 1;
        let state = &self.ctx.state;
        let cached = operation.target().map(|(kind, key)| state.cached_version(kind, key));
        let (epoch, target_version) = cached.unwrap_or_default();
        let expected = match &operation {
            Operation::Get(Kind::Mask, key) => state.consumers.get(key).and_then(|consumer| consumer.owner.clone()),
            Operation::Get(Kind::InjectedPod, _) => match &reconcile {
                ReconcileRequest::PodMask(mask) => state.pod_using(mask).cloned(),
                _ => None,
            },
            _ => None,
        };
        if let Some(target) = operation.written() {
            self.writes_in_flight.started(target, priority);
            self.limits.sent(priority);
        }
        let request = Request { id, reconcile: reconcile.clone(), operation: operation.clone(), priority };
        self.ctx.effects.push(Effect::Send(request));
        self.in_progress.insert(reconcile.clone());
        let in_flight =
            InFlight { reconcile, operation, priority, events, clears_backoff, epoch, target_version, expected };
        self.in_flight.insert(id, in_flight);
    }
}
