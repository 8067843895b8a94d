//! The state that controllers share. What each controller keeps for itself is in [`Memory`].

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    consumers::Memory as ConsumersMemory,
    pods::Memory as PodsMemory,
    providers::LastWrites,
    reservations::Memory as ReservationsMemory,
    servers::{Memory as ServersMemory, Settings as ServerSettings},
    verification::{Attempts, Logs, Settings},
};
use crate::{
    allocator::Allocator,
    model::{
        Backoff, Counters, Effect, EventRecord, LogEvent, Now, ObjectKey, Operation, ReconcileRequest, RequestPriority,
        Uid,
    },
    state::{ClusterState, Outcome, PodsChange, StoreChange},
};

/// The state that controllers share. Changes to a clone do not affect the original.
#[derive(Clone)]
pub struct Context {
    /// Whether the consumers controller and the providers controller run in separate processes. The consumers
    /// controller, which assigns slots by a provider's `maxSlots`, then has to report to the providers controller which
    /// `maxSlots` is in force.
    pub are_apart: bool,
    /// The cached state of the cluster.
    pub state: ClusterState,
    /// The queues and the slots.
    pub allocator: Allocator,
    /// State of each controller.
    pub memory: Memory,
    /// Settings of this installation for verifications.
    pub settings: Arc<Settings>,
    /// Settings of this installation for OpenVPN servers.
    pub servers: Arc<ServerSettings>,
    /// Backoffs of requests that failed.
    pub backoffs: Backoffs,
    /// Effects for the runtime to carry out, except requests to the API server.
    pub effects: Vec<Effect>,
    /// Changes of the work queue, in order.
    pub work: Vec<WorkChange>,
    /// Counters for metrics.
    pub counters: Counters,
    /// Since when (monotonic) this process is the leader.
    pub leading_since: Duration,
    /// The current time.
    pub now: Now,
}

/// State that controllers keep in addition to the stores. All of it can be lost: after a restart, the controllers
/// determine it again.
#[derive(Clone, Default)]
pub struct Memory {
    /// State of the consumers controller.
    pub consumers: ConsumersMemory,
    /// State of the pods controller.
    pub pods: PodsMemory,
    /// State of the reservations controller.
    pub reservations: ReservationsMemory,
    /// State of the providers controller.
    pub last_writes: LastWrites,
    /// Verifications in progress.
    pub attempts: Attempts,
    /// Logs of verifications.
    pub logs: Logs,
    /// State of the servers controller.
    pub servers: ServersMemory,
}

/// A change of the work queue.
#[derive(Clone, Debug)]
pub enum WorkChange {
    /// Adds a request.
    Enqueue(ReconcileRequest),
    /// Drops a request and its backoffs: the object is gone, and they must not delay the next object with its name.
    Forget(ReconcileRequest),
}

/// Backoffs by request and priority.
#[derive(Clone, Default)]
pub struct Backoffs(HashMap<(ReconcileRequest, RequestPriority), Backoff>);

impl Backoffs {
    /// Returns the backoff of a request with that priority.
    pub fn get(&self, request: &ReconcileRequest, priority: RequestPriority) -> Option<&Backoff> {
        self.0.get(&(request.clone(), priority))
    }

    /// Returns the backoff of a request with that priority, for a change.
    pub fn get_mut(&mut self, request: &ReconcileRequest, priority: RequestPriority) -> Option<&mut Backoff> {
        self.0.get_mut(&(request.clone(), priority))
    }

    /// Sets the backoff of a request with that priority.
    pub fn insert(&mut self, request: &ReconcileRequest, priority: RequestPriority, backoff: Backoff) {
        self.0.insert((request.clone(), priority), backoff);
    }

    /// Removes the backoff.
    pub fn remove(&mut self, request: &ReconcileRequest, priority: RequestPriority) -> Option<Backoff> {
        self.0.remove(&(request.clone(), priority))
    }
}

/// A change that controllers observe.
pub enum Change<'a> {
    /// An object in a store changed.
    Store(&'a StoreChange),
    /// A credentials Secret of a provider, or what is known about it, changed.
    Credentials {
        /// The provider.
        provider: &'a ObjectKey,
        /// Whether the data changed or disappeared.
        data: bool,
    },
    /// The Secret of `spec.pki.keystoreSecret` of a server, or what is known about it, changed.
    Keystore(&'a ObjectKey),
    /// The replicas of an OpenVPN server were asked for their clients.
    ConnectedClients {
        /// The server.
        server: &'a ObjectKey,
        /// Its UID when they were asked.
        uid: &'a Uid,
        /// How many clients are connected to all of them.
        count: u64,
    },
    /// Providers that share an account with other providers, where the set of these others changed.
    SharedCredentials {
        /// The providers.
        providers: &'a [ObjectKey],
        /// Whether this change made the Secrets of all providers known.
        is_complete: bool,
    },
    /// The Pods changed in a namespace where slots are being released.
    Pods(&'a Arc<str>, &'a PodsChange),
    /// The log of the Pod with that UID continued or ended.
    Log(&'a Uid, &'a LogEvent),
}

/// The outcome of a request to the API server.
pub struct Answer<'a> {
    /// The reconcile request that it belongs to.
    pub request: &'a ReconcileRequest,
    /// The operation.
    pub operation: &'a Operation,
    /// The outcome.
    pub outcome: &'a Outcome,
    /// For a read of a Mask or an injected Pod: its UID as expected when the request was sent. The answer is about that
    /// object.
    pub expected: Option<&'a Uid>,
}

/// A request that the API server rejected, or repeatedly did not answer.
pub struct Failure<'a> {
    /// The reconcile request that it belongs to.
    pub request: &'a ReconcileRequest,
    /// The operation.
    pub operation: &'a Operation,
    /// The message of the API server if it rejected the request; absent if it did not answer.
    pub refusal: Option<&'a str>,
}

impl Context {
    /// Enqueues a reconcile request.
    pub fn enqueue(&mut self, request: ReconcileRequest) {
        self.work.push(WorkChange::Enqueue(request));
    }

    /// Drops the request and the backoffs of an object that is gone.
    pub fn forget(&mut self, request: ReconcileRequest) {
        self.work.push(WorkChange::Forget(request));
    }

    /// Records an Event.
    pub fn record(&mut self, event: EventRecord) {
        self.effects.push(Effect::RecordEvent(event));
    }
}
