//! The runtime around the engine: runs watches and sends requests. It makes no decisions.

pub mod certificates;
mod classify;
mod clients;
mod execute;
pub mod fake_metric;
pub mod finalizers;
pub mod health;
pub mod lease;
mod logs;
pub mod metrics_api;
pub mod openvpn_client;
pub mod openvpn_exporter;
pub mod openvpn_server;
mod record;
mod snapshots;
mod watch;
pub mod webhook;

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
    time::MissedTickBehavior,
};

pub use classify::classify;
pub use execute::DEADLINE;
pub use snapshots::{SnapshotClient, SnapshotRequests, snapshot_channel};

use lease::LeaderUntil;

use crate::{
    controllers::verification::Settings,
    controllers::{ControllerSet, consumers, observer, servers, servers::Settings as ServerSettings},
    engine::{Engine, Input},
    metrics::{Metrics, Snapshot},
    model::{Effect, Kind, Now, ObjectKey, Request, RequestPriority, Uid},
    state::Outcome,
};

/// The maximum number of concurrent requests of [`RequestPriority::Slots`].
const SLOT_REQUESTS: usize = 32;
/// The maximum number of concurrent requests of [`RequestPriority::Maintenance`].
const MAINTENANCE_REQUESTS: usize = 8;
/// The maximum number of concurrent requests of [`RequestPriority::Status`].
const STATUS_REQUESTS: usize = 12;
/// The maximum number of inputs that the engine handles at once.
const BATCH_SIZE: usize = 1024;

/// The kinds whose first list is not complete. If there are none, the process is ready.
pub type UnsyncedKinds = Vec<Kind>;

/// What the runtime reports.
pub struct Reporting {
    /// Receives the kinds whose first list is not complete.
    pub unsynced: latest::Sender<UnsyncedKinds>,
    /// Receives counters and durations.
    pub metrics: Arc<Metrics>,
    /// Requests for snapshots, handled between two decisions.
    pub snapshot_requests: SnapshotRequests,
}

/// Runs the controllers of a process until `shutdown` resolves, and then waits for the requests in flight.
///
/// There are no decisions before this process is the leader, and it sends no requests when it may not be the leader any
/// more.
pub async fn run(
    client: Client,
    controllers: ControllerSet,
    (verification, servers): (Settings, ServerSettings),
    reporting: Reporting,
    leader_until: latest::Receiver<LeaderUntil>,
    shutdown: impl Future<Output = ()>,
) {
    let Reporting { unsynced, metrics, mut snapshot_requests } = reporting;
    let (inputs, mut received) = mpsc::unbounded_channel();
    let permits = RequestPriority::ALL.map(|priority| Arc::new(Semaphore::new(max_concurrent(priority))));
    let mut executor = Executor {
        publisher: record::Publisher::new(client.clone(), permits[RequestPriority::Slots as usize].clone()),
        client,
        inputs,
        permits,
        leader_until: leader_until.clone(),
        metrics,
        secret_watches: HashMap::new(),
        pod_watches: HashMap::new(),
        log_streams: HashMap::new(),
        tasks: Vec::new(),
    };
    for (kind, scope) in controllers.watches() {
        executor.tasks.push(watch::kind(&executor.client, kind, scope, executor.inputs.clone()));
    }
    let observes = controllers.has(observer::NAME);
    let has_snapshots = controllers.has(consumers::NAME) || controllers.has(servers::NAME) || observes;
    let start = Instant::now();
    let mut engine = Engine::standby(controllers).with_settings(verification).with_servers(servers);
    let lead_input = executor.inputs.clone();
    let mut leadership = leader_until;
    let lead = async move {
        if leadership.wait_for(Option::is_some).await.is_ok() {
            // Fails while the process is stopping.
            let _ = lead_input.send(Input::Lead);
        }
    };
    executor.tasks.push(tokio::spawn(lead).abort_handle());
    unsynced.send_replace(engine.unsynced());
    let mut batch = Vec::new();
    let has_servers = engine.controllers().has(servers::NAME);
    let mut count_clients = tokio::time::interval(clients::INTERVAL);
    count_clients.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
            _ = received.recv_many(&mut batch, BATCH_SIZE) => {}
            () = tick => batch.push(Input::Tick),
            _ = count_clients.tick(), if has_servers => {
                if executor.is_leader() && engine.unsynced().is_empty() {
                    clients::report(servers::replicas_by_server(engine.state()), &executor.inputs);
                }
                continue;
            }
            Some(request) = snapshot_requests.next() => {
                let is_asked = request.standby || observes || executor.is_leader();
                let is_available = has_snapshots && is_asked && engine.unsynced().is_empty();
                // Fails if the client has given up.
                let _ = request.response.send(is_available.then(|| Snapshot::of(&engine)));
                continue;
            }
        }
        let now = Now { wall: Utc::now(), monotonic: start.elapsed() };
        for effect in engine.handle(batch.drain(..), now) {
            executor.handle(effect);
        }
        executor.metrics.decided(start.elapsed().saturating_sub(now.monotonic));
        executor.metrics.count(engine.counters(), executor.is_leader(), now.wall);
        if !unsynced.borrow().is_empty() {
            unsynced.send_replace(engine.unsynced());
        }
    }
    executor.drain().await;
}

