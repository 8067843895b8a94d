//! Evaluation of a verification Pod and gluetun's log.
//!
//! Invariant: a verification passes only on an address that the probe read through the tunnel and that differs from the
//! one before. An empty or unreadable answer is never success.

use std::{net::IpAddr, time::Duration};

use chrono::{DateTime, Utc};
use serde::Deserialize;
use vpn_types::Reason;

use super::{log::Digest, settings::Settings};
use crate::state::{Exit, Stage, VerificationPod};

/// The result of a verification.
#[derive(Clone, Debug, PartialEq)]
pub enum VerificationResult {
    /// Connected, with this public address of the VPN.
    Passed(IpAddr),
    /// Failed.
    Failed {
        /// The reason.
        reason: Reason,
        /// The message, without the lines of gluetun.
        message: String,
    },
}

impl VerificationResult {
    /// Returns a failure.
    pub fn failed(reason: Reason, message: impl Into<String>) -> Self {
        VerificationResult::Failed { reason, message: message.into() }
    }
}

/// The progress of a verification.
#[derive(Clone, Debug, PartialEq)]
pub enum Evaluation {
    /// In progress. It has to be evaluated again at this time, or at the next change.
    InProgress(DateTime<Utc>),
    /// Finished.
    Finished(VerificationResult),
}

/// The state of gluetun's log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// Digest of the lines so far.
    pub digest: Digest,
    /// No more lines will come from this container.
    pub ended: bool,
    /// Why the log cannot be read.
    pub unreadable: Option<String>,
    /// Keys for a login with OpenVPN that the Secret lacks.
    pub missing: Vec<&'static str>,
}

/// How long to wait for the last lines of gluetun after it has ended, in seconds.
const LAST_LINES: i64 = 3;

/// Returns when the present stage of the Pod began, by the clock of its node or of the API server.
pub fn stage_start(pod: &VerificationPod) -> DateTime<Utc> {
    match pod.vpn {
        Stage::Running(since) => since,
        Stage::Waiting | Stage::Ended(_) => pod.meta.created,
    }
}

/// Evaluates a verification. `timeout` counts from the start of gluetun. `now` is by the clock of [`stage_start`].
pub fn evaluate(
    pod: &VerificationPod,
    log: &Log,
    timeout: Duration,
    settings: &Settings,
    now: DateTime<Utc>,
) -> Evaluation {
    if let Stage::Ended(exit) = &pod.probe
        && let Some(result) = probe_result(exit)
    {
        return Evaluation::Finished(result);
    }
    if let Some(why) = &pod.failed {
        return Evaluation::Finished(VerificationResult::failed(
            Reason::Interrupted,
            format!("The verification Pod failed: {why}"),
        ));
    }
    if let Some(result) = certain_result(log) {
        return Evaluation::Finished(result);
    }
    if let Some(exit) = pod.vpn_exit.as_ref().filter(|exit| exit.code != 0 || pod.vpn_restarts > 0) {
        if log.ended || log.unreadable.is_some() {
            return Evaluation::Finished(gluetun_exited(exit, &log.digest));
        }
        return Evaluation::InProgress(now + chrono::TimeDelta::seconds(LAST_LINES));
    }
    let limit = match pod.vpn {
        Stage::Running(_) => timeout,
        Stage::Waiting | Stage::Ended(_) => settings.scheduling_timeout,
    };
    let deadline = stage_start(pod) + chrono::TimeDelta::from_std(limit).unwrap_or(chrono::TimeDelta::MAX);
    if now < deadline {
        return Evaluation::InProgress(deadline);
    }
    Evaluation::Finished(match pod.vpn {
        Stage::Running(_) => timed_out(log, timeout),
        Stage::Waiting | Stage::Ended(_) => never_started(pod, limit),
    })
}

/// The output of the probe.
#[derive(Deserialize)]
struct Addresses {
    #[serde(default)]
    unmasked: String,
    #[serde(default)]
    address: String,
}

fn probe_result(exit: &Exit) -> Option<VerificationResult> {
    let Ok(found) = serde_json::from_str::<Addresses>(&exit.message) else {
        let message = format!("The probe exited with code {} and without a result", exit.code);
        return Some(VerificationResult::failed(Reason::Timeout, message));
    };
    let Ok(address) = found.address.trim().parse::<IpAddr>() else {
        let message = "The probe received no address from the IP address services through the tunnel";
        return Some(VerificationResult::failed(Reason::Timeout, message));
    };
    if found.unmasked.trim().parse() == Ok(address) {
        let message = format!("Connected, but the public address is {address} with and without the VPN");
        return Some(VerificationResult::failed(Reason::SameAddress, message));
    }
    Some(VerificationResult::Passed(address))
}

