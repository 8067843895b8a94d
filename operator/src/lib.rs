//! vpn-operator: assigns the slots of VPN accounts to Pods.
//!
//! The modules are layers, listed from the bottom to the top. None imports a layer above it.

pub mod pki;

pub mod openvpn;

pub mod issuing;

pub mod model;

pub mod state;

pub mod certificates;

pub mod gluetun;

pub mod hpa;

pub mod allocator;

pub mod capacity;

pub mod scrape;

pub mod controllers;

pub mod injection;

pub mod engine;

pub mod metrics;

pub mod metrics_api;

pub mod runtime;

pub mod cli;

pub mod process;
