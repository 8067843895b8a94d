//! What the runtime has to do.

use std::sync::Arc;

use super::{EventRecord, ObjectKey, Request, Uid};

/// What the shell has to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a request; its answer comes back as [`Input::Answer`].
    Send(Request),
    /// Publish an Event; nothing depends on whether it arrives.
    RecordEvent(EventRecord),
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
