//! What is to be reconciled, and the requests that follow from it.

use std::sync::Arc;

use super::{Kind, ObjectKey, Operation};

/// The unit of work: at most one request is under way for each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReconcileRequest {
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

/// Which of three lanes a request takes, so that thousands of others do not stand before an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestPriority {
    /// On the way from "wants a slot" to "has it", or from "gives it up" to "free".
    Slots,
    /// Brings objects up to date that nobody waits for: after an upgrade, or when a Secret has changed.
    Maintenance,
    /// Tells people.
    Status,
}

impl RequestPriority {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Slots, Self::Maintenance, Self::Status];

    /// Whether a request has to wait until one of the other lane has ended that writes the same object: its answer
    /// changes the version that this one is guarded by. What is on the way to or from a slot waits for its like only.
    pub fn waits_for(self, other: Self) -> bool {
        self != Self::Slots || other == Self::Slots
    }
}

/// A request with its number.
#[derive(Clone, Debug)]
pub struct Request {
    /// To be handed back with the answer.
    pub id: u64,
    /// For what it is.
    pub reconcile: ReconcileRequest,
    /// What to do.
    pub operation: Operation,
    /// How urgent it is.
    pub priority: RequestPriority,
}
