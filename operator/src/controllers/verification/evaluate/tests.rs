use chrono::TimeDelta;

use super::*;
use crate::{
    model::{Meta, ObjectKey, Uid},
    state::Stuck,
};

const TIMEOUT: Duration = Duration::from_secs(60);

fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
}

fn pod() -> VerificationPod {
    VerificationPod {
        meta: Meta {
            key: ObjectKey::new("vpn", "p-verify"),
            uid: Uid::from("u"),
            version: 1,
            generation: 1,
            created: start(),
            deleting: false,
            finalizer: None,
            finalizers: 0,
            foreground: false,
            foreign: false,
        },
        consumer: Some(Uid::from("c")),
        unscheduled: None,
        failed: None,
        vpn: Stage::Running(start()),
        vpn_restarts: 0,
        vpn_exit: None,
        probe: Stage::Waiting,
        stuck: None,
    }
}

fn exit(code: i32, message: &str) -> Exit {
    Exit { code, reason: "Completed".into(), message: message.into() }
}

fn log(lines: &[&str]) -> Log {
    let mut log = Log::default();
    lines.iter().for_each(|line| log.digest.push(line));
    log
}

fn reason(evaluation: Evaluation) -> Option<Reason> {
    match evaluation {
        Evaluation::Finished(VerificationResult::Failed { reason, .. }) => Some(reason),
        Evaluation::Finished(VerificationResult::Passed(_)) => Some(Reason::Passed),
        Evaluation::InProgress(_) => None,
    }
}

fn after(pod: &VerificationPod, log: &Log, seconds: i64) -> Option<Reason> {
    reason(evaluate(pod, log, TIMEOUT, &Settings::default(), start() + TimeDelta::seconds(seconds)))
}

