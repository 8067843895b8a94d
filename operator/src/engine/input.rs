//! Inputs of the engine.

use std::sync::Arc;

use crate::{
    model::{LogEvent, ObjectKey, ObjectReference, Uid},
    state::{CredentialsView, Outcome, WatchEvent},
};

/// An input of the engine.
#[derive(Clone)]
pub enum Input {
    /// An event of the watch on a kind.
    Watch(WatchEvent),
    /// An event of the watch on a credentials Secret: its content, or `None` if it does not exist.
    Secret(ObjectKey, Option<CredentialsView>),
    /// The watch on a credentials Secret fails, for this reason.
    SecretUnreadable(ObjectKey, Arc<str>),
    /// An event of the watch on the Pods of a namespace.
    Pods(Arc<str>, WatchEvent),
    /// An event of the log of the Pod with this UID.
    Log(Uid, LogEvent),
    /// How many clients are connected to all replicas of the OpenVPN server with this UID.
    ConnectedClients(ObjectKey, Uid, u64),
    /// The outcome of a request.
    Answer(u64, Outcome),
    /// An object cannot be decoded.
    Undecodable {
        /// The object.
        target: ObjectReference,
        /// `metadata.resourceVersion`.
        version: u64,
        /// The error of the decoder.
        error: String,
    },
    /// This process is the leader from now on.
    Lead,
    /// A deadline has come.
    Tick,
}
