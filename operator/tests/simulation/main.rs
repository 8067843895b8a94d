//! Tests the engine against a simulated cluster.
//!
//! Each request, response, watch event and action of a node or the garbage collector is a separate step, in any order.
//! Processes crash, responses are lost, and watches restart. After every step the test checks the invariants against
//! the containers that really run, and at rest against all stored objects.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod crashes;
mod deployments;
mod ends;
mod evictions;
mod explore;
mod garbage;
mod gated;
mod labeled;
mod metadata;
mod node;
mod oracle;
mod pods;
mod process;
mod release;
mod revocation;
mod rollouts;
mod rollover;
mod run;
mod scenarios;
mod server;
mod server_objects;
mod servers;
mod slots;
mod user;
mod verification;
mod views;
mod wakeups;
mod watch;

use explore::{Faults, explore};
use process::separate_processes;
use vpn_operator::controllers::table;

#[test]
fn random_walks_without_faults() {
    explore("none", &[table::all()], Faults::NONE, 60, 400);
}

#[test]
fn random_walks_with_faults() {
    explore("many", &[table::all()], Faults::ALL, 60, 400);
}

#[test]
fn random_walks_with_a_process_for_each_controller() {
    explore("split", &separate_processes(), Faults::ALL, 60, 400);
}

#[test]
fn random_walks_with_two_operators() {
    explore("two", &[table::all(), table::all()], Faults::ALL, 60, 400);
}

#[test]
fn random_walks_with_crashing_containers() {
    explore("crashing", &[table::all()], Faults::CONTENTION, 60, 400);
}
