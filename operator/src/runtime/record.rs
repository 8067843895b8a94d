//! Events for users. Nothing depends on whether one arrives.

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::mpsc;
use vpn_types::{FIELD_MANAGER, Mask, MaskConsumer, MaskProvider, MaskReservation};

use crate::{
    model::{EventRecord, Kind, ObjectReference},
    runtime::DEADLINE,
};

/// How many Events may wait; more than that are dropped rather than piled up.
const WAITING: usize = 4096;
/// How many are sent at once.
const AT_ONCE: usize = 4;
/// Longest `note` of an Event, in bytes (events.k8s.io/v1).
const LONGEST_NOTE: usize = 1024;

/// Records Events in the background, in order, a few at once.
pub struct Publisher {
    waiting: mpsc::Sender<EventRecord>,
}

/// Sends Events to the API server.
struct Sender {
    client: Client,
    reporter: Reporter,
    /// Folds repetitions into one series. It remembers each Event for minutes, so that only what may be repeated goes
    /// through it: of what happens once to each of ten thousand Masks it would keep ten thousand.
    repeated: Recorder,
}

impl Publisher {
    /// One for the whole process.
    pub fn new(client: Client) -> Self {
        let instance = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).ok();
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance };
        let sender = Sender { repeated: Recorder::new(client.clone(), reporter.clone()), client, reporter };
        let (waiting, mut events) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let events = stream::poll_fn(|cx| events.poll_recv(cx));
            events.for_each_concurrent(AT_ONCE, |event| sender.send(event)).await;
        });
        Self { waiting }
    }

    /// Records one.
    pub fn publish(&self, event: EventRecord) {
        tracing::info!(
            kind = event.regarding.kind.as_str(),
            object = %event.regarding.key,
            reason = %event.reason,
            "{}",
            event.message
        );
        // Fails when too many wait.
        let _ = self.waiting.try_send(event);
    }
}

impl Sender {
    async fn send(&self, event: EventRecord) {
        let published = Event {
            type_: if event.warning { EventType::Warning } else { EventType::Normal },
            reason: event.reason.as_str().to_owned(),
            note: Some(cut(event.message)),
            action: event.action.to_owned(),
            secondary: event.related.as_ref().map(reference),
        };
        let regarding = reference(&event.regarding);
        let (kind, object) = (event.regarding.kind.as_str(), event.regarding.key.to_string());
        let once = Recorder::new(self.client.clone(), self.reporter.clone());
        let recorder = if event.warning { &self.repeated } else { &once };
        match tokio::time::timeout(DEADLINE, recorder.publish(&published, &regarding)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(kind, object, %error, "event not published"),
            Err(_) => tracing::debug!(kind, object, "event not published in time"),
        }
    }
}

fn reference(target: &ObjectReference) -> v1::ObjectReference {
    let (api_version, kind) = match target.kind {
        Kind::Mask => (Mask::api_version(&()), Mask::kind(&())),
        Kind::Consumer => (MaskConsumer::api_version(&()), MaskConsumer::kind(&())),
        Kind::Reservation => (MaskReservation::api_version(&()), MaskReservation::kind(&())),
        Kind::Provider => (MaskProvider::api_version(&()), MaskProvider::kind(&())),
        Kind::Secret | Kind::Pod => ("v1".into(), target.kind.as_str().into()),
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

fn cut(mut note: String) -> String {
    if note.len() > LONGEST_NOTE {
        let end = (0..=LONGEST_NOTE - 3).rev().find(|end| note.is_char_boundary(*end)).unwrap_or(0);
        note.truncate(end);
        note.push('…');
    }
    note
}
