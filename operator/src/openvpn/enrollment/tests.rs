#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use serde_json::{Value, json};

use super::*;

fn client(name: &str, spec: Value, status: Value) -> OpenVPNClient {
    let mut object = json!({
        "apiVersion": "vpn.beebs.dev/v1", "kind": "OpenVPNClient",
        "metadata": {"name": name, "generation": 2}, "spec": {"server": "home"}, "status": status,
    });
    object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(object).unwrap()
}

fn with_key(name: &str) -> OpenVPNClient {
    client(name, json!({"csr": "CSR"}), json!({"certificate": "CERTIFICATE"}))
}

fn new(all: &[OpenVPNClient], name: &str) -> Result<String, String> {
    match enrollment(all, "home", name, |_| false)? {
        Enrollment::Create(object) => Ok(object),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_name_of_the_object_is_valid_and_free() {
    for (name, object) in
        [("laptop", "laptop"), ("kubeVPN", "kubevpn"), ("a_b.c-", "a-b.c"), ("x.-.y", "x.y"), ("A..b", "a.b")]
    {
        assert_eq!(new(&[], name).unwrap(), object, "{name}");
    }
    let revoked = client("laptop", json!({"revoked": true}), json!({}));
    assert_eq!(new(std::slice::from_ref(&revoked), "laptop").unwrap(), "laptop-2");
    let others = [revoked, with_key("laptop-2"), with_key("laptop-3")];
    assert_eq!(new(&others, "laptop").unwrap(), "laptop-4");
    // A client of another server.
    assert_eq!(new(&[client("laptop", json!({"server": "other"}), json!({}))], "laptop").unwrap(), "laptop-2");
    for bad in ["", "../x", "a b", "UNDEF", "-", "_", &"x".repeat(65)] {
        new(&[], bad).expect_err(bad);
    }
}

#[test]
fn the_common_name_is_written_only_if_the_object_has_another_name() {
    assert_eq!(new_client("laptop", "home", "laptop", "CSR".into()).spec.common_name, None);
    assert_eq!(new_client("laptop-2", "home", "laptop", "CSR".into()).spec.common_name.unwrap(), "laptop");
}

#[test]
fn a_second_run_keeps_the_key_or_says_where_it_is() {
    let all = [with_key("laptop")];
    assert_eq!(enrollment(&all, "home", "laptop", |pem| pem == "CERTIFICATE"), Ok(Enrollment::Keep(&all[0])));
    let lost = enrollment(&all, "home", "laptop", |_| false).unwrap_err();
    assert!(lost.contains("its key is not in this Pod") && lost.contains("revoke laptop first"), "{lost}");
    let of_operator = enrollment(&[client("laptop", json!({}), json!({}))], "home", "laptop", |_| false).unwrap_err();
    assert!(of_operator.contains("kubectl get secret laptop"), "{of_operator}");
    // The device has the key, and waits for its certificate.
    let all = [client("laptop", json!({"csr": "CSR"}), json!({}))];
    assert!(enrollment(&all, "home", "laptop", |_| true).is_err());
    // Interrupted runs, before and after the certificate was issued, and after the profile was written.
    for (status, has_key) in [(json!({}), true), (json!({"certificate": "C"}), false)] {
        let mut interrupted = new_client("other", "home", "laptop", "CSR".into());
        interrupted.status = serde_json::from_value(status).unwrap();
        let all = [interrupted];
        assert_eq!(enrollment(&all, "home", "laptop", |_| has_key), Ok(Enrollment::Replace(&all[0])));
    }
    let mut written = with_key("laptop");
    written.annotations_mut().insert(ENROLLING_ANNOTATION.to_owned(), "true".to_owned());
    let all = [written];
    assert_eq!(enrollment(&all, "home", "laptop", |_| true), Ok(Enrollment::Keep(&all[0])));
}

#[test]
fn a_refusal_ends_the_wait_and_a_delay_does_not() {
    let at = |status: Value| progress(Some(&client("laptop", json!({"csr": "CSR"}), status)), "CSR");
    let issued = json!({"observedGeneration": 2, "phase": "Ready", "certificate": "C"});
    assert_eq!(at(issued.clone()), Progress::Issued("C".into()));
    // The certificate for an earlier request.
    assert!(matches!(at(json!({"observedGeneration": 1, "phase": "Ready", "certificate": "C"})), Progress::Waiting(_)));
    let failed = |reason: &str| {
        let condition = json!({
            "type": "Ready", "status": "False", "reason": reason, "message": "why",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        at(json!({"observedGeneration": 2, "phase": "Failed", "message": "why", "conditions": [condition]}))
    };
    assert_eq!(failed("NameTaken"), Progress::Refused("why".into()));
    assert_eq!(failed("RequestFailed"), Progress::Waiting("why".into()));
    assert_eq!(
        at(json!({"observedGeneration": 2, "phase": "Pending", "message": "no address"})),
        Progress::Waiting("no address".into())
    );
    let replaced = progress(Some(&client("laptop", json!({"csr": "OTHER"}), issued)), "CSR");
    assert!(matches!(replaced, Progress::Refused(why) if why.contains("replaced")));
    let revoked = client("laptop", json!({"csr": "CSR", "revoked": true}), json!({}));
    assert!(matches!(progress(Some(&revoked), "CSR"), Progress::Refused(_)));
    assert!(matches!(progress(None, "CSR"), Progress::Refused(_)));
}

#[test]
fn all_clients_of_a_name_are_revoked_but_no_slot() {
    let all = [
        client("laptop", json!({"revoked": true}), json!({"phase": "Revoked"})),
        client("laptop-2", json!({"commonName": "laptop"}), json!({})),
        client("phone", json!({}), json!({})),
    ];
    let found = revocation(&all, "home", "laptop").unwrap();
    assert_eq!(found.iter().map(|client| client.name_any()).collect::<Vec<_>>(), ["laptop", "laptop-2"]);
    assert!(is_revoked(Some(&all[0])) && !is_revoked(Some(&all[1])) && is_revoked(None));
    assert!(revocation(&all, "home", "tablet").unwrap_err().contains("no client with the name tablet"));
    assert!(revocation(&all, "other", "phone").is_err());
    let mut slot = client("home-slot-0", json!({}), json!({}));
    slot.metadata.owner_references = serde_json::from_value(json!([
        {"apiVersion": "vpn.beebs.dev/v1", "kind": "OpenVPNServer", "name": "home", "uid": "1"},
    ]))
    .unwrap();
    assert!(revocation(&[slot], "home", "home-slot-0").unwrap_err().contains("slot of MaskProvider home"));
}

#[test]
fn the_mode_of_a_load_balancer_is_no_part_of_its_address() {
    for (address, host) in [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7VIP", "203.0.113.7"),
        (" 203.0.113.7Proxy\n", "203.0.113.7"),
        ("2001:db8::7VIP", "2001:db8::7"),
        ("vpn.example.com", "vpn.example.com"),
        ("my-VIP", "my-VIP"),
    ] {
        assert_eq!(remote(address).unwrap().to_string(), host);
    }
    for bad in ["", "a b", "203.0.113.256", "x\nup /bin/sh"] {
        remote(bad).expect_err(bad);
    }
}

#[test]
fn the_port_is_that_of_the_endpoint() {
    let mut server = OpenVPNServer::new("home", Default::default());
    assert_eq!(remote_port(&server), 1194);
    server.spec.port = Some(443);
    assert_eq!(remote_port(&server), 443);
    server.status = serde_json::from_value(json!({"endpoint": {"port": 32085}})).unwrap();
    assert_eq!(remote_port(&server), 32085);
}
