//! What the consumers controller remembers. All of it can be lost: a restart reads or does the same again.

use std::collections::HashMap;

use super::{followers::Followers, throttle::Throttle};
use crate::{
    model::{ObjectKey, Uid},
    state::{CopyView, SlotUserView},
};

/// What the consumers controller remembers.
#[derive(Clone, Default)]
pub struct Memory {
    /// By UID of the consumer; of most there is nothing.
    pub by_uid: HashMap<Uid, ConsumerMemory>,
    /// Limits how often places in line are rewritten.
    pub throttle: Throttle,
    /// Releases under way.
    pub followers: Followers,
    /// Consumers to look at again once the free slots have been handed out.
    pub revisit: Vec<ObjectKey>,
}

impl Memory {
    /// What is remembered of a consumer, to be changed.
    pub fn of(&mut self, consumer: &Uid) -> &mut ConsumerMemory {
        self.by_uid.entry(consumer.clone()).or_default()
    }
}

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
