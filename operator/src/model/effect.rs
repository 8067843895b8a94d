//! What the engine asks the runtime to do.

use std::sync::Arc;

use super::{EventRecord, ObjectKey, Request, Uid};

/// An action that the engine asks the runtime to take.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a request. Its outcome comes back as `Input::Answer`.
    Send(Request),
    /// Publish an Event. Nothing depends on whether it arrives.
    RecordEvent(EventRecord),
    /// Start a watch on the Secret with this name.
    WatchSecret(ObjectKey),
    /// Stop that watch.
    UnwatchSecret(ObjectKey),
    /// Start a watch on the Pods of this namespace.
    WatchPods(Arc<str>),
    /// Stop that watch.
    UnwatchPods(Arc<str>),
    /// Follow the log of a container from its beginning until the container terminates.
    FollowLog {
        /// The Pod.
        key: ObjectKey,
        /// The UID of the Pod.
        uid: Uid,
        /// The name of the container.
        container: &'static str,
    },
    /// Stop following the log of this Pod, which is gone.
    UnfollowLog(Uid),
}
