//! How requests end, and what watches say.

use vpn_types::Reason;

use super::{Object, PodView};
use crate::model::Kind;

/// How a request ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Done; the object as it is now.
    Object(Box<Object>),
    /// Done, and the object is gone for good.
    Gone,
    /// The Pods of the namespace.
    Pods(Vec<PodView>),
    /// 404: there is none of that name (or no such namespace).
    NotFound,
    /// 409 on a create: the name is taken.
    AlreadyExists,
    /// 409 or 422 on a patch or delete: it changed since we looked.
    Conflict,
    /// Refused; nothing was written.
    Refused {
        /// Why, from the closed set.
        reason: Reason,
        /// The server's words.
        message: String,
    },
    /// No answer, or one that leaves open whether it was carried out (timeout, connection lost, 500, 503, 504).
    Unknown {
        /// What happened.
        message: String,
    },
}

/// What a watch told.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// A list begins.
    Init(Kind),
    /// One object of it.
    InitApply(Object),
    /// It is complete.
    InitDone(Kind),
    /// Added or modified.
    Apply(Object),
    /// Delete; its last state.
    Delete(Object),
}