#[test]
fn only_another_address_passes() {
    for (message, expected) in [
        (r#"{"unmasked":"192.0.2.1","address":"198.51.100.7"}"#, Reason::Passed),
        (r#"{"unmasked":"","address":"198.51.100.7"}"#, Reason::Passed),
        (r#"{"unmasked":"2001:db8::1","address":"2001:db8:0::1"}"#, Reason::SameAddress),
        (r#"{"unmasked":"192.0.2.1","address":"192.0.2.1"}"#, Reason::SameAddress),
        (r#"{"unmasked":"192.0.2.1","address":""}"#, Reason::Timeout),
        (r#"{"unmasked":"192.0.2.1","address":"blocked"}"#, Reason::Timeout),
        (r#"{"unmasked":"192.0.2.1"}"#, Reason::Timeout),
        ("", Reason::Timeout),
    ] {
        for code in [0, 1] {
            let pod = VerificationPod { probe: Stage::Ended(exit(code, message)), ..pod() };
            assert_eq!(after(&pod, &Log::default(), 1), Some(expected), "{message}");
        }
    }
}

#[test]
fn the_log_decides_the_result() {
    const AUTH: &str = "ERROR [openvpn] AUTH: Received control message: AUTH_FAILED";
    const LIMIT: &str = "ERROR [openvpn] AUTH: Received control message: AUTH_FAILED,[TOO_MANY_CONNECTIONS]";
    const REFUSED: &str = "INFO [openvpn] read UDPv4 [ECONNREFUSED]: Connection refused (fd=3,code=111)";
    const HANDSHAKE: &str = "INFO [openvpn] TLS Error: TLS handshake failed";
    const VERIFY: &str = "INFO [openvpn] VERIFY ERROR: depth=1, error=self-signed certificate";
    const NONE: &str = "ERROR [vpn] finding a valid server connection: filtering servers: no server found";
    const OPTION: &str = "ERROR [openvpn] Unrecognized option or missing or extra parameter(s) in x.conf:1: foo";
    const WIREGUARD: &str = "INFO [wireguard] Wireguard setup is complete. Note Wireguard is a silent protocol";
    const UP: &str = "INFO [openvpn] Initialization Sequence Completed";
    for (lines, early, late) in [
        (&[AUTH][..], None, Reason::CredentialsRejected),
        (&[AUTH, AUTH], Some(Reason::CredentialsRejected), Reason::CredentialsRejected),
        (&[LIMIT, LIMIT], Some(Reason::DeviceLimit), Reason::DeviceLimit),
        (&[NONE], Some(Reason::NoServer), Reason::NoServer),
        (&[OPTION], Some(Reason::ConfigInvalid), Reason::ConfigInvalid),
        (&[VERIFY, VERIFY], Some(Reason::NoHandshake), Reason::NoHandshake),
        // Both are of one attempt, and gluetun goes on with another server.
        (&[VERIFY, HANDSHAKE], None, Reason::NoHandshake),
        (&[VERIFY, HANDSHAKE, VERIFY, HANDSHAKE], Some(Reason::NoHandshake), Reason::NoHandshake),
        (&[REFUSED, REFUSED, REFUSED], None, Reason::NoHandshake),
        (&[WIREGUARD], None, Reason::NoHandshake),
        (&[UP], None, Reason::Timeout),
        (&[], None, Reason::Timeout),
    ] {
        let log = log(lines);
        assert_eq!(after(&pod(), &log, 1), early, "{lines:?}");
        assert_eq!(after(&pod(), &log, 60), Some(late), "{lines:?}");
    }
}

#[test]
fn an_exit_waits_for_the_last_lines() {
    let pod = VerificationPod { vpn: Stage::Ended(exit(1, "")), vpn_exit: Some(exit(1, "")), ..pod() };
    let mut log = log(&["ERROR NET_ADMIN capability is missing: …"]);
    assert_eq!(after(&pod, &log, 1), None);
    log.ended = true;
    assert_eq!(after(&pod, &log, 1), Some(Reason::TunUnavailable));
    let settings = Log { ended: true, ..Log::default() };
    assert_eq!(after(&pod, &settings, 1), Some(Reason::ConfigInvalid));
}

#[test]
fn a_pod_that_does_not_start_has_its_own_timeout() {
    let waiting = VerificationPod { vpn: Stage::Waiting, ..pod() };
    let unscheduled = VerificationPod { unscheduled: Some("0/1 nodes".into()), ..waiting.clone() };
    let image = Stuck { reason: "ImagePullBackOff".into(), message: "x".into() };
    let config = Stuck { reason: "CreateContainerConfigError".into(), message: "x".into() };
    for (pod, expected) in [
        (waiting.clone(), Reason::Timeout),
        (unscheduled, Reason::Unschedulable),
        (VerificationPod { stuck: Some(image), ..waiting.clone() }, Reason::Timeout),
        (VerificationPod { stuck: Some(config), ..waiting }, Reason::ConfigInvalid),
    ] {
        assert_eq!(after(&pod, &Log::default(), 299), None);
        assert_eq!(after(&pod, &Log::default(), 300), Some(expected));
    }
}

fn log_of(lines: &[&str]) -> Log {
    let mut log = Log::default();
    lines.iter().for_each(|line| log.digest.push(line));
    log
}

fn reason_of(log: &Log) -> Option<(Reason, String)> {
    match evaluate(&pod(), log, TIMEOUT, &Settings::default(), start()) {
        Evaluation::Finished(VerificationResult::Failed { reason, message }) => Some((reason, message)),
        _ => None,
    }
}

#[test]
fn a_missing_login_is_reported_at_once_with_its_keys() {
    let mut log = log_of(&[
        "ERROR [openvpn] No client-side authentication method is specified.  You must use either --cert/--key",
    ]);
    log.missing = vec!["OPENVPN_USER", "OPENVPN_PASSWORD"];
    let (reason, message) = reason_of(&log).expect("a result");
    assert_eq!(reason, Reason::CredentialsRejected);
    assert!(message.contains("OPENVPN_USER and OPENVPN_PASSWORD"), "{message}");
    let log = log_of(&["ERROR VPN settings: Wireguard settings: private key is not set"]);
    assert_eq!(reason_of(&log).map(|(reason, _)| reason), Some(Reason::CredentialsRejected));
}

#[test]
fn openvpn_that_exits_twice_fails_before_the_timeout() {
    let once = ["INFO [openvpn] Cipher X not supported", "ERROR [vpn] exit status 1"];
    assert_eq!(reason_of(&log_of(&once)), None);
    let twice = [once, once].concat();
    assert_eq!(reason_of(&log_of(&twice)).map(|(reason, _)| reason), Some(Reason::ConfigInvalid));
    let refused = ["INFO [openvpn] TCP: connect failed: Connection refused", "ERROR [vpn] exit status 1"];
    let twice = [refused, refused].concat();
    assert_eq!(reason_of(&log_of(&twice)).map(|(reason, _)| reason), Some(Reason::NoHandshake));
}
