//! The metrics and sessions that the exporter shows for a real server.

use std::{fs, os::unix::fs::PermissionsExt};

use e2e::testing::programs::eventually;

use crate::world::World;

pub fn clients_of_a_real_server_are_shown() {
    let world = World::new(0, 2);
    let exporter = world.exporter();
    assert_eq!(exporter.get("/healthz"), (200, "ok\n".into()));
    assert_eq!(exporter.get("/readyz").0, 503, "before OpenVPN starts");
    assert_eq!(exporter.value("openvpn_up"), Some(0.0));
    let _agent = world.agent();
    eventually("the exporter is ready", 10, || (exporter.get("/readyz").0 == 200).then_some(()));
    let hostile = "a, \"b\" \\ é; x";
    let _clients = [world.client("laptop", 10), world.client(hostile, 11)];
    exporter.shows_sessions(2, 10);
    for (name, value) in [
        ("openvpn_up", 1.0),
        ("openvpn_server_connected_clients", 2.0),
        ("openvpn_openvpn_server_connected_clients", 2.0),
        ("openvpn_server_pending_clients", 0.0),
        ("openvpn_server_max_clients", 128.0),
        ("openvpn_server_draining", 0.0),
    ] {
        assert_eq!(exporter.value(name), Some(value), "{name}");
    }
    assert_eq!(exporter.ended("revoked"), 0.0);
    let (_, text) = exporter.get("/metrics");
    let shown = r#"common_name="a, \"b\" \\ é; x""#;
    assert_eq!(text.lines().filter(|line| line.contains(shown)).count(), 3, "{text}");
    assert_eq!(exporter.sessions()[0].0, hostile);
    assert_eq!(exporter.get("/address"), (200, "127.0.0.1\n".into()));
    let log = world.read("agent.log");
    assert!(!log.contains("MANAGEMENT: C") && log.contains("MANAGEMENT: unix domain socket listening"), "{log}");
}

pub fn the_exporter_reads_each_version_of_the_status_file() {
    for version in 1..=3 {
        let world = World::new(0, version);
        let _agent = world.agent();
        let _client = world.client("laptop", 10);
        let path = world.path("status.log");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644, "others read it");
        let exporter = world.exporter_with(&format!("-openvpn.status_paths {}", path.display()));
        exporter.shows("openvpn_server_connected_clients", 1.0, 10);
        assert!(exporter.value("openvpn_server_client_received_bytes_total") > Some(1000.0), "version {version}");
        assert!(exporter.get("/metrics").1.contains("virtual_address=\"10.240.0.2\""), "version {version}");
        assert_eq!(exporter.get("/readyz").0, 200);
    }
}
