//! A request for a Secret with keys.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use serde_json::{Value, json};
use vpn_types::INPUTS_ANNOTATION;

use super::{ObjectKey, Uid};
use crate::issuing::{Content, DATA_ANNOTATION, Data, data_hash};

/// A Secret with keys. Its content is made when the request is sent, outside of the engine: generating a key takes time,
/// and a decision must not depend on randomness.
#[derive(Clone, Debug)]
pub struct Issue {
    /// The Secret.
    pub key: ObjectKey,
    /// The version that it replaces. If absent, the Secret is created, which fails if it exists.
    pub replaces: Option<(Uid, u64)>,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The hash of what it is made from, for an annotation.
    pub inputs: String,
    /// The owner.
    pub owner: Option<OwnerReference>,
    /// What it holds.
    pub content: Content,
}

impl Issue {
    /// Returns the Secret to create.
    pub fn secret(&self, data: Data) -> Secret {
        let metadata = ObjectMeta {
            name: Some(self.key.name.to_string()),
            namespace: Some(self.key.namespace.to_string()),
            labels: Some(self.labels.clone()),
            annotations: Some(self.annotations(&data)),
            owner_references: self.owner.clone().map(|owner| vec![owner]),
            ..ObjectMeta::default()
        };
        Secret { metadata, data: Some(data), ..Secret::default() }
    }

    /// Returns the JSON patch that replaces the data of the Secret as it was read. Labels and annotations of others stay.
    pub fn replacement(&self, present: &Secret, data: Data) -> Value {
        let metadata = &present.metadata;
        let mut labels = metadata.labels.clone().unwrap_or_default();
        labels.extend(self.labels.clone());
        let mut annotations = metadata.annotations.clone().unwrap_or_default();
        annotations.extend(self.annotations(&data));
        json!([
            {"op": "test", "path": "/metadata/uid", "value": metadata.uid},
            {"op": "test", "path": "/metadata/resourceVersion", "value": metadata.resource_version},
            {"op": "add", "path": "/metadata/labels", "value": labels},
            {"op": "add", "path": "/metadata/annotations", "value": annotations},
            {"op": "add", "path": "/data", "value": data},
        ])
    }

    fn annotations(&self, data: &Data) -> BTreeMap<String, String> {
        let annotations = [(INPUTS_ANNOTATION, self.inputs.clone()), (DATA_ANNOTATION, data_hash(data))];
        annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}
