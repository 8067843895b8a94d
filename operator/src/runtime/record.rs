//! Publishes Events. Nothing depends on whether they arrive.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::{Semaphore, mpsc};
use vpn_types::{FIELD_MANAGER, Mask, MaskConsumer, MaskProvider, MaskReservation, OpenVPNClient, OpenVPNServer};

use crate::{
    model::{EventRecord, Kind, ObjectReference, beginning},
    runtime::DEADLINE,
};

/// The maximum number of pending Events. Further ones are dropped.
const MAX_PENDING: usize = 4096;
/// The maximum number of concurrent requests.
const MAX_CONCURRENT: usize = 2;
/// How long an Event waits at most while requests for slots are in flight. When hundreds of slots are assigned or released
/// at once, each Event takes the API server's time from them.
const MAX_DELAY: Duration = Duration::from_secs(10);
/// How often a waiting Event looks whether requests for slots are in flight.
const POLL: Duration = Duration::from_millis(50);
/// The maximum length of `note` in events.k8s.io/v1, in bytes.
const MAX_NOTE_LENGTH: usize = 1024;

/// Publishes Events in the background, in order, a few at a time.
pub struct Publisher {
    pending: mpsc::Sender<(EventRecord, Instant)>,
}

/// Sends Events to the API server.
struct Sender {
    client: Client,
    reporter: Reporter,
    /// Aggregates repetitions to a series. It caches each Event for minutes, so it is only for warnings: normal Events,
    /// of which ten thousand Masks have one each, would fill the cache.
    warnings: Recorder,
}

impl Publisher {
    /// Creates the publisher of a process. Its Events give way to requests for slots, which use `slot_permits`; none is in
    /// flight yet.
    pub fn new(client: Client, slot_permits: Arc<Semaphore>) -> Self {
        let instance = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).ok();
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance };
        let sender = Sender { warnings: Recorder::new(client.clone(), reporter.clone()), client, reporter };
        let all_permits = slot_permits.available_permits();
        let (pending, mut events) = mpsc::channel(MAX_PENDING);
        tokio::spawn(async move {
            let events = stream::poll_fn(|cx| events.poll_recv(cx));
            let send = async |(event, recorded): (EventRecord, Instant)| {
                while slot_permits.available_permits() < all_permits && recorded.elapsed() < MAX_DELAY {
                    tokio::time::sleep(POLL).await;
                }
                sender.send(event).await;
            };
            events.for_each_concurrent(MAX_CONCURRENT, send).await;
        });
        Self { pending }
    }

    /// Logs an Event, and publishes it in the background.
    pub fn publish(&self, event: EventRecord) {
        tracing::info!(
            kind = event.regarding.kind.as_str(),
            object = %event.regarding.key,
            reason = %event.reason,
            "{}",
            event.message
        );
        // Fails if too many are pending.
        let _ = self.pending.try_send((event, Instant::now()));
    }
}

impl Sender {
    async fn send(&self, event: EventRecord) {
        let published = Event {
            type_: if event.warning { EventType::Warning } else { EventType::Normal },
            reason: event.reason.as_str().to_owned(),
            note: Some(truncate(event.message)),
            action: event.action.to_owned(),
            secondary: event.related.as_ref().map(reference),
        };
        let regarding = reference(&event.regarding);
        let (kind, object) = (event.regarding.kind.as_str(), event.regarding.key.to_string());
        let once = Recorder::new(self.client.clone(), self.reporter.clone());
        let recorder = if event.warning { &self.warnings } else { &once };
        match tokio::time::timeout(DEADLINE, recorder.publish(&published, &regarding)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(kind, object, %error, "Event not published"),
            Err(_) => tracing::debug!(kind, object, "Event not published in time"),
        }
    }
}

fn reference(target: &ObjectReference) -> v1::ObjectReference {
    let (api_version, kind) = match target.kind {
        Kind::Mask => (Mask::api_version(&()), Mask::kind(&())),
        Kind::Consumer => (MaskConsumer::api_version(&()), MaskConsumer::kind(&())),
        Kind::Reservation => (MaskReservation::api_version(&()), MaskReservation::kind(&())),
        Kind::Provider => (MaskProvider::api_version(&()), MaskProvider::kind(&())),
        Kind::Server => (OpenVPNServer::api_version(&()), OpenVPNServer::kind(&())),
        Kind::Client => (OpenVPNClient::api_version(&()), OpenVPNClient::kind(&())),
        Kind::Deployment => ("apps/v1".into(), target.kind.as_str().into()),
        Kind::PodDisruptionBudget => ("policy/v1".into(), target.kind.as_str().into()),
        Kind::Secret
        | Kind::Pod
        | Kind::InjectedPod
        | Kind::ServerSecret
        | Kind::ConfigMap
        | Kind::Service
        | Kind::ServerPod => ("v1".into(), target.kind.as_str().into()),
    };
    v1::ObjectReference {
        api_version: Some(api_version.into_owned()),
        kind: Some(kind.into_owned()),
        name: Some(target.key.name.to_string()),
        namespace: Some(target.key.namespace.to_string()),
        uid: Some(target.uid.to_string()),
        ..v1::ObjectReference::default()
    }
}

fn truncate(note: String) -> String {
    match note.len() > MAX_NOTE_LENGTH {
        true => format!("{}…", beginning(&note, MAX_NOTE_LENGTH - '…'.len_utf8())),
        false => note,
    }
}
