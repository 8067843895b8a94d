//! Crashes between any two writes.

use serde_json::json;
use vpn_operator::{
    controllers::{ControllerSet, table},
    model::Kind,
};

use crate::{
    explore::tail,
    oracle,
    process::separate_processes,
    run::{Crash, Sim},
    user::{PodLink, key},
};

/// A slot is assigned, used, released, and assigned to the next Mask in the queue.
fn scenario(sim: &mut Sim) -> Result<(), String> {
    sim.account("p", 1);
    sim.mask(&key("a", "m0"), json!({}));
    sim.settle()?;
    sim.pod("pod", &key("a", "m0"), PodLink::Owned);
    sim.mask(&key("a", "m1"), json!({}));
    sim.settle()?;
    sim.delete(Kind::Mask, &key("a", "m0"), "Background");
    sim.settle()?;
    oracle::at_rest(sim)?;
    if sim.phase(Kind::Mask, &key("a", "m1")) != "Active" || sim.server.of_kind(Kind::Consumer).count() != 1 {
        return Err("the waiting Mask has no slot".to_owned());
    }
    sim.stays_quiet()
}

/// A scenario that ends with a check.
pub type Scenario = fn(&mut Sim) -> Result<(), String>;

/// Runs a scenario once for each of its requests, and each way in which a process can crash during it.
pub fn crash_everywhere(roles: &[ControllerSet], scenario: Scenario) {
    for crash in CRASHES {
        for at in 0..requests(roles, scenario) {
            crash_at(roles, scenario, at, crash);
        }
    }
}

/// Runs a scenario once for each of its requests, and one of the ways in which a process can crash during it.
pub fn crash_everywhere_in_turn(roles: &[ControllerSet], scenario: Scenario) {
    for at in 0..requests(roles, scenario) {
        crash_at(roles, scenario, at, CRASHES[at % CRASHES.len()]);
    }
}

const CRASHES: [Crash; 3] = [Crash::Before, Crash::After, Crash::Late];

/// The number of requests of a scenario without a crash.
fn requests(roles: &[ControllerSet], scenario: Scenario) -> usize {
    let mut undisturbed = Sim::new(roles);
    if let Err(what) = scenario(&mut undisturbed) {
        panic!("{what}\n{}\n{what}", tail(&undisturbed.trace));
    }
    undisturbed.counts.values().sum()
}

fn crash_at(roles: &[ControllerSet], scenario: Scenario, at: usize, crash: Crash) {
    let mut sim = Sim::new(roles);
    sim.crash_at = Some((at, crash));
    if let Err(what) = scenario(&mut sim) {
        panic!("crash {crash:?} at request {at}: {what}\n{}\n{what}", tail(&sim.trace));
    }
}

#[test]
fn a_crash_at_any_request_does_not_change_the_result() {
    crash_everywhere(&[table::all()], scenario);
}

#[test]
fn a_crash_of_any_process_at_any_request_does_not_change_the_result() {
    crash_everywhere(&separate_processes(), scenario);
}
