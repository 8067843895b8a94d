//! The objects of OpenVPN servers, and what servers and clients report.

use k8s_openapi::ByteString;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use vpn_operator::{controllers::table, model::Kind, pki};

use crate::{
    crashes::crash_everywhere,
    run::Sim,
    servers::{CheckResult, home, replicas},
    user::key,
};

/// A server with this spec, after everything has settled.
fn settled(spec: Value) -> Sim {
    let mut sim = Sim::new(&[table::all()]);
    sim.create(Kind::Server, &home(), json!({"spec": spec}));
    sim.settle().unwrap();
    sim
}

fn service(sim: &Sim) -> Value {
    sim.server.get(Kind::Service, &home()).unwrap()["spec"].clone()
}

/// The condition `Ready` of an object.
fn ready(sim: &Sim, kind: Kind, name: &str) -> Value {
    sim.server.get(kind, &key("a", name)).unwrap()["status"]["conditions"][0].clone()
}

fn message(condition: &Value) -> &str {
    condition["message"].as_str().unwrap_or_default()
}

#[test]
fn session_affinity_depends_on_the_type_of_the_service_unless_the_user_sets_it() {
    for (given, expected) in [
        (json!({}), "ClientIP"),
        (json!({"type": "NodePort"}), "ClientIP"),
        (json!({"type": "LoadBalancer"}), "None"),
        (json!({"type": "LoadBalancer", "sessionAffinity": "ClientIP"}), "ClientIP"),
        (json!({"sessionAffinity": "None"}), "None"),
    ] {
        let sim = settled(json!({"service": given}));
        assert_eq!(service(&sim)["sessionAffinity"], expected, "{given}");
    }
}

#[test]
fn a_load_balancer_without_an_address_names_the_command_that_says_why() {
    let mut sim = settled(json!({"service": {"type": "LoadBalancer"}}));
    replicas(&mut sim, 1);
    sim.settle().unwrap();
    let condition = ready(&sim, Kind::Server, "home");
    assert_eq!(condition["reason"], "EndpointPending");
    assert!(message(&condition).contains("kubectl describe service home"), "{condition}");
}

#[test]
fn the_service_has_ipv4_addresses_only() {
    let sim = settled(json!({}));
    assert_eq!(service(&sim)["ipFamilyPolicy"], "SingleStack");
    assert_eq!(service(&sim)["ipFamilies"], json!(["IPv4"]));
}

/// The user removes `spec.replicas`, so that an autoscaler can scale the Deployment.
fn hand_over_replicas(sim: &mut Sim) -> CheckResult {
    sim.create(Kind::Server, &home(), json!({"spec": {"replicas": 3}}));
    sim.settle()?;
    sim.edit(Kind::Server, &home(), json!({"spec": {"replicas": null}}));
    sim.settle()?;
    let counts = sim.server.log.iter().filter(|event| event.kind == Kind::Deployment);
    if let Some(other) = counts.map(|event| &event.last["spec"]["replicas"]).find(|count| **count != 3) {
        return Err(format!("the Deployment had {other} replicas"));
    }
    sim.edit(Kind::Deployment, &home(), json!({"spec": {"replicas": 5}}));
    sim.settle()?;
    let deployment = sim.server.get(Kind::Deployment, &home()).unwrap();
    if deployment["spec"]["replicas"] != 5 {
        return Err(format!("the autoscaler does not decide: {deployment}"));
    }
    sim.stays_quiet()
}

#[test]
fn the_number_of_replicas_stays_when_an_autoscaler_takes_over_wherever_a_process_crashes() {
    crash_everywhere(&[table::all()], hand_over_replicas);
}

fn config_map(sim: &Sim, suffix: &str) -> Value {
    sim.server.get(Kind::ConfigMap, &key("a", &format!("home-{suffix}"))).unwrap()["data"].clone()
}

#[test]
fn a_replica_accepts_no_more_clients_than_there_are_addresses() {
    let small = |spec: Value| {
        let mut all = json!({"network": {"clients": "10.8.0.0/28"}});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        settled(all)
    };
    for spec in [json!({}), json!({"maxClients": 13})] {
        let config = config_map(&small(spec), "config");
        assert!(config["server.conf"].as_str().unwrap().contains("\nmax-clients 13\n"), "{config}");
        assert!(config["agent.json"].as_str().unwrap().contains("\"maxClients\":13"), "{config}");
    }
    let condition = ready(&small(json!({"maxClients": 14})), Kind::Server, "home");
    assert_eq!(condition["reason"], "InvalidSpec");
    assert!(message(&condition).contains("spec.maxClients") && message(&condition).contains("13"), "{condition}");
}

#[test]
fn a_network_that_contains_a_node_of_a_replica_is_told() {
    let mut sim = settled(json!({}));
    replicas(&mut sim, 1);
    sim.edit(Kind::Pod, &key("a", "replica-0"), json!({"status": {"hostIP": "10.240.7.1"}}));
    sim.settle().unwrap();
    let condition = ready(&sim, Kind::Server, "home");
    assert_eq!(condition["reason"], "NetworkOverlap", "{condition}");
    assert!(message(&condition).contains("10.240.7.1, the address of the node of Pod replica-0"), "{condition}");
}

