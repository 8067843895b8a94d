//! What controllers work with. All that they share is here; what each remembers for itself is in [`Memory`].

use std::{collections::HashMap, sync::Arc};

use super::{
    consumers::Memory as ConsumersMemory,
    providers::LastWrites,
    reservations::Holds,
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

/// What controllers work with. A clone goes its own way from here.
#[derive(Clone)]
pub struct Context {
    /// Whether the consumers controller, which hands out slots by a provider's `maxSlots`, has a watch of its own on
    /// providers: then the providers controller has to hear from it which `maxSlots` is in force.
    pub are_apart: bool,
    /// The cluster as it is known.
    pub state: ClusterState,
    /// Queue and slots.
    pub allocator: Allocator,
    /// What each controller remembers.
    pub memory: Memory,
    /// Settings of this installation for verifications.
    pub settings: Arc<Settings>,
    /// What failed, and when to try again.
    pub backoffs: Backoffs,
    /// What the runtime has to do, requests apart.
    pub effects: Vec<Effect>,
    /// Changes of the work queue, in order.
    pub work: Vec<WorkChange>,
    /// What happened, for metrics.
    pub counters: Counters,
    /// The time.
    pub now: Now,
}

/// What controllers remember beside what the stores say. All of it can be lost: a restart finds it out again.
#[derive(Clone, Default)]
pub struct Memory {
    /// Of the consumers controller.
    pub consumers: ConsumersMemory,
    /// Of the reservations controller.
    pub holds: Holds,
    /// Of the providers controller.
    pub last_writes: LastWrites,
    /// Verifications under way.
    pub attempts: Attempts,
    /// Logs of verifications.
    pub logs: Logs,
}

/// A change of the work queue.
#[derive(Clone, Debug)]
pub enum WorkChange {
    /// To be reconciled.
    Enqueue(ReconcileRequest),
    /// The object is gone: nothing of it may hold back the next one of its name.
    Forget(ReconcileRequest),
}

/// Why requests are held back for a while.
#[derive(Clone, Default)]
pub struct Backoffs(HashMap<(ReconcileRequest, RequestPriority), Backoff>);

impl Backoffs {
    /// The one that holds back requests of that priority.
    pub fn get(&self, request: &ReconcileRequest, priority: RequestPriority) -> Option<&Backoff> {
        self.0.get(&(request.clone(), priority))
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, request: &ReconcileRequest, priority: RequestPriority) -> Option<&mut Backoff> {
        self.0.get_mut(&(request.clone(), priority))
    }

    /// Holds back requests of that priority.
    pub fn insert(&mut self, request: &ReconcileRequest, priority: RequestPriority, backoff: Backoff) {
        self.0.insert((request.clone(), priority), backoff);
    }

    /// Ends it.
    pub fn remove(&mut self, request: &ReconcileRequest, priority: RequestPriority) -> Option<Backoff> {
        self.0.remove(&(request.clone(), priority))
    }
}

/// What happened, for controllers to take in.
pub enum Change<'a> {
    /// An object changed in its store.
    Store(&'a StoreChange),
    /// A credentials Secret of a provider changed, or what is known of it. `data`: its data did.
    Credentials {
        /// The provider.
        provider: &'a ObjectKey,
        /// Whether there is other data now, or none.
        data: bool,
    },
    /// Providers that have an account in common with others changed, or such others did.
    SharedCredentials {
        /// These providers.
        providers: &'a [ObjectKey],
        /// Whether the Secrets of all providers are known from now on.
        is_complete: bool,
    },
    /// The Pods of a namespace in which slots are being released changed.
    Pods(&'a Arc<str>, &'a PodsChange),
    /// The log of the Pod with that UID went on.
    Log(&'a Uid, &'a LogEvent),
}

/// How a request to the API server ended.
pub struct Answer<'a> {
    /// For what it was sent.
    pub request: &'a ReconcileRequest,
    /// What it asked for.
    pub operation: &'a Operation,
    /// How it ended.
    pub outcome: &'a Outcome,
    /// Of a read of a Mask: the owner of its MaskConsumer when the request was sent, which the answer is about.
    pub owner: Option<&'a Uid>,
}

/// A request that was refused, or repeatedly not answered.
pub struct Failure<'a> {
    /// For what it was sent.
    pub request: &'a ReconcileRequest,
    /// What it asked for.
    pub operation: &'a Operation,
    /// The API server's words, if it was refused; absent: it did not answer.
    pub refusal: Option<&'a str>,
}

impl Context {
    /// Has an object reconciled.
    pub fn enqueue(&mut self, request: ReconcileRequest) {
        self.work.push(WorkChange::Enqueue(request));
    }

    /// Drops what holds back an object that is gone.
    pub fn forget(&mut self, request: ReconcileRequest) {
        self.work.push(WorkChange::Forget(request));
    }

    /// Has an Event recorded.
    pub fn record(&mut self, event: EventRecord) {
        self.effects.push(Effect::RecordEvent(event));
    }
}
