//! The thin shell around the engine: watches in, requests out. It decides nothing.

mod classify;
mod execute;
pub mod finalizers;
pub mod health;
pub mod lease;
mod logs;
mod record;
mod snapshots;
mod watch;

use std::{
    collections::HashMap,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use kube::Client;
use tokio::{
    sync::{Semaphore, mpsc, watch as latest},
    task::AbortHandle,
};

pub use classify::classify;
pub use execute::DEADLINE;
pub use snapshots::{Questions, Snapshots, snapshots};

use lease::Lead;

use crate::{
    controllers::verification::Settings,
    controllers::{ControllerSet, consumers},
    engine::{Engine, Input},
    metrics::{Metrics, Snapshot},
    model::{Effect, Kind, Now, ObjectKey, Request, RequestPriority, Uid},
};

/// How many requests may be under way at once on the way to or from a slot.
const SLOT_REQUESTS: usize = 32;
/// How many requests may be under way at once that bring objects up to date which nobody waits for.
const HOUSEKEEPING_REQUESTS: usize = 8;
/// How many requests that tell people something may be under way at once.
const STATUS_REQUESTS: usize = 12;
/// How many inputs are taken in at once, at most.
const BATCH: usize = 1024;

/// What the operator is waiting for before it decides anything; empty: it is ready.
pub type Unready = Vec<Kind>;

/// Who is told what goes on.
pub struct Observers {
    /// What is still waited for.
    pub ready: latest::Sender<Unready>,
    /// Counts and durations.
    pub metrics: Arc<Metrics>,
    /// Asked between two decisions: slots and Masks.
    pub questions: Questions,
}

/// Runs the controllers of a process until `shutdown` resolves, then lets the requests under way end.
///
/// Nothing is decided before this process leads, and nothing is sent once its lead has run out: who loses it ends.
pub async fn run(
    client: Client,
    controllers: ControllerSet,
    settings: Settings,
    observers: Observers,
    lead: latest::Receiver<Lead>,
    shutdown: impl Future<Output = ()>,
) {
    let Observers { ready, metrics, mut questions } = observers;
    let (inputs, mut received) = mpsc::unbounded_channel();
    let mut shell = Shell {
        publisher: record::Publisher::new(client.clone()),
        client,
        inputs,
        lanes: RequestPriority::ALL.map(|lane| Arc::new(Semaphore::new(requests_at_once(lane)))),
        lead: lead.clone(),
        metrics,
        secrets: HashMap::new(),
        pods: HashMap::new(),
        logs: HashMap::new(),
        kinds: Vec::new(),
    };
    for (kind, scope) in controllers.watches() {
        shell.kinds.push(watch::kind(&shell.client, kind, scope, shell.inputs.clone()));
    }
    let counts_slots = controllers.has(consumers::NAME);
    let start = Instant::now();
    let mut engine = Engine::standby(controllers).with_settings(settings);
    let leader = shell.inputs.clone();
    let mut awaited = lead;
    let lead = async move {
        if awaited.wait_for(Option::is_some).await.is_ok() {
            // Fails when the process is stopping.
            let _ = leader.send(Input::Lead);
        }
    };
    shell.kinds.push(tokio::spawn(lead).abort_handle());
    ready.send_replace(engine.unsynced());
    let mut batch = Vec::new();
    tokio::pin!(shutdown);
    loop {
        let tick = async {
            match engine.next_deadline() {
                Some(at) => tokio::time::sleep_until((start + at).into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = &mut shutdown => break,
            _ = received.recv_many(&mut batch, BATCH) => {}
            () = tick => batch.push(Input::Tick),
            Some(question) = questions.next() => {
                let shown = counts_slots && shell.leads() && engine.unsynced().is_empty();
                // Fails when nobody waits for the answer any more.
                let _ = question.send(shown.then(|| Snapshot::of(&engine)));
                continue;
            }
        }
        let now = Now { wall: Utc::now(), monotonic: start.elapsed() };
        for effect in engine.handle(batch.drain(..), now) {
            shell.carry_out(effect);
        }
        shell.metrics.count(engine.counters(), shell.leads(), now.wall);
        if !ready.borrow().is_empty() {
            ready.send_replace(engine.unsynced());
        }
    }
    shell.drain().await;
}

struct Shell {
    client: Client,
    publisher: record::Publisher,
    inputs: mpsc::UnboundedSender<Input>,
    /// In the order of [`RequestPriority::ALL`].
    lanes: [Arc<Semaphore>; RequestPriority::ALL.len()],
    lead: latest::Receiver<Lead>,
    metrics: Arc<Metrics>,
    kinds: Vec<AbortHandle>,
    secrets: HashMap<ObjectKey, AbortHandle>,
    pods: HashMap<Arc<str>, AbortHandle>,
    logs: HashMap<Uid, AbortHandle>,
}

impl Shell {
    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send(request) => self.send(request),
            Effect::RecordEvent(note) => self.publisher.publish(note),
            Effect::WatchSecret(key) => {
                let handle = watch::secret(&self.client, key.clone(), self.inputs.clone());
                stop(self.secrets.insert(key, handle));
            }
            Effect::UnwatchSecret(key) => stop(self.secrets.remove(&key)),
            Effect::WatchPods(namespace) => {
                let handle = watch::pods(&self.client, namespace.clone(), self.inputs.clone());
                stop(self.pods.insert(namespace, handle));
            }
            Effect::UnwatchPods(namespace) => stop(self.pods.remove(&namespace)),
            Effect::FollowLog { key, uid, container } => {
                let handle = logs::follow(&self.client, &key, uid.clone(), container, self.inputs.clone());
                stop(self.logs.insert(uid, handle));
            }
            Effect::UnfollowLog(uid) => stop(self.logs.remove(&uid)),
        }
    }

    fn send(&self, request: Request) {
        let lane = self.lanes[request.priority as usize].clone();
        let (client, inputs, lead) = (self.client.clone(), self.inputs.clone(), self.lead.clone());
        let metrics = self.metrics.clone();
        tokio::spawn(async move {
            let _permit = lane.acquire_owned().await;
            // A process that was paused may find out only now that another one leads.
            if !is_leading(&lead) {
                return;
            }
            metrics.requested(&request.reconcile, &request.operation);
            let began = Instant::now();
            let outcome = execute::execute(&client, &request.operation).await;
            metrics.answered(&request.reconcile, &request.operation, began.elapsed());
            // The receiver is gone when the process stops; the next one reads what became of this.
            let _ = inputs.send(Input::Answer(request.id, outcome));
        });
    }

    fn leads(&self) -> bool {
        is_leading(&self.lead)
    }

    /// Ends the watches and waits until no request is under way; each has a deadline.
    async fn drain(self) {
        let watches = self.kinds.into_iter().chain(self.secrets.into_values()).chain(self.pods.into_values());
        for handle in watches.chain(self.logs.into_values()) {
            handle.abort();
        }
        let all = async {
            for (lane, permits) in RequestPriority::ALL.into_iter().zip(&self.lanes) {
                let _ = permits.acquire_many(requests_at_once(lane) as u32).await;
            }
        };
        if tokio::time::timeout(DEADLINE + Duration::from_secs(1), all).await.is_err() {
            tracing::warn!("some requests were still under way at the end");
        }
    }
}

fn requests_at_once(lane: RequestPriority) -> usize {
    match lane {
        RequestPriority::Slots => SLOT_REQUESTS,
        RequestPriority::Maintenance => HOUSEKEEPING_REQUESTS,
        RequestPriority::Status => STATUS_REQUESTS,
    }
}

fn is_leading(lead: &latest::Receiver<Lead>) -> bool {
    lead.borrow().is_some_and(|until| until > Instant::now())
}

fn stop(handle: Option<AbortHandle>) {
    if let Some(handle) = handle {
        handle.abort();
    }
}
