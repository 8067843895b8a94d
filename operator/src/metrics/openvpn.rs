//! Gauges of OpenVPN servers.

use chrono::{DateTime, Utc};
use prometheus::{IntGaugeVec, Opts, core::Collector, proto::MetricFamily};

use super::Snapshot;

/// Returns the gauges of OpenVPN servers.
pub fn families(prefix: &str, snapshot: &Snapshot, now: DateTime<Utc>) -> prometheus::Result<Vec<MetricFamily>> {
    const SERVER: [&str; 2] = ["namespace", "server"];
    const CERTIFICATE: [&str; 4] = ["namespace", "server", "kind", "name"];
    let gauges = |name: &str, help: &str, labels: &[&str]| {
        IntGaugeVec::new(Opts::new(format!("openvpn_{name}"), help).namespace(prefix), labels)
    };
    let replicas = gauges(
        "server_replicas",
        "Replicas of the OpenVPNServer (spec.replicas), or those that there are if something else scales it.",
        &SERVER,
    )?;
    let ready = gauges("server_ready_replicas", "Replicas of the OpenVPNServer that accept clients.", &SERVER)?;
    let clients = gauges(
        "clients",
        "OpenVPNClients of the OpenVPNServer by the state of their certificate: valid, expired or revoked.",
        &["namespace", "server", "state"],
    )?;
    let ends = gauges(
        "certificate_expiration_timestamp_seconds",
        "When the certificate ends, in seconds since 1970. The kind is ca, server or client.",
        &CERTIFICATE,
    )?;
    let renewals = gauges(
        "certificate_renewal_timestamp_seconds",
        "When the operator renews the certificate, in seconds since 1970. Absent if it has no key for it.",
        &CERTIFICATE,
    )?;
    for (key, summary) in &snapshot.servers {
        let server = [&*key.namespace, &*key.name];
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        replicas.get_metric_with_label_values(&server)?.set(count(summary.replicas));
        ready.get_metric_with_label_values(&server)?.set(count(summary.ready));
        let of_clients = || summary.certificates.iter().filter(|certificate| certificate.kind == "client");
        let valid = of_clients().filter(|certificate| certificate.not_after > now).count();
        let expired = of_clients().count() - valid;
        for (state, number) in [("valid", valid), ("expired", expired), ("revoked", summary.revoked)] {
            clients.get_metric_with_label_values(&[server[0], server[1], state])?.set(count(number));
        }
        for certificate in &summary.certificates {
            let labels = [server[0], server[1], certificate.kind, &*certificate.name];
            ends.get_metric_with_label_values(&labels)?.set(certificate.not_after.timestamp());
            if let Some(renewal) = certificate.renewal {
                renewals.get_metric_with_label_values(&labels)?.set(renewal.timestamp());
            }
        }
    }
    let all = [replicas, ready, clients, ends, renewals].into_iter().flat_map(|gauges| gauges.collect());
    // A family without series cannot be encoded.
    Ok(all.filter(|family| !family.get_metric().is_empty()).collect())
}
