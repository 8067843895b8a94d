//! vpn-operator: hands out the slots of VPN accounts to Pods.
//!
//! The heart is pure: [`engine::Engine`] takes what happened and says what to do next. [`shell`] carries it out.

pub mod allocator;
pub mod cli;
pub mod engine;

pub mod shell;
pub mod verification;
pub mod world;

mod consumers;
mod masks;
mod providers;
mod reservations;
mod status;
