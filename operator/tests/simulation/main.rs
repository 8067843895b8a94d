//! The engine against a simulated cluster.
//!
//! Everything between "the API server carries out a write" and "a watch tells of it" is an event of its own, in any
//! order; processes crash, answers are lost, streams start over. After every step the invariants are judged on what
//! really runs, and at rest on everything that is stored.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod crashes;
mod ends;
mod explore;
mod garbage;
mod node;
mod oracle;
mod process;
mod release;
mod run;
mod scenarios;
mod server;
mod slots;
mod user;
mod verification;
mod watch;

use explore::{Weather, explore};
use process::apart;
use vpn_operator::controllers::table;

#[test]
fn random_walks_in_fair_weather() {
    explore("fair", &[table::all()], Weather::FAIR, 60, 400);
}

#[test]
fn random_walks_in_foul_weather() {
    explore("foul", &[table::all()], Weather::FOUL, 60, 400);
}

#[test]
fn random_walks_with_four_processes() {
    explore("apart", &apart(), Weather::FOUL, 60, 400);
}

#[test]
fn random_walks_with_two_operators() {
    explore("two", &[table::all(), table::all()], Weather::FOUL, 60, 400);
}

#[test]
fn random_walks_with_crashing_containers() {
    explore("crashing", &[table::all()], Weather::CROWDED, 60, 400);
}
