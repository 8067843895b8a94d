//! What a decision for a MaskConsumer works with.

use std::collections::HashMap;

use vpn_types::Reason;

use super::{followers::Followers, throttle::Throttle};
use crate::{
    allocator::Allocator,
    model::{Backoff, Effect, EventRecord, Kind, Now, ObjectKey, ObjectReference, Uid, object_reference},
    state::{ClusterState, ConsumerView, CopyView, ReservationView, SlotUserView},
};

/// What has to be remembered of a consumer beside what the stores say. All of it can be lost: a restart reads or does
/// the same again.
#[derive(Clone, Debug, Default)]
pub struct ConsumerMemory {
    /// The reservation that is being given back because the assignment met a refusal.
    pub withdrawing: Option<Uid>,
    /// The Secret in the way, as read after W3 found the name taken.
    pub obstacle: Option<CopyView>,
    /// Release: the copied Secret is known to be gone.
    pub copy_gone: bool,
    /// Release: the Pods that are waited for. Absent until they have been listed.
    pub users: Option<Vec<SlotUserView>>,
    /// Release: how the Pods are, or were, listed.
    pub listing: Listing,
    /// The reservation that the consumer is committed to was read and is not there, or not its own.
    pub lock_gone: bool,
    /// Release: the deletion was upgraded to foreground. The garbage collector takes its finalizer away again as soon
    /// as no dependent blocks, which may be long before the last user is gone.
    pub upgraded: bool,
    /// Release: some user vanished without evidence that its containers ended.
    pub unclean: bool,
    /// Waiting: since when (monotonic) a provider that fits is about to be judged.
    pub settling_since: Option<std::time::Duration>,
    /// The provider was read and is gone.
    pub provider_gone: bool,
}

/// How the one consistent list of Pods comes about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listing {
    /// Not begun.
    #[default]
    NotYet,
    /// The watch on the namespace was begun for this release; its first list serves.
    ByWatch,
    /// The watch was there already: a list of its own.
    ByRequest,
}

/// What a decision for a consumer works with.
pub struct Context<'a> {
    /// All that is known.
    pub state: &'a ClusterState,
    /// Queue and slots.
    pub allocator: &'a mut Allocator,
    /// Per consumer, by UID.
    pub progress: &'a mut HashMap<Uid, ConsumerMemory>,
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

impl Context<'_> {
    /// What is remembered of a consumer.
    pub fn progress(&mut self, consumer: &ConsumerView) -> &mut ConsumerMemory {
        self.progress.entry(consumer.meta.uid.clone()).or_default()
    }

    /// What is remembered of a consumer, if anything is: of most there is nothing.
    pub fn recall(&mut self, consumer: &ConsumerView) -> Option<&mut ConsumerMemory> {
        self.progress.get_mut(&consumer.meta.uid)
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

/// The object on which users look for Events: the Mask where there is one, else the consumer itself.
pub fn regarding(consumer: &ConsumerView) -> ObjectReference {
    match &consumer.owner {
        Some(mask) => object_reference(Kind::Mask, &consumer.meta.key, mask),
        None => object_reference(Kind::Consumer, &consumer.meta.key, &consumer.meta.uid),
    }
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
    EventRecord { regarding: regarding(consumer), related: Some(itself), warning, reason, action, message }
}
