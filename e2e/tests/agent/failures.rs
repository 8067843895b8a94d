//! The messages of a server that cannot start, and how it exits.

use std::{fs, os::unix::fs::PermissionsExt};

use e2e::testing::programs::eventually;
use rustix::process::Signal;

use crate::world::World;

pub fn the_reason_why_openvpn_ended_is_told() {
    let world = World::new(60, 2);
    let config = world.read("config/server.conf") + "no-such-option\n";
    fs::write(world.path("config/server.conf"), config).unwrap();
    let (status, _) = world.start_agent(&[]).end(10);
    assert_eq!(status.code(), Some(1));
    assert!(world.read("termination-log").contains("Unrecognized option"), "{}", world.read("termination-log"));
    // It ends while its sessions are drained.
    let world = World::new(60, 2);
    let mut agent = world.agent();
    let _client = world.client("laptop", 10);
    agent.signal(Signal::TERM);
    eventually("the drain begins", 5, || world.path("run/draining").exists().then_some(()));
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", agent.id())).unwrap();
    let openvpn = rustix::process::Pid::from_raw(children.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(openvpn, Signal::KILL).unwrap();
    assert_eq!(agent.end(5).0.code(), Some(128 + 9));
}

pub fn what_is_missing_is_told() {
    for (flag, value, reason) in [
        ("--forwarding-setting", "/dev/null", "ForwardingDisabled: "),
        ("--tun-device", "/proc/net/tun", "TunUnavailable: cannot create /proc/net/tun: the container needs"),
        ("--iptables", "false", "FirewallUnavailable: "),
        ("--pki-dir", "/nonexistent", "cannot read /nonexistent/ca.crt"),
        ("--config-dir", "/nonexistent", "cannot read /nonexistent/agent.json"),
        ("--openvpn", "/nonexistent", "cannot start /nonexistent"),
    ] {
        let world = World::new(60, 2);
        let (status, _) = world.start_agent(&[(flag, value)]).end(10);
        assert_eq!(status.code(), Some(1), "{flag}");
        let told = world.read("termination-log");
        assert!(told.starts_with(reason), "{flag}: {told}");
    }
}

pub fn a_server_with_a_silent_socket_ends_in_time() {
    let world = World::new(3, 2);
    let script = "#!/bin/sh\ntrap '' TERM\necho started\nwhile :; do sleep 1; done\n";
    fs::write(world.path("silent"), script).unwrap();
    fs::set_permissions(world.path("silent"), fs::Permissions::from_mode(0o755)).unwrap();
    let program = world.path("silent").display().to_string();
    let _socket = std::os::unix::net::UnixListener::bind(world.path("run/management.sock")).unwrap();
    let mut agent = world.start_agent(&[("--openvpn", &program)]);
    agent.writes("started", 10);
    world.revoke("laptop", 10);
    agent.signal(Signal::TERM);
    let (status, took) = agent.end(20);
    assert!(status.success(), "{took:?}: {}", world.read("agent.log"));
}
