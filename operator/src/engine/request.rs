//! What the heart asks of the shell, and what it hears back.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use k8s_openapi::api::core::v1::{Pod, Secret};
use serde_json::Value;
use vpn_types::{Mask, MaskConsumer, MaskReservation, Reason};

use crate::world::{Kind, Object, ObjectKey, PodView, SourceView, Uid};

/// The time. Stored deadlines and timestamps are wall clock; everything that only this process waits for is monotonic,
/// so a clock that is set back or forth changes no wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall clock.
    pub wall: DateTime<Utc>,
    /// Time since the process started.
    pub monotonic: Duration,
}

/// How a deletion reaches dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// The garbage collector deletes them once the owner is gone.
    Background,
    /// The garbage collector deletes them first.
    Foreground,
}

/// An object to be created.
#[derive(Clone, Debug)]
pub enum NewObject {
    /// W1.
    Consumer(Box<MaskConsumer>),
    /// W2.
    Reservation(Box<MaskReservation>),
    /// W3.
    Secret(Box<Secret>),
    /// Asks for the slot of a verification.
    Mask(Box<Mask>),
    /// Verifies a provider.
    Pod(Box<Pod>),
}

impl NewObject {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            NewObject::Consumer(_) => Kind::Consumer,
            NewObject::Reservation(_) => Kind::Reservation,
            NewObject::Secret(_) => Kind::Secret,
            NewObject::Mask(_) => Kind::Mask,
            NewObject::Pod(_) => Kind::Pod,
        }
    }
}

/// One request to the API server.
#[derive(Clone, Debug)]
pub enum Op {
    /// POST.
    Create(ObjectKey, NewObject),
    /// Merge patch of the status subresource.
    PatchStatus(Kind, ObjectKey, Value),
    /// Merge patch of the object.
    Patch(Kind, ObjectKey, Value),
    /// JSON patch (RFC 6902) of the object.
    JsonPatch(Kind, ObjectKey, Value),
    /// DELETE with a UID precondition, and one on the version where the decision rests on it.
    Delete {
        /// What kind.
        kind: Kind,
        /// Which object.
        key: ObjectKey,
        /// It has to be this one.
        uid: Uid,
        /// It must not have changed since.
        version: Option<u64>,
        /// What becomes of dependents; absent: the server's default.
        propagation: Option<Propagation>,
    },
    /// GET, straight from storage.
    Get(Kind, ObjectKey),
    /// Consistent LIST of the Pods of a namespace.
    ListPods(Arc<str>),
}

/// Which of three lanes a request takes, so that thousands of others do not stand before an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// On the way from "wants a slot" to "has it", or from "gives it up" to "free".
    Slots,
    /// Brings objects up to date that nobody waits for: after an upgrade, or when a Secret has changed.
    Housekeeping,
    /// Tells people.
    Status,
}

impl Lane {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Slots, Self::Housekeeping, Self::Status];

    /// Whether a request has to wait until one of the other lane has ended that writes the same object: its answer
    /// changes the version that this one is guarded by. What is on the way to or from a slot waits for its like only.
    pub fn waits_for(self, other: Self) -> bool {
        self != Self::Slots || other == Self::Slots
    }
}

impl Op {
    /// What it is about.
    pub fn target(&self) -> Option<(Kind, &ObjectKey)> {
        match self {
            Op::Create(key, new) => Some((new.kind(), key)),
            Op::PatchStatus(kind, key, _)
            | Op::Patch(kind, key, _)
            | Op::JsonPatch(kind, key, _)
            | Op::Get(kind, key)
            | Op::Delete { kind, key, .. } => Some((*kind, key)),
            Op::ListPods(_) => None,
        }
    }

    /// Whether it changes nothing.
    pub fn is_read(&self) -> bool {
        matches!(self, Op::Get(..) | Op::ListPods(_))
    }

    /// The object that it changes.
    pub fn written(&self) -> Option<(Kind, &ObjectKey)> {
        self.target().filter(|_| !self.is_read())
    }

