//! The items of the work queue, and the requests that they result in.

use std::sync::Arc;

use super::{Kind, ObjectKey, Operation};

/// An item of the work queue. At most one request is in flight for each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReconcileRequest {
    /// For the masks controller.
    Mask(ObjectKey),
    /// For the consumers controller.
    Consumer(ObjectKey),
    /// For the reservations controller.
    Reservation(ObjectKey),
    /// For the providers controller.
    Provider(ObjectKey),
    /// For the providers controller: verify the credentials.
    Verification(ObjectKey),
    /// For the consumers controller: confirm a `maxSlots` to the providers controller, which runs in another process.
    Acknowledgement(ObjectKey),
    /// For the pods controller: an injected Pod.
    Pod(ObjectKey),
    /// For the pods controller: the Mask of an injected Pod, or one that such Pods share.
    PodMask(ObjectKey),
    /// For the consumers controller: list the Pods of a namespace for the releases that wait for it.
    PodList(Arc<str>),
    /// For the servers controller: an OpenVPN server.
    Server(ObjectKey),
    /// For the servers controller: a client of an OpenVPN server.
    Client(ObjectKey),
    /// Report an object that cannot be decoded.
    Unreadable(Kind, ObjectKey),
    /// Read an object whose cached state is not confirmed.
    Read(Kind, ObjectKey),
}

/// The priority of a request, so that an assignment does not wait behind thousands of other requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestPriority {
    /// Part of an assignment or a release.
    Slots,
    /// Updates objects that nobody waits for, after an upgrade or a change of a Secret.
    Maintenance,
    /// Informs users.
    Status,
}

impl RequestPriority {
    /// All priorities, from high to low.
    pub const ALL: [Self; 3] = [Self::Slots, Self::Maintenance, Self::Status];

    /// Whether a request has to wait for a request of the other priority that writes the same object, because the
    /// response changes the resourceVersion that guards it. Assignments and releases wait only for each other.
    pub fn waits_for(self, other: Self) -> bool {
        self != Self::Slots || other == Self::Slots
    }
}

/// A request to the API server.
#[derive(Clone, Debug)]
pub struct Request {
    /// The number that the response refers to.
    pub id: u64,
    /// The queue item that it is for.
    pub reconcile: ReconcileRequest,
    /// The operation.
    pub operation: Operation,
    /// The priority.
    pub priority: RequestPriority,
}
