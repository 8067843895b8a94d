//! Metadata that every object has.

use chrono::{DateTime, Utc};

use super::{ObjectKey, Uid};

/// What every object has.
#[derive(Clone, Debug, PartialEq)]
pub struct Meta {
    /// Namespace and name.
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
    /// Position of our finalizer in `metadata.finalizers`.
    pub finalizer: Option<u16>,
    /// Number of finalizers, ours among them.
    pub finalizers: u16,
    /// Whether the garbage collector's `foregroundDeletion` is among them.
    pub foreground: bool,
    /// Whether one is among them that is neither ours nor the garbage collector's.
    pub foreign: bool,
}
