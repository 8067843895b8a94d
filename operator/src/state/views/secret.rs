//! Views of Secrets: the metadata of copies, and the data of the credentials of MaskProviders.

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{Meta, Uid};

/// The metadata of the copied Secret of a consumer.
#[derive(Clone, Debug)]
pub struct CopyView {
    /// The metadata.
    pub meta: Meta,
    /// The UID of the MaskConsumer that owns it.
    pub consumer_uid: Option<Uid>,
    /// The UID of the reservation that it was created for, from an annotation.
    pub reservation: Option<Uid>,
    /// The fingerprint of the data that was copied, from an annotation.
    pub source_hash: Option<Arc<str>>,
    /// Whether it has the label that the watch selects.
    pub labeled: bool,
}

/// The keys and values of a credentials Secret.
pub type SecretData = Arc<BTreeMap<String, k8s_openapi::ByteString>>;

/// A credentials Secret, or the credentials merged from several.
#[derive(Clone)]
pub struct CredentialsView {
    /// The data.
    pub data: SecretData,
    /// The fingerprint of the data.
    pub hash: Arc<str>,
    /// The UID and resourceVersion.
    pub version: Arc<str>,
    /// The version with which the operator first saw this data. Editing a label changes the version, but not the data.
    pub data_since: Arc<str>,
}

/// The state of a credentials Secret, according to its watch.
#[derive(Clone, Default)]
pub enum CredentialsState {
    /// Not yet known.
    #[default]
    Unknown,
    /// It does not exist.
    Missing,
    /// It cannot be watched, for this reason.
    Unreadable(Arc<str>),
    /// It exists.
    Present(CredentialsView),
}
