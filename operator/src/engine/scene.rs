//! What a decision sees, and what it may answer.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use vpn_types::{FINALIZER, Reason};

use super::request::{Lane, Note, Now, Op, Propagation};
use crate::world::{Kind, Meta, ObjectKey, Uid};

/// The unit of work: at most one request is under way for each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// Masks controller.
    Mask(ObjectKey),
    /// Consumers controller.
    Consumer(ObjectKey),
    /// Reservations controller.
    Reservation(ObjectKey),
    /// Providers controller.
    Provider(ObjectKey),
    /// Providers controller: tries out the credentials.
    Verification(ObjectKey),
    /// Consumers controller: tells the providers controller in another process how far it has come.
    Acknowledgement(ObjectKey),
    /// Consumers controller: lists the Pods of a namespace for the releases there that wait for it.
    PodList(Arc<str>),
    /// Tells of an object that cannot be decoded.
    Unreadable(Kind, ObjectKey),
    /// Reads back one object whose state is in doubt.
    Read(Kind, ObjectKey),
}

/// The next write (or read) of one controller for one object.
#[derive(Debug)]
pub enum Step {
    /// Nothing to do until something changes.
    Idle,
    /// Nothing to do until something changes or that time (monotonic) has come.
    WaitUntil(Duration),
    /// Send this.
    Send(Box<Send>),
}

/// A request and what goes with it.
#[derive(Debug)]
pub struct Send {
    /// The request.
    pub op: Op,
    /// How urgent.
    pub lane: Lane,
    /// Events to publish once it succeeded.
    pub notes: Vec<Note>,
    /// Whether its success ends a backoff. Not so for the first steps of something that failed further on before.
    pub settles: bool,
}

impl Step {
    /// Sends `op` on the way to or from a slot.
    pub fn send(op: Op) -> Self {
        Self::on(Lane::Slots, op)
    }

    /// Sends `op`, which brings an object up to date that nobody waits for.
    pub fn keep_house(op: Op) -> Self {
        Self::on(Lane::Housekeeping, op)
    }

    /// Sends `op`, which tells people something.
    pub fn tell(op: Op) -> Self {
        Self::on(Lane::Status, op)
    }

    fn on(lane: Lane, op: Op) -> Self {
        Step::Send(Box::new(Send { op, lane, notes: Vec::new(), settles: true }))
    }

    /// Publishes an Event, or several, when it succeeded.
    pub fn with_note(mut self, notes: impl IntoIterator<Item = Note>) -> Self {
        if let Step::Send(send) = &mut self {
            send.notes.extend(notes);
        }
        self
    }

    /// Success of this step alone does not end a backoff.
    pub fn provisional(mut self) -> Self {
        if let Step::Send(send) = &mut self {
            send.settles = false;
        }
        self
    }

    /// This step, or the other one if this one has nothing to do.
    pub fn or_else(self, other: impl FnOnce() -> Step) -> Step {
        match self {
            Step::Idle => other(),
            step => step,
        }
    }
}

/// Why work on an object is held back for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// From the closed set.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// When to try again (monotonic).
    pub until: Duration,
    /// How often in a row.
    pub failures: u32,
    /// Whether every request for this object has to wait, or just the assignment (which is undone meanwhile).
    pub gate: bool,
}

impl Trouble {
    /// First delay after a refusal; it doubles each time.
    const FIRST_DELAY: Duration = Duration::from_millis(500);
    /// From that many requests without an answer in a row on, it is taken for a refusal.
    pub const TOO_MANY_UNKNOWN: u32 = 2;
    /// The longest delay.
    const LONGEST_DELAY: Duration = Duration::from_secs(60);

    /// The trouble after one more failure.
    pub fn after(previous: Option<&Trouble>, reason: Reason, message: String, now: Now) -> Self {
        let failures = previous.map_or(0, |trouble| trouble.failures).saturating_add(1);
        let delay = Self::FIRST_DELAY.saturating_mul(1 << (failures - 1).min(16)).min(Self::LONGEST_DELAY);
        Self { reason, message, until: now.monotonic + delay, failures, gate: true }
    }

    /// Holds back the assignment only, not what undoes it.
    pub fn without_gate(mut self) -> Self {
        self.gate = false;
        self
    }

    /// Whether people should hear of it: a single request without an answer passes by itself.
    pub fn is_worth_telling(&self) -> bool {
        self.reason != Reason::RequestFailed || self.failures >= Self::TOO_MANY_UNKNOWN
    }

    /// Whether it is not yet time to try again.
    pub fn is_active(&self, now: Now) -> bool {
        self.until > now.monotonic
    }
}

/// Adds our finalizer; fails when the object has changed since.
pub fn add_finalizer(kind: Kind, meta: &Meta) -> Op {
    let guard = json!({"op": "test", "path": "/metadata/resourceVersion", "value": meta.version.to_string()});
    let add = if meta.finalizers == 0 {
        json!({"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]})
    } else {
        json!({"op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER})
    };
    Op::JsonPatch(kind, meta.key.clone(), Value::Array(vec![guard, add]))
}

/// Removes our finalizer and no other; absent when it is not there.
pub fn remove_finalizer(kind: Kind, meta: &Meta) -> Option<Op> {
    let path = format!("/metadata/finalizers/{}", meta.finalizer?);
    let patch = json!([
        {"op": "test", "path": "/metadata/uid", "value": meta.uid.as_str()},
        {"op": "test", "path": path, "value": FINALIZER},
        {"op": "remove", "path": path},
    ]);
    Some(Op::JsonPatch(kind, meta.key.clone(), patch))
}

/// Deletes just this object, whatever it has become since.
pub fn delete(kind: Kind, meta: &Meta, propagation: Option<Propagation>) -> Op {
    Op::Delete { kind, key: meta.key.clone(), uid: meta.uid.clone(), version: None, propagation }
}

/// Deletes this object if it is still as we saw it.
pub fn delete_unchanged(kind: Kind, meta: &Meta, propagation: Option<Propagation>) -> Op {
    Op::Delete { kind, key: meta.key.clone(), uid: meta.uid.clone(), version: Some(meta.version), propagation }
}

/// The same object by UID, for an Event.
pub fn target(kind: Kind, key: &ObjectKey, uid: &Uid) -> super::request::NoteTarget {
    super::request::NoteTarget { kind, key: key.clone(), uid: uid.clone() }
}
