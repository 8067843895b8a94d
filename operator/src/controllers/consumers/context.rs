//! The input of a decision for a MaskConsumer.

use std::{collections::HashMap, time::Duration};

use vpn_types::Reason;

use super::{
    followers::Followers,
    memory::{ConsumerMemory, Throttles},
};
use crate::{
    allocator::Allocator,
    model::{Backoff, Effect, EventRecord, Kind, Now, ObjectKey, Operation, Step, Uid, object_reference},
    state::{ClusterState, ConsumerView, CopyView, ReservationView},
};

/// How often a Secret that is not watched is read again.
const SECRET_RECHECK: Duration = Duration::from_secs(30);

/// The input of a decision for a consumer.
pub struct ConsumerContext<'a> {
    /// The cached state of the cluster.
    pub state: &'a ClusterState,
    /// The queues and the slots.
    pub allocator: &'a mut Allocator,
    /// State by UID of the consumer.
    pub memory: &'a mut HashMap<Uid, ConsumerMemory>,
    /// Limits how often statuses are written.
    pub throttles: &'a mut Throttles,
    /// Watches to start or stop.
    pub effects: &'a mut Vec<Effect>,
    /// Releases in progress.
    pub followers: &'a mut Followers,
    /// The backoff of the list of Pods in its namespace.
    pub list_backoff: Option<Backoff>,
    /// Consumers to reconcile again after the free slots are assigned.
    pub revisit: &'a mut Vec<ObjectKey>,
    /// The last backoff of this consumer.
    pub backoff: &'a mut Option<Backoff>,
    /// The current time.
    pub now: Now,
}

impl ConsumerContext<'_> {
    /// Returns the state of a consumer, and creates it if it is absent.
    pub fn memory(&mut self, consumer: &ConsumerView) -> &mut ConsumerMemory {
        self.memory.entry(consumer.meta.uid.clone()).or_default()
    }

    /// Returns the state of a consumer if it exists; for most consumers it does not.
    pub fn existing_memory(&mut self, consumer: &ConsumerView) -> Option<&mut ConsumerMemory> {
        self.memory.get_mut(&consumer.meta.uid)
    }

    /// Returns the conflicting Secret of a consumer.
    pub fn conflicting_secret(&mut self, consumer: &ConsumerView) -> Option<CopyView> {
        Some(self.existing_memory(consumer)?.conflicting_secret.as_ref()?.0.clone())
    }

    /// Waits until a Secret changes. No watch delivers one without the label, so it is read every [`SECRET_RECHECK`].
    pub fn wait_for_secret(&mut self, consumer: &ConsumerView, secret: &CopyView) -> Step {
        if secret.labeled {
            return Step::WaitUntil(Duration::MAX);
        }
        let now = self.now.monotonic;
        let read = self.existing_memory(consumer).and_then(|memory| memory.conflicting_secret.as_ref());
        let due = read.map_or(now, |(_, at)| *at + SECRET_RECHECK);
        match due <= now {
            true => Step::send(Operation::Get(Kind::Secret, secret.meta.key.clone())),
            false => Step::WaitUntil(due),
        }
    }

    /// Returns the last backoff while it is active.
    pub fn active_backoff(&self) -> Option<&Backoff> {
        self.backoff.as_ref().filter(|backoff| backoff.is_active(self.now))
    }

    /// Removes a consumer from its queue, and ends its grant.
    pub fn leave_queue(&mut self, consumer: &ConsumerView) {
        self.allocator.leave(&consumer.meta.uid);
        self.allocator.end_grant(&consumer.meta.uid);
    }
}

/// Returns the reservations that name this consumer by name and UID.
pub fn reservations<'a>(
    state: &'a ClusterState,
    consumer: &'a ConsumerView,
) -> impl Iterator<Item = &'a ReservationView> {
    state.reservations_of(&consumer.meta.uid).filter(|reservation| reservation.consumer == consumer.meta.key)
}

/// Returns an Event about a consumer.
pub fn event(
    consumer: &ConsumerView,
    warning: bool,
    reason: Reason,
    action: &'static str,
    message: String,
) -> EventRecord {
    let itself = object_reference(Kind::Consumer, &consumer.meta.key, &consumer.meta.uid);
    EventRecord { regarding: consumer.event_object(), related: Some(itself), warning, reason, action, message }
}
