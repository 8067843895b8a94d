//! Sessions of revoked clients end.

use std::{thread::sleep, time::Duration};

use rustix::process::Signal;

use crate::world::World;

pub fn a_revoked_client_is_cut_off_and_others_stay() {
    let world = World::new(0, 2);
    world.revoke("old", 5);
    let exporter = world.exporter();
    let _agent = world.agent();
    let _clients = [world.client("laptop", 10), world.client("phone", 11)];
    let before = exporter.shows_sessions(2, 10);
    world.revoke("laptop", 10);
    let after = exporter.shows_sessions(1, 8);
    assert_eq!(after, before[1..], "the other session is the same");
    exporter.shows_ended("revoked", 1.0, 5);
    // The client tries again.
    sleep(Duration::from_secs(4));
    assert_eq!(exporter.sessions(), before[1..]);
    assert!(world.read("agent.log").contains("certificate is revoked"), "{}", world.read("agent.log"));
}

pub fn a_client_that_does_not_listen_is_cut_off_as_well() {
    let world = World::new(0, 2);
    let exporter = world.exporter();
    let _agent = world.agent();
    let client = world.client("laptop", 10);
    exporter.shows_sessions(1, 10);
    client.signal(Signal::STOP);
    world.revoke("laptop", 10);
    exporter.shows_sessions(0, 4);
    client.signal(Signal::CONT);
    assert_eq!(exporter.ended("revoked"), 1.0);
}

pub fn a_client_with_a_new_certificate_comes_back() {
    let world = World::new(0, 2);
    let exporter = world.exporter();
    let _agent = world.agent();
    let _client = world.client("laptop", 10);
    exporter.shows_sessions(1, 10);
    // The old certificate, which has the same name.
    world.revoke("laptop", 9);
    exporter.shows_ended("revoked", 1.0, 8);
    sleep(Duration::from_secs(8));
    assert_eq!(exporter.sessions().len(), 1, "{}", world.read("laptop.log"));
}
