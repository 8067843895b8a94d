//! The part of the metadata that the cache keeps of every object.

use chrono::{DateTime, Utc};

use super::{ObjectKey, Uid};

/// The part of the metadata that the cache keeps of every object.
#[derive(Clone, Debug, PartialEq)]
pub struct Meta {
    /// The namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: Uid,
    /// `metadata.resourceVersion`.
    pub version: u64,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.creationTimestamp`.
    pub created: DateTime<Utc>,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// The position of the operator's finalizer in `metadata.finalizers`.
    pub finalizer: Option<u16>,
    /// The number of finalizers, including that of the operator.
    pub finalizers: u16,
    /// Whether there is the finalizer `foregroundDeletion` of the garbage collector.
    pub foreground: bool,
    /// Whether there is a finalizer of neither the operator nor the garbage collector.
    pub foreign: bool,
}
