//! Draining: when a server stops, its sessions end one after the other.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::world::World;

pub fn sessions_end_in_the_last_third_and_the_pod_stays_ready() {
    let world = World::new(12, 2);
    let mut exporter = world.exporter();
    let mut agent = world.agent();
    let _clients = [world.client("laptop", 10), world.client("phone", 11)];
    let before = exporter.shows_sessions(2, 10);
    agent.signal(Signal::TERM);
    exporter.process.signal(Signal::TERM);
    let started = Instant::now();
    exporter.shows("openvpn_server_draining", 1.0, 5);
    while started.elapsed() < Duration::from_millis(6500) {
        assert_eq!(exporter.ended("drain"), 0.0, "too early: {:?}", started.elapsed());
        assert_eq!(exporter.sessions(), before);
        assert_eq!(exporter.get("/readyz").0, 200);
        sleep(Duration::from_millis(250));
    }
    exporter.shows_ended("drain", 2.0, 5);
    assert!(started.elapsed() < Duration::from_secs(12));
    let (status, _) = agent.end(10);
    assert!(status.success() && started.elapsed() < Duration::from_secs(18), "{:?}", started.elapsed());
    assert!(exporter.process.end(8).0.success());
    for name in ["laptop.log", "phone.log"] {
        assert!(world.read(name).contains("server-pushed-connection-reset"), "{}", world.read(name));
    }
    let log = world.read("agent.log");
    assert!(log.contains("process exiting"), "OpenVPN ended by itself: {log}");
}

pub fn the_drain_is_over_when_the_last_client_leaves() {
    let world = World::new(60, 2);
    let mut agent = world.agent();
    let client = world.client("laptop", 10);
    agent.signal(Signal::TERM);
    let started = Instant::now();
    sleep(Duration::from_secs(7));
    assert!(agent.ended().is_none());
    client.signal(Signal::TERM);
    assert!(agent.end(12).0.success());
    assert!(started.elapsed() > Duration::from_secs(7));
}

pub fn a_second_signal_ends_the_drain() {
    let world = World::new(60, 2);
    let mut agent = world.agent();
    let _client = world.client("laptop", 10);
    agent.signal(Signal::TERM);
    sleep(Duration::from_secs(1));
    agent.signal(Signal::TERM);
    let (status, took) = agent.end(8);
    assert!(status.success() && took < Duration::from_secs(6), "{took:?}");
}
