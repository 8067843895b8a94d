//! What is kept of Secrets: of copies their metadata, of the credentials of MaskProviders their data.

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{Meta, Uid};

/// A Secret as far as its metadata goes: a copy of credentials beside a consumer.
#[derive(Clone, Debug)]
pub struct CopyView {
    /// Metadata.
    pub meta: Meta,
    /// UID of the owning MaskConsumer.
    pub consumer_uid: Option<Uid>,
    /// UID of the reservation it was made under (annotation).
    pub reservation: Option<Uid>,
    /// Fingerprint of the data it was made from (annotation).
    pub source_hash: Option<Arc<str>>,
    /// Whether it carries the label that our watch selects by.
    pub labelled: bool,
}

/// The keys and values of a credentials Secret.
pub type SecretData = Arc<BTreeMap<String, k8s_openapi::ByteString>>;

/// A provider's credentials, watched by name.
#[derive(Clone)]
pub struct SourceView {
    /// The data to copy.
    pub data: SecretData,
    /// Fingerprint of the data.
    pub hash: Arc<str>,
    /// UID and resourceVersion.
    pub version: Arc<str>,
    /// The version under which this very data was first seen: editing a label changes the version, not the data.
    pub data_since: Arc<str>,
}

/// What the watch on one named Secret says.
#[derive(Clone, Default)]
pub enum Source {
    /// Not known yet.
    #[default]
    Unknown,
    /// There is none.
    Missing,
    /// It cannot be watched; why, in words for users.
    Unreadable(Arc<str>),
    /// Here it is.
    Present(SourceView),
}
