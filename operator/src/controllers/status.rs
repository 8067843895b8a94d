//! The desired statuses. A status is written only when something other than its timestamps changes.
//! `lastTransitionTime` moves only when the status of the condition changes.

use chrono::{DateTime, SecondsFormat, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::Serialize;
use serde_json::{Value, json};
use vpn_types::{
    AssignedProvider, CERTIFICATES_VALID, MaskConsumerPhase, MaskConsumerStatus, MaskPhase, MaskProviderPhase,
    MaskProviderStatus, MaskProviderVerificationStatus, MaskReservationPhase, MaskReservationStatus,
    OpenVPNCertificateStatus, OpenVPNCertificatesStatus, OpenVPNClientPhase, OpenVPNClientStatus,
    OpenVPNEndpointStatus, OpenVPNServerPhase, OpenVPNServerStatus, READY, Reason, SHARED_CREDENTIALS, VERIFIED,
};

use crate::{
    controllers::{
        ready::ReadyCondition,
        verification::{Report, Verified},
    },
    model::{Meta, Uid},
    pki::Serial,
    state::{Assigned, ClientView, IssuedView, ProviderView, ServerSecretView, ServerView, StatusView, fingerprint},
};

fn conditions<P>(
    condition: &ReadyCondition<P>,
    current: &StatusView<P>,
    generation: i64,
    now: DateTime<Utc>,
) -> Vec<Condition> {
    let since = match current.ready {
        Some((ready, since)) if ready == condition.ready => since,
        _ => now,
    };
    let since = k8s_openapi::jiff::Timestamp::from_second(since.timestamp()).unwrap_or_default();
    vec![Condition {
        type_: READY.to_owned(),
        status: if condition.ready { "True" } else { "False" }.to_owned(),
        reason: condition.reason.as_str().to_owned(),
        message: condition.message.clone(),
        observed_generation: Some(generation),
        last_transition_time: Time(since),
    }]
}

fn timestamp(now: DateTime<Utc>) -> String {
    now.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Returns the patch, or `None` if the status is up to date. `cleared` are fields to remove if they are absent from
/// `status`. With `guard`, the write fails if the object has changed since.
fn patch<S: Serialize, P>(
    status: &S,
    current: &StatusView<P>,
    cleared: &[&str],
    guard: Option<&Meta>,
) -> Option<Value> {
    if fingerprint(status) == current.fingerprint {
        return None;
    }
    let mut body = serde_json::to_value(status).unwrap_or_default();
    for field in cleared {
        if body.get(field).is_none() {
            body[*field] = Value::Null;
        }
    }
    Some(match guard {
        Some(meta) => json!({"metadata": {"resourceVersion": meta.version.to_string()}, "status": body}),
        None => json!({ "status": body }),
    })
}

fn provider_field(assigned: &Assigned) -> AssignedProvider {
    AssignedProvider {
        name: assigned.provider.name.to_string(),
        namespace: assigned.provider.namespace.to_string(),
        uid: assigned.provider_uid.to_string(),
        slot: assigned.slot as usize,
        reservation: assigned.reservation.to_string(),
        secret: assigned.secret.to_string(),
    }
}

/// Returns the patch for the status of a Mask.
pub fn mask(
    meta: &Meta,
    current: &StatusView<MaskPhase>,
    condition: &ReadyCondition<MaskPhase>,
    assigned: Option<&Assigned>,
    now: DateTime<Utc>,
) -> Option<Value> {
    let status = vpn_types::MaskStatus {
        phase: Some(condition.phase),
        message: Some(condition.message.clone()),
        last_updated: Some(timestamp(now)),
        provider: assigned.map(provider_field),
        observed_generation: Some(meta.generation),
        conditions: Some(conditions(condition, current, meta.generation, now)),
    };
    patch(&status, current, &["provider"], None)
}

/// Returns the patch for the status of a MaskConsumer. It is guarded by the resourceVersion, because it commits an
/// assignment.
pub fn consumer(
    meta: &Meta,
    current: &StatusView<MaskConsumerPhase>,
    condition: &ReadyCondition<MaskConsumerPhase>,
    assigned: Option<&Assigned>,
    now: DateTime<Utc>,
) -> Option<Value> {
    let status = MaskConsumerStatus {
        phase: Some(condition.phase),
        message: Some(condition.message.clone()),
        last_updated: Some(timestamp(now)),
        provider: assigned.map(provider_field),
        withdrawn_reservation: None,
        pod: None,
        observed_generation: Some(meta.generation),
        conditions: Some(conditions(condition, current, meta.generation, now)),
    };
    let cleared: &[_] = if assigned.is_some() { &["provider", "withdrawnReservation"] } else { &["provider"] };
    patch(&status, current, cleared, Some(meta))
}

/// Returns the status of a MaskConsumer that fences `withdrawn`: a commit to that reservation that is still in flight
/// fails. This write always changes the object, and so the resourceVersion that guards the commit.
pub fn fence(
    meta: &Meta,
    current: &StatusView<MaskConsumerPhase>,
    condition: &ReadyCondition<MaskConsumerPhase>,
    withdrawn: &Uid,
    now: DateTime<Utc>,
) -> Value {
    let status = MaskConsumerStatus {
        phase: Some(condition.phase),
        message: Some(condition.message.clone()),
        last_updated: Some(timestamp(now)),
        provider: None,
        withdrawn_reservation: Some(withdrawn.to_string()),
        pod: None,
        observed_generation: Some(meta.generation),
        conditions: Some(conditions(condition, current, meta.generation, now)),
    };
    json!({"metadata": {"resourceVersion": meta.version.to_string()}, "status": status})
}

/// Returns the patch for the status of a MaskReservation, without the fields that the consumers controller writes.
pub fn reservation(
    meta: &Meta,
    current: &StatusView<MaskReservationPhase>,
    condition: &ReadyCondition<MaskReservationPhase>,
    now: DateTime<Utc>,
) -> Option<Value> {
    let status = MaskReservationStatus {
        phase: Some(condition.phase),
        message: Some(condition.message.clone()),
        last_updated: Some(timestamp(now)),
        users: None,
        hold_until: None,
        observed_generation: Some(meta.generation),
        conditions: Some(conditions(condition, current, meta.generation, now)),
    };
    patch(&status, current, &[], Some(meta))
}

/// What is known of an OpenVPN server besides its condition.
pub struct ServerFacts {
    /// What clients outside of the cluster connect to.
    pub endpoint: Option<(String, u16)>,
    /// The address of the Service.
    pub cluster_ip: Option<String>,
    /// How many replicas there are.
    pub replicas: usize,
    /// How many of them accept clients.
    pub ready: usize,
    /// The selector of the replicas.
    pub selector: String,
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
pub fn openvpn_server(
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
    all.extend(facts.authority.map(|_| Condition {
        type_: CERTIFICATES_VALID.to_owned(),
        status: if *is_valid { "True" } else { "False" }.to_owned(),
        reason: reason.as_str().to_owned(),
        message: message.clone(),
        observed_generation: Some(server.meta.generation),
        last_transition_time: Time(k8s_openapi::jiff::Timestamp::from_second(since.timestamp()).unwrap_or_default()),
    }));
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
        selector: Some(facts.selector.clone()),
        certificates: facts.generation.map(|generation| OpenVPNCertificatesStatus {
            generation: Some(generation),
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
pub fn openvpn_client(
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

/// Returns the patch for the status of a MaskProvider. `observed` is the generation whose `maxSlots` is in force.
pub fn provider(
    provider: &ProviderView,
    condition: &ReadyCondition<MaskProviderPhase>,
    report: &Report,
    shared: Option<&str>,
    active_slots: usize,
    observed: Option<i64>,
    now: DateTime<Utc>,
) -> Option<Value> {
    let (meta, current) = (&provider.meta, &provider.status);
    let mut all = conditions(condition, current, meta.generation, now);
    all.extend(report.condition.as_ref().map(|condition| verified(condition, provider, now)));
    all.extend(shared.map(|message| shared_credentials(message, provider, now)));
    let status = MaskProviderStatus {
        phase: Some(condition.phase),
        message: Some(condition.message.clone()),
        last_updated: Some(timestamp(now)),
        last_verified: report.last_verified.map(timestamp),
        verification: (report.status != MaskProviderVerificationStatus::default()).then(|| report.status.clone()),
        active_slots: Some(active_slots),
        selector: Some(format!("{}={}", vpn_types::OWNER_LABEL, meta.uid)),
        observed_generation: observed,
        assignment_generation: None,
        conditions: Some(all),
    };
    let mut patch = patch(&status, current, &[], None)?;
    if let Some(fields) = patch.pointer_mut("/status/verification").and_then(Value::as_object_mut) {
        for field in ["exitAddress", "failures", "retryAt"] {
            fields.entry(field).or_insert(Value::Null);
        }
    }
    Some(patch)
}

fn verified(condition: &Verified, provider: &ProviderView, now: DateTime<Utc>) -> Condition {
    let before = provider.verified.condition.as_ref().filter(|before| before.passed == condition.passed);
    let since = before.map_or(now, |before| before.since);
    Condition {
        type_: VERIFIED.to_owned(),
        status: match condition.passed {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        }
        .to_owned(),
        reason: condition.reason.as_str().to_owned(),
        message: condition.message.clone(),
        observed_generation: Some(provider.meta.generation),
        last_transition_time: Time(k8s_openapi::jiff::Timestamp::from_second(since.timestamp()).unwrap_or_default()),
    }
}

fn shared_credentials(message: &str, provider: &ProviderView, now: DateTime<Utc>) -> Condition {
    let since = provider.shared.as_ref().map_or(now, |stored| stored.since);
    Condition {
        type_: SHARED_CREDENTIALS.to_owned(),
        status: "True".to_owned(),
        reason: Reason::SharedCredentials.as_str().to_owned(),
        message: message.to_owned(),
        observed_generation: Some(provider.meta.generation),
        last_transition_time: Time(k8s_openapi::jiff::Timestamp::from_second(since.timestamp()).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests;
