//! State of the consumers controller. All of it can be lost: after a restart, the controller reads or does the same
//! again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::followers::Followers;
use crate::{
    controllers::throttle::Throttle,
    model::{ObjectKey, Uid},
    state::{CopyView, Ending, SlotUserView},
};

/// State of the consumers controller.
#[derive(Clone, Default)]
pub struct Memory {
    /// State by UID of the consumer; most consumers have none.
    pub by_uid: HashMap<Uid, ConsumerMemory>,
    /// Limits how often statuses are written.
    pub throttles: Throttles,
    /// Releases in progress.
    pub followers: Followers,
    /// Consumers to reconcile again after the free slots are assigned.
    pub revisit: Vec<ObjectKey>,
}

impl Memory {
    /// Returns the state of a consumer, and creates it if it is absent.
    pub fn of(&mut self, consumer: &Uid) -> &mut ConsumerMemory {
        self.by_uid.entry(consumer.clone()).or_default()
    }
}

/// Limits how often statuses are written that nobody has to act on.
#[derive(Clone)]
pub struct Throttles {
    /// Queue positions. The Mask follows its consumer, which doubles the writes.
    pub positions: Throttle,
    /// Releases that wait for Pods that are stopping. When hundreds of slots are released at once, each status takes the
    /// API server's time from them.
    pub releases: Throttle,
}

impl Default for Throttles {
    fn default() -> Self {
        Self {
            positions: Throttle::new(Duration::from_millis(450)),
            releases: Throttle::new(Duration::from_millis(200)),
        }
    }
}

/// State of a consumer in addition to the stores. All of it can be lost: after a restart, the controller reads or does
/// the same again.
#[derive(Clone, Debug, Default)]
pub struct ConsumerMemory {
    /// The reservation that is being withdrawn because the assignment was rejected.
    pub withdrawing: Option<Uid>,
    /// The conflicting Secret, as read after W3 found the name taken, and when (monotonic).
    pub conflicting_secret: Option<(CopyView, Duration)>,
    /// Release: the copied Secret is confirmed to be gone.
    pub copy_gone: bool,
    /// Release: the Pods that still use the slot. Absent until they have been listed.
    pub users: Option<Vec<SlotUserView>>,
    /// Release: how the Pods are listed.
    pub listing: Listing,
    /// A read confirmed that the reservation that the consumer is committed to is gone or belongs to another consumer.
    pub lock_gone: bool,
    /// Release: the deletion was upgraded to foreground. The garbage collector removes its finalizer again as soon as
    /// no dependent blocks, which may be long before the last user is gone.
    pub upgraded: bool,
    /// Release: since when (monotonic) it waits for Pods to stop.
    pub waiting_since: Option<Duration>,
    /// How the Pod that the slot was for ended, as far as the watch on injected Pods saw it.
    pub pod_ending: Option<(Uid, Ending)>,
    /// Release: the name of a user that disappeared without evidence that its containers ended.
    pub unclean: Option<Arc<str>>,
    /// Waiting: since when (monotonic) a matching provider is about to get a new condition.
    pub settling_since: Option<Duration>,
    /// A read confirmed that the provider is gone.
    pub provider_gone: bool,
}

/// How the one consistent list of Pods is obtained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listing {
    /// Not started.
    #[default]
    NotYet,
    /// The watch on the namespace was started for this release; its first list serves.
    ByWatch,
    /// The watch existed already: a separate list.
    ByRequest,
}
