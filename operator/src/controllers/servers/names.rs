//! Names, labels, owners and dates of what belongs to a server.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use serde_json::{Value, json};
use vpn_types::{OpenVPNServer, SERVER_LABEL, SERVER_SECRET_LABEL};

use crate::{
    model::ObjectKey,
    state::{IssuedView, SecretRole, ServerView},
};

/// Returns the key of an object with this suffix.
pub fn named(key: &ObjectKey, suffix: &str) -> ObjectKey {
    ObjectKey::new(&*key.namespace, format!("{}-{suffix}", key.name))
}

/// Returns the labels of a Secret.
pub fn secret_labels(server: &str, role: SecretRole) -> BTreeMap<String, String> {
    let labels = [(SERVER_LABEL, server), (SERVER_SECRET_LABEL, role.as_str())];
    labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// The labels by which a Service or a Deployment selects the replicas.
pub fn selector(key: &ObjectKey) -> Value {
    json!({"app": "openvpn", "release": &*key.name})
}

/// Returns the reference to a server that owns an object.
pub fn owned_by(server: &ServerView) -> OwnerReference {
    OwnerReference {
        api_version: OpenVPNServer::api_version(&()).into_owned(),
        kind: OpenVPNServer::kind(&()).into_owned(),
        name: server.meta.key.name.to_string(),
        uid: server.meta.uid.to_string(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Returns when a certificate has to be renewed: after two thirds of the time that certificates are valid.
pub fn renewal_time(certificate: &IssuedView, lifetime: std::time::Duration) -> DateTime<Utc> {
    let third = TimeDelta::from_std(lifetime / 3).unwrap_or(TimeDelta::MAX);
    certificate.not_after.checked_sub_signed(third).unwrap_or(DateTime::<Utc>::MIN_UTC)
}

/// Returns a time as in a status.
pub fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}