#[test]
fn the_younger_of_two_clients_with_one_address_has_to_choose_another() {
    let mut sim = settled(json!({}));
    for name in ["phone", "laptop"] {
        sim.create(Kind::Client, &key("a", name), json!({"spec": {"server": "home", "address": "10.240.9.9"}}));
        sim.advance(2_000);
    }
    sim.settle().unwrap();
    let condition = ready(&sim, Kind::Client, "laptop");
    assert_eq!(condition["reason"], "InvalidSpec", "{condition}");
    assert!(message(&condition).contains("10.240.9.9") && message(&condition).contains("phone"), "{condition}");
    assert_eq!(config_map(&sim, "clients").as_object().unwrap().keys().collect::<Vec<_>>(), ["phone"]);
    sim.delete(Kind::Client, &key("a", "phone"), "Background");
    sim.settle().unwrap();
    assert_eq!(ready(&sim, Kind::Client, "laptop")["status"], "True");
    assert!(config_map(&sim, "clients").get("laptop").is_some());
}

#[test]
fn a_client_with_a_certificate_stays_ready_while_its_server_has_no_address() {
    let mut sim = settled(json!({"service": {"type": "LoadBalancer"}}));
    let balancer = |sim: &mut Sim, ingress: Value| {
        sim.edit(Kind::Service, &home(), json!({"status": {"loadBalancer": {"ingress": ingress}}}));
    };
    balancer(&mut sim, json!([{"ip": "203.0.113.7"}]));
    let client = |sim: &mut Sim, name| sim.create(Kind::Client, &key("a", name), json!({"spec": {"server": "home"}}));
    client(&mut sim, "laptop");
    sim.settle().unwrap();
    let before = sim.server.get(Kind::Client, &key("a", "laptop")).unwrap()["status"].clone();
    assert_eq!(before["phase"], "Ready");
    balancer(&mut sim, json!([]));
    client(&mut sim, "phone");
    sim.settle().unwrap();
    assert_eq!(ready(&sim, Kind::Client, "phone")["reason"], "ServerNotReady");
    let after = sim.server.get(Kind::Client, &key("a", "laptop")).unwrap()["status"].clone();
    assert_eq!(after, before);
    sim.stays_quiet().unwrap();
}

#[test]
fn an_authority_of_the_user_that_has_ended_is_to_be_replaced() {
    let mut sim = Sim::new(&[table::all()]);
    let now = OffsetDateTime::from_unix_timestamp(sim.server.now.timestamp()).unwrap();
    let authority = pki::Authority::new("mine", now, Duration::days(2)).unwrap();
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let data = json!({"tls.crt": bytes(authority.certificate()), "tls.key": bytes(authority.key())});
    sim.create(Kind::Secret, &key("a", "mine"), json!({"data": data}));
    sim.create(Kind::Server, &home(), json!({"spec": {"pki": {"caSecret": "mine"}}}));
    sim.settle().unwrap();
    sim.advance(3 * 24 * 3_600_000);
    sim.edit(Kind::Server, &home(), json!({"spec": {"port": 1195}}));
    sim.settle().unwrap();
    let condition = ready(&sim, Kind::Server, "home");
    assert_eq!(condition["reason"], "CertificateAuthorityInvalid", "{condition}");
    let message = message(&condition);
    assert!(
        message.contains("Secret mine of spec.pki.caSecret") && message.contains("spec.pki.generation"),
        "{message}"
    );
    assert!(!message.contains("backup"), "{message}");
}

#[test]
fn sessions_of_a_revoked_client_end_when_the_replicas_know() {
    let mut sim = settled(json!({}));
    sim.create(Kind::Client, &key("a", "laptop"), json!({"spec": {"server": "home"}}));
    sim.settle().unwrap();
    sim.edit(Kind::Client, &key("a", "laptop"), json!({"spec": {"revoked": true}}));
    sim.settle().unwrap();
    let condition = ready(&sim, Kind::Client, "laptop");
    assert_eq!(condition["reason"], "Revoked", "{condition}");
    assert!(message(&condition).contains("sessions end as soon as the replicas"), "{condition}");
}

#[test]
fn a_rolling_restart_that_is_stuck_is_told_while_replicas_serve() {
    let mut sim = settled(json!({"replicas": 2}));
    replicas(&mut sim, 1);
    let progress = |sim: &mut Sim, status: &str| {
        let condition = json!({"type": "Progressing", "status": status, "message": "ReplicaSet home-7 has timed out"});
        sim.edit(Kind::Deployment, &home(), json!({"status": {"conditions": [condition]}}));
        sim.settle().unwrap();
    };
    progress(&mut sim, "False");
    let condition = ready(&sim, Kind::Server, "home");
    assert_eq!(condition["status"], "True", "{condition}");
    assert!(message(&condition).contains("ReplicaSet home-7 has timed out"), "{condition}");
    progress(&mut sim, "True");
    let condition = ready(&sim, Kind::Server, "home");
    assert!(!message(&condition).contains("ReplicaSet"), "{condition}");
}