/// Returns a result that is certain before the timeout, because a retry would give the same one.
fn certain_result(log: &Log) -> Option<VerificationResult> {
    let seen = &log.digest;
    if seen.no_login {
        return Some(no_login(&log.missing));
    }
    if let Some(setting) = seen.missing {
        return Some(VerificationResult::failed(Reason::CredentialsRejected, format!("The Secret lacks {setting}")));
    }
    if seen.bad_passphrase {
        let message = "The passphrase of the private key is missing or wrong (OPENVPN_KEY_PASSPHRASE, which gluetun \
                       ignores with VPN_SERVICE_PROVIDER=custom)";
        return Some(VerificationResult::failed(Reason::CredentialsRejected, message));
    }
    if seen.auth_failed >= 2 {
        return Some(login_rejected(seen));
    }
    if seen.no_server {
        let message = "No server matches the settings in the Secret (SERVER_COUNTRIES, SERVER_CITIES, …)";
        return Some(VerificationResult::failed(Reason::NoServer, message));
    }
    if seen.bad_config {
        return Some(VerificationResult::failed(Reason::ConfigInvalid, "OpenVPN cannot read its configuration"));
    }
    if seen.exits >= 2 {
        return Some(exited_twice(seen));
    }
    (seen.tls_failures() >= 2)
        .then(|| handshake("The certificate of the VPN server was rejected, or the TLS handshake failed"))
}

/// Returns the result for OpenVPN without credentials.
fn no_login(missing: &[&str]) -> VerificationResult {
    let message = if missing.is_empty() {
        "OpenVPN has no credentials: neither OPENVPN_USER and OPENVPN_PASSWORD nor a client certificate".to_owned()
    } else {
        let verb = if missing.len() == 1 { "is" } else { "are" };
        format!("{} {verb} missing or empty in the Secret", missing.join(" and "))
    };
    VerificationResult::failed(Reason::CredentialsRejected, message)
}

/// Returns the result for OpenVPN that failed twice right after its start: another attempt would give the same.
fn exited_twice(seen: &Digest) -> VerificationResult {
    if seen.no_tun {
        return no_tun();
    }
    if seen.auth_failed > 0 {
        return login_rejected(seen);
    }
    if seen.unreachable > 0 || seen.tls_failures() > 0 {
        return handshake("The VPN server could not be reached or did not answer, and OpenVPN gave up");
    }
    VerificationResult::failed(
        Reason::ConfigInvalid,
        "OpenVPN cannot run with these settings: it exited with status 1 twice",
    )
}

fn login_rejected(seen: &Digest) -> VerificationResult {
    if seen.too_many_connections {
        let message = "The VPN service reports that too many devices are connected; the credentials may be valid";
        return VerificationResult::failed(Reason::DeviceLimit, message);
    }
    let message = "The VPN service rejects the user name or password (OPENVPN_USER, OPENVPN_PASSWORD)";
    VerificationResult::failed(Reason::CredentialsRejected, message)
}

fn handshake(message: &str) -> VerificationResult {
    VerificationResult::failed(Reason::NoHandshake, message)
}

fn no_tun() -> VerificationResult {
    let message = "gluetun cannot create a tunnel device: it needs NET_ADMIN and a node with /dev/net/tun";
    VerificationResult::failed(Reason::TunUnavailable, message)
}

fn gluetun_exited(exit: &Exit, seen: &Digest) -> VerificationResult {
    if seen.no_net_admin || seen.no_tun {
        return no_tun();
    }
    if &*exit.reason == "OOMKilled" {
        return VerificationResult::failed(Reason::Interrupted, "gluetun ran out of memory (OOMKilled)");
    }
    let message = format!("gluetun rejects its settings (exit code {})", exit.code);
    VerificationResult::failed(Reason::ConfigInvalid, message)
}

fn timed_out(log: &Log, timeout: Duration) -> VerificationResult {
    let seen = &log.digest;
    let secs = timeout.as_secs();
    if seen.auth_failed > 0 {
        return login_rejected(seen);
    }
    if seen.no_tun {
        return no_tun();
    }
    if seen.tunnel_up {
        let message = format!("Connected, but nothing could be reached through the tunnel within {secs} s");
        return VerificationResult::failed(Reason::Timeout, message);
    }
    if seen.tls_failures() > 0 || seen.unreachable > 0 {
        return handshake(&format!("The VPN server could not be reached or did not answer within {secs} s"));
    }
    if seen.wireguard_up {
        return handshake(&format!(
            "Nothing could be reached through the WireGuard tunnel within {secs} s; WireGuard does not report why, so \
             check WIREGUARD_PRIVATE_KEY, WIREGUARD_PRESHARED_KEY, WIREGUARD_PUBLIC_KEY, WIREGUARD_ENDPOINT_IP, \
             WIREGUARD_ENDPOINT_PORT and WIREGUARD_ADDRESSES"
        ));
    }
    let unread = log.unreadable.as_ref().map(|why| format!("; its log cannot be read: {why}")).unwrap_or_default();
    VerificationResult::failed(Reason::Timeout, format!("gluetun did not connect within {secs} s{unread}"))
}

fn never_started(pod: &VerificationPod, limit: Duration) -> VerificationResult {
    let secs = limit.as_secs();
    if let Some(why) = &pod.unscheduled {
        return VerificationResult::failed(
            Reason::Unschedulable,
            format!("The Pod was not scheduled within {secs} s: {why}"),
        );
    }
    let Some(stuck) = &pod.stuck else {
        return VerificationResult::failed(Reason::Timeout, format!("The containers did not start within {secs} s"));
    };
    let message = format!("A container did not start within {secs} s: {}: {}", stuck.reason, stuck.message);
    let of_image = ["Image", "Registry"].iter().any(|word| stuck.reason.contains(word));
    VerificationResult::failed(if of_image { Reason::Timeout } else { Reason::ConfigInvalid }, message)
}

#[cfg(test)]
mod tests;
