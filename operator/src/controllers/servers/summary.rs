//! The input of a server's metrics: its replicas, its clients, and when certificates end.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use vpn_types::OpenVPNServerSpec;

use super::{
    names::{named, renewal_time},
    rollover::next_authority_time,
};
use crate::state::{ClusterState, SecretRole, ServerView};

/// The input of a server's metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// The desired number of replicas, or the actual one if something else scales the Deployment.
    pub replicas: usize,
    /// How many replicas accept clients.
    pub ready: usize,
    /// How many clients are revoked.
    pub revoked: usize,
    /// The certificates in use.
    pub certificates: Vec<CertificateSummary>,
}

/// A certificate in use.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificateSummary {
    /// `ca`, `server` or `client`.
    pub kind: &'static str,
    /// The name of the server or client.
    pub name: Arc<str>,
    /// When it ends.
    pub not_after: DateTime<Utc>,
    /// When the operator renews it, if it can.
    pub renewal: Option<DateTime<Utc>>,
}

/// Returns the input of a server's metrics.
pub fn summary(state: &ClusterState, server: &ServerView) -> Summary {
    let key = &server.meta.key;
    let pods = || state.server_pods_of(key).filter(|pod| !pod.ended && !pod.meta.deleting);
    let wanted = server.spec.replicas.and_then(|replicas| usize::try_from(replicas).ok());
    let secret = |suffix: &str, role| {
        let found = state.server_secrets.get(&named(key, suffix));
        found.filter(|secret| secret.role == Some(role)).and_then(|secret| secret.certificate.as_ref())
    };
    let name = || key.name.clone();
    let ca = secret("ca", SecretRole::Authority).map(|ca| CertificateSummary {
        kind: "ca",
        name: name(),
        not_after: ca.not_after,
        renewal: (!server.has_own_authority() && server.keystore_key().is_none()).then(|| next_authority_time(ca)),
    });
    let lifetime = server.spec.server_duration().unwrap_or(OpenVPNServerSpec::DEFAULT_DURATION);
    let own = secret("server", SecretRole::Server).map(|own| CertificateSummary {
        kind: "server",
        name: name(),
        not_after: own.not_after,
        renewal: server.keystore_key().is_none().then(|| renewal_time(own, lifetime)),
    });
    let lifetime = server.spec.client_duration().unwrap_or(OpenVPNServerSpec::DEFAULT_DURATION);
    let clients = state.clients_of(key).filter(|client| !client.is_doomed()).filter_map(|client| {
        let held = state.server_secrets.get(&client.meta.key)?.certificate.as_ref()?;
        let lifetime = client.spec.duration().ok().flatten().unwrap_or(lifetime);
        Some(CertificateSummary {
            kind: "client",
            name: client.meta.key.name.clone(),
            not_after: held.not_after,
            renewal: client.spec.csr.is_none().then(|| renewal_time(held, lifetime)),
        })
    });
    Summary {
        replicas: wanted.unwrap_or_else(|| pods().count()),
        ready: pods().filter(|pod| pod.ready).count(),
        revoked: state.clients_of(key).filter(|client| client.is_doomed()).count(),
        certificates: ca.into_iter().chain(own).chain(clients).collect(),
    }
}
