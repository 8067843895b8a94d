//! The desired statuses of OpenVPN servers and their clients.

use chrono::{DateTime, Utc};
use serde_json::Value;
use vpn_types::{
    CERTIFICATES_VALID, OpenVPNCertificateStatus, OpenVPNCertificatesStatus, OpenVPNClientPhase, OpenVPNClientStatus,
    OpenVPNEndpointStatus, OpenVPNServerPhase, OpenVPNServerStatus, Reason,
};

use super::{conditions, one_condition, patch, timestamp};
use crate::{
    controllers::ready::ReadyCondition,
    pki::Serial,
    state::{ClientView, IssuedView, ServerSecretView, ServerView},
};

/// The state of an OpenVPN server besides its condition.
pub struct ServerFacts {
    /// What clients outside of the cluster connect to.
    pub endpoint: Option<(String, u16)>,
    /// The address of the Service.
    pub cluster_ip: Option<String>,
    /// How many replicas there are.
    pub replicas: usize,
    /// How many of them accept clients.
    pub ready: usize,
    /// How many clients are connected to all of them, if that is known.
    pub connected: Option<u64>,
    /// The selector of the replicas.
    pub selector: String,
    /// Whether the certificates are those of the user.
    pub has_keystore: bool,
    /// The generation of the certificate authority.
    pub generation: Option<i32>,
    /// The serial number and end of the certificate authority.
    pub authority: Option<(Serial, DateTime<Utc>)>,
    /// The serial number and end of the certificate of the server.
    pub certificate: Option<(Serial, DateTime<Utc>)>,
    /// How many clients have a certificate.
    pub clients: usize,
    /// How many certificates are revoked.
    pub revoked: usize,
    /// The condition `CertificatesValid`: its status, reason and message.
    pub valid: (bool, Reason, String),
}

/// Returns the patch for the status of an OpenVPNServer. It is guarded by the resourceVersion, because it records that
/// there is a certificate authority.
pub fn server(
    server: &ServerView,
    condition: &ReadyCondition<OpenVPNServerPhase>,
    facts: &ServerFacts,
    now: DateTime<Utc>,
) -> Option<Value> {
    let certificate = |(serial, not_after): (Serial, DateTime<Utc>)| OpenVPNCertificateStatus {
        serial: serial.to_string(),
        not_after: timestamp(not_after),
    };
    let count = |count: usize| i32::try_from(count).ok();
    let mut all = conditions(condition, &server.status, server.meta.generation, now);
    let (is_valid, reason, message) = &facts.valid;
    let since =
        server.certificates_valid.filter(|(was_valid, _)| was_valid == is_valid).map_or(now, |(_, since)| since);
    let said = (*reason, &**message);
    let valid = one_condition(CERTIFICATES_VALID, Some(*is_valid), said, server.meta.generation, since);
    let has_certificates = facts.authority.is_some() || (facts.has_keystore && facts.certificate.is_some());
    all.extend(has_certificates.then_some(valid));
    let has_address = facts.endpoint.is_some() || facts.cluster_ip.is_some();
    let status = OpenVPNServerStatus {
        phase: Some(condition.phase),
        message: Some(condition.message.clone()),
        last_updated: Some(timestamp(now)),
        endpoint: has_address.then(|| OpenVPNEndpointStatus {
            host: facts.endpoint.as_ref().map(|(host, _)| host.clone()),
            port: facts.endpoint.as_ref().map(|(_, port)| i32::from(*port)),
            cluster_ip: facts.cluster_ip.clone(),
        }),
        replicas: count(facts.replicas),
        ready_replicas: count(facts.ready),
        connected_clients: match facts.connected {
            Some(connected) => i32::try_from(connected).ok(),
            None => server.connected_clients,
        },
        selector: Some(facts.selector.clone()),
        certificates: (facts.generation.is_some() || has_certificates).then(|| OpenVPNCertificatesStatus {
            generation: facts.generation,
            authority: facts.authority.map(certificate),
            server: facts.certificate.map(certificate),
            clients: count(facts.clients),
            revoked: count(facts.revoked),
        }),
        observed_generation: Some(server.meta.generation),
        conditions: Some(all),
    };
    let mut patch = patch(&status, &server.status, &["endpoint", "certificates"], Some(&server.meta))?;
    for (part, fields) in [("endpoint", ENDPOINT_FIELDS), ("certificates", CERTIFICATES_FIELDS)] {
        if let Some(part) = patch["status"][part].as_object_mut() {
            for field in fields {
                part.entry(*field).or_insert(Value::Null);
            }
        }
    }
    Some(patch)
}

/// Fields of parts of the status of an OpenVPNServer that may be absent.
const ENDPOINT_FIELDS: &[&str] = &["host", "port", "clusterIP"];
const CERTIFICATES_FIELDS: &[&str] = &["authority", "server"];

/// Returns the patch for the status of an OpenVPNClient, without the fields that record serial numbers. `issued` is its
/// Secret and the certificate in it.
pub fn client(
    client: &ClientView,
    condition: &ReadyCondition<OpenVPNClientPhase>,
    issued: Option<(&ServerSecretView, &IssuedView)>,
    now: DateTime<Utc>,
) -> Option<Value> {
    let status = OpenVPNClientStatus {
        phase: Some(condition.phase),
        message: Some(condition.message.clone()),
        last_updated: Some(timestamp(now)),
        secret: issued.map(|(secret, _)| secret.meta.key.name.to_string()),
        certificate: issued.and_then(|(secret, _)| secret.pem.as_ref()).map(ToString::to_string),
        not_after: issued.map(|(_, issued)| timestamp(issued.not_after)),
        issued: None,
        issues: None,
        observed_generation: Some(client.meta.generation),
        conditions: Some(conditions(condition, &client.status, client.meta.generation, now)),
    };
    patch(&status, &client.status, &["secret", "certificate", "notAfter"], None)
}
