//! vpn-operator: hands out the slots of VPN accounts to Pods.
//!
//! The modules are floors, from the ground up: none imports one above it.

pub mod model;

pub mod state;

pub mod allocator;

pub mod controllers;

pub mod engine;

pub mod metrics;

pub mod runtime;

pub mod cli;

pub mod process;