/// Executes the effects of the engine.
struct Executor {
    client: Client,
    publisher: record::Publisher,
    inputs: mpsc::UnboundedSender<Input>,
    /// In the order of [`RequestPriority::ALL`].
    permits: [Arc<Semaphore>; RequestPriority::ALL.len()],
    leader_until: latest::Receiver<LeaderUntil>,
    metrics: Arc<Metrics>,
    /// The watches on kinds, and the wait for leadership.
    tasks: Vec<AbortHandle>,
    secret_watches: HashMap<ObjectKey, AbortHandle>,
    pod_watches: HashMap<Arc<str>, AbortHandle>,
    log_streams: HashMap<Uid, AbortHandle>,
}

impl Executor {
    fn handle(&mut self, effect: Effect) {
        match effect {
            Effect::Send(request) => self.send(request),
            Effect::RecordEvent(event) => self.publisher.publish(event),
            Effect::WatchSecret(key) => {
                let handle = watch::secret(&self.client, key.clone(), self.inputs.clone());
                stop(self.secret_watches.insert(key, handle));
            }
            Effect::UnwatchSecret(key) => stop(self.secret_watches.remove(&key)),
            Effect::WatchPods(namespace) => {
                let handle = watch::pods(&self.client, namespace.clone(), self.inputs.clone());
                stop(self.pod_watches.insert(namespace, handle));
            }
            Effect::UnwatchPods(namespace) => stop(self.pod_watches.remove(&namespace)),
            Effect::FollowLog { key, uid, container } => {
                let handle = logs::follow(&self.client, &key, uid.clone(), container, self.inputs.clone());
                stop(self.log_streams.insert(uid, handle));
            }
            Effect::UnfollowLog(uid) => stop(self.log_streams.remove(&uid)),
        }
    }

    fn send(&self, request: Request) {
        let permits = self.permits[request.priority as usize].clone();
        let (client, inputs, leader_until) = (self.client.clone(), self.inputs.clone(), self.leader_until.clone());
        let metrics = self.metrics.clone();
        tokio::spawn(async move {
            let _permit = permits.acquire_owned().await;
            // A process that was suspended may no longer be the leader.
            if !is_leader(&leader_until) {
                let message = "this process is not the leader".to_owned();
                let _ = inputs.send(Input::Answer(request.id, Outcome::Unknown { message }));
                return;
            }
            metrics.requested(&request.reconcile, &request.operation);
            let started = Instant::now();
            let outcome = execute::execute(&client, &request.operation).await;
            metrics.answered(&request.reconcile, &request.operation, started.elapsed());
            // Fails while the process is stopping. Its successor reads the result from the API server.
            let _ = inputs.send(Input::Answer(request.id, outcome));
        });
    }

    fn is_leader(&self) -> bool {
        is_leader(&self.leader_until)
    }

    /// Stops the watches, and waits for the requests in flight. Each has a deadline.
    async fn drain(self) {
        let watches = self.secret_watches.into_values().chain(self.pod_watches.into_values());
        for handle in self.tasks.into_iter().chain(watches).chain(self.log_streams.into_values()) {
            handle.abort();
        }
        let all = async {
            for (priority, permits) in RequestPriority::ALL.into_iter().zip(&self.permits) {
                let _ = permits.acquire_many(max_concurrent(priority) as u32).await;
            }
        };
        if tokio::time::timeout(DEADLINE + Duration::from_secs(1), all).await.is_err() {
            tracing::warn!("exiting with requests in flight");
        }
    }
}

fn max_concurrent(priority: RequestPriority) -> usize {
    match priority {
        RequestPriority::Slots => SLOT_REQUESTS,
        RequestPriority::Maintenance => MAINTENANCE_REQUESTS,
        RequestPriority::Status => STATUS_REQUESTS,
    }
}

fn is_leader(leader_until: &latest::Receiver<LeaderUntil>) -> bool {
    leader_until.borrow().is_some_and(|until| until > Instant::now())
}

fn stop(handle: Option<AbortHandle>) {
    if let Some(handle) = handle {
        handle.abort();
    }
}
