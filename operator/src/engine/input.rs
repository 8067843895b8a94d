//! What the engine takes in.

use std::sync::Arc;

use crate::{
    model::{LogEvent, ObjectKey, ObjectReference, Uid},
    state::{CredentialsView, Outcome, WatchEvent},
};

/// What happened.
#[derive(Clone)]
pub enum Input {
    /// A watch on a whole kind told something.
    Watch(WatchEvent),
    /// The watch on one named Secret: its content, or that there is none.
    Secret(ObjectKey, Option<CredentialsView>),
    /// The watch on one named Secret cannot be had; why, in words for users.
    SecretUnreadable(ObjectKey, Arc<str>),
    /// The watch on the Pods of a namespace.
    Pods(Arc<str>, WatchEvent),
    /// The log of the Pod with that UID.
    Log(Uid, LogEvent),
    /// A request ended.
    Answer(u64, Outcome),
    /// An object of this kind cannot be decoded.
    Undecodable {
        /// Which object.
        target: ObjectReference,
        /// What is wrong with it.
        error: String,
    },
    /// This process leads from now on.
    Lead,
    /// Time passed.
    Tick,
}