    /// Which part of the object a patch changes.
    pub fn part(&self) -> Option<&'static str> {
        match self {
            Op::PatchStatus(..) => Some("status"),
            Op::Patch(..) => Some("spec"),
            Op::JsonPatch(Kind::Secret, ..) => Some("data"),
            Op::JsonPatch(..) => Some("finalizers"),
            Op::Create(..) | Op::Delete { .. } | Op::Get(..) | Op::ListPods(_) => None,
        }
    }

    /// Verb as the API's audit log and RBAC know it.
    pub fn verb(&self) -> &'static str {
        match self {
            Op::Create(..) => "create",
            Op::PatchStatus(..) | Op::Patch(..) | Op::JsonPatch(..) => "patch",
            Op::Delete { .. } => "delete",
            Op::Get(..) => "get",
            Op::ListPods(_) => "list",
        }
    }
}

/// An Event for users.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// The object that `kubectl describe` shows it on.
    pub regarding: NoteTarget,
    /// A second object that it is about.
    pub related: Option<NoteTarget>,
    /// Whether something needs attention.
    pub warning: bool,
    /// Machine-readable reason.
    pub reason: Reason,
    /// What was done: an `action` in the sense of events.k8s.io/v1.
    pub action: &'static str,
    /// For people.
    pub message: String,
}

/// What an Event is about.
#[derive(Clone, Debug, PartialEq)]
pub struct NoteTarget {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub key: ObjectKey,
    /// Its UID.
    pub uid: Uid,
}

/// A request with its number.
#[derive(Clone, Debug)]
pub struct Request {
    /// To be handed back with the answer.
    pub id: u64,
    /// For what it is.
    pub work: super::Work,
    /// What to do.
    pub op: Op,
    /// How urgent it is.
    pub lane: Lane,
}

/// What the shell has to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a request; its answer comes back as [`Input::Answer`].
    Send(Request),
    /// Publish an Event; nothing depends on whether it arrives.
    Publish(Note),
    /// Keep a watch on the Secret of that name.
    WatchSecret(ObjectKey),
    /// End that watch.
    UnwatchSecret(ObjectKey),
    /// Keep a watch on the Pods of that namespace.
    WatchPods(Arc<str>),
    /// End that watch.
    UnwatchPods(Arc<str>),
    /// Read the log of a container from its beginning, and go on until the container ends.
    FollowLog {
        /// The Pod.
        key: ObjectKey,
        /// Its UID.
        uid: Uid,
        /// Name of the container.
        container: &'static str,
    },
    /// The Pod is gone: end that.
    UnfollowLog(Uid),
}

/// How a request ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Done; the object as it is now.
    Object(Box<Object>),
    /// Done, and the object is gone for good.
    Gone,
    /// The Pods of the namespace.
    Pods(Vec<PodView>),
    /// 404: there is none of that name (or no such namespace).
    NotFound,
    /// 409 on a create: the name is taken.
    AlreadyExists,
    /// 409 or 422 on a patch or delete: it changed since we looked.
    Conflict,
    /// Refused; nothing was written.
    Refused {
        /// Why, from the closed set.
        reason: Reason,
        /// The server's words.
        message: String,
    },
    /// No answer, or one that leaves open whether it was carried out (timeout, connection lost, 500, 503, 504).
    Unknown {
        /// What happened.
        message: String,
    },
}

/// What a watch told.
#[derive(Clone, Debug)]
pub enum Told {
    /// A list begins.
    ListBegan(Kind),
    /// One object of it.
    Listed(Object),
    /// It is complete.
    ListEnded(Kind),
    /// Added or modified.
    Applied(Object),
    /// Deleted; its last state.
    Deleted(Object),
}

/// What a log told.
#[derive(Clone, Debug)]
pub enum LogTold {
    /// A line.
    Line(String),
    /// The container has ended, and with it its log.
    Ended,
    /// It cannot be read, or no further; why.
    Unreadable(String),
}

/// What happened.
#[derive(Clone)]
pub enum Input {
    /// A watch on a whole kind told something.
    Watch(Told),
    /// The watch on one named Secret: its content, or that there is none.
    Secret(ObjectKey, Option<SourceView>),
    /// The watch on one named Secret cannot be had; why, in words for users.
    SecretUnreadable(ObjectKey, Arc<str>),
    /// The watch on the Pods of a namespace.
    Pods(Arc<str>, Told),
    /// The log of the Pod with that UID.
    Log(Uid, LogTold),
    /// A request ended.
    Answer(u64, Outcome),
    /// An object of this kind cannot be decoded.
    Undecodable {
        /// Which object.
        target: NoteTarget,
        /// What is wrong with it.
        error: String,
    },
    /// This process leads from now on.
    Lead,
    /// Time passed.
    Tick,
}
