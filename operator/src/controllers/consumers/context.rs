//! What a decision for a MaskConsumer works with.

use std::collections::HashMap;

use vpn_types::Reason;

use super::{followers::Followers, memory::ConsumerMemory, throttle::Throttle};
use crate::{
    allocator::Allocator,
    model::{Backoff, Effect, EventRecord, Kind, Now, ObjectKey, Uid, object_reference},
    state::{ClusterState, ConsumerView, CopyView, ReservationView},
};

/// What a decision for a consumer works with.
pub struct ConsumerContext<'a> {
    /// All that is known.
    pub state: &'a ClusterState,
    /// Queue and slots.
    pub allocator: &'a mut Allocator,
    /// Per consumer, by UID.
    pub memory: &'a mut HashMap<Uid, ConsumerMemory>,
    /// Limits how often places in line are rewritten.
    pub throttle: &'a mut Throttle,
    /// Watches to begin or end.
    pub effects: &'a mut Vec<Effect>,
    /// Releases under way.
    pub followers: &'a mut Followers,
    /// Why the Pods of its namespace cannot be listed at present.
    pub list_backoff: Option<Backoff>,
    /// Consumers to look at again once the free slots have been handed out.
    pub revisit: &'a mut Vec<ObjectKey>,
    /// What went wrong last with this consumer.
    pub backoff: &'a mut Option<Backoff>,
    /// The time.
    pub now: Now,
}

impl ConsumerContext<'_> {
    /// What is remembered of a consumer.
    pub fn memory(&mut self, consumer: &ConsumerView) -> &mut ConsumerMemory {
        self.memory.entry(consumer.meta.uid.clone()).or_default()
    }

    /// What is remembered of a consumer, if anything is: of most there is nothing.
    pub fn recall(&mut self, consumer: &ConsumerView) -> Option<&mut ConsumerMemory> {
        self.memory.get_mut(&consumer.meta.uid)
    }

    /// The Secret in the way of a consumer.
    pub fn obstacle(&mut self, consumer: &ConsumerView) -> Option<CopyView> {
        self.recall(consumer)?.obstacle.clone()
    }

    /// What went wrong last, while it is not yet time to try again.
    pub fn active_backoff(&self) -> Option<&Backoff> {
        self.backoff.as_ref().filter(|backoff| backoff.is_active(self.now))
    }

    /// Takes a consumer out of the line.
    pub fn out_of_line(&mut self, consumer: &ConsumerView) {
        self.allocator.leave(&consumer.meta.uid);
        self.allocator.end_grant(&consumer.meta.uid);
    }
}

/// The reservations that point at this consumer by name and UID.
pub fn reservations<'a>(
    state: &'a ClusterState,
    consumer: &'a ConsumerView,
) -> impl Iterator<Item = &'a ReservationView> {
    state.reservations_of(&consumer.meta.uid).filter(|reservation| reservation.consumer == consumer.meta.key)
}

/// An Event about a consumer.
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
