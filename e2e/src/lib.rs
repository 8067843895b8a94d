//! A real Kubernetes control plane for the tests and the demo of vpn-operator.
//!
//! [`ControlPlane::start`] runs etcd, kube-apiserver, kube-controller-manager and
//! kube-scheduler, built from their published Go modules, on loopback ports of its
//! own; kwok plays the kubelet. Nothing outlives the process that started it,
//! however that process ends (see [`supervisor`]).
//!
//! Tests use [`shared::cluster`] and a [`Namespace`] each. [`Cluster::connect`]
//! gives the same interface over a cluster of the user's own.

pub mod at_rest;
pub mod audit;
pub mod bench;
pub mod binaries;
pub mod cargo;
pub mod chart;
pub mod cluster;
mod components;
pub mod control_plane;
pub mod faketime;
pub mod faults;
pub mod figures;
pub mod helm;
pub mod history;
pub mod identity;
pub mod image;
pub mod kubectl;
pub mod kwok;
pub mod load;
pub mod namespace;
pub mod node;
pub mod observe;
pub mod operator;
mod pki;
pub mod process;
pub mod prometheus;
pub mod shared;
pub mod supervisor;
pub mod users;
pub mod webhook;

pub use audit::{AuditLog, Filter};
pub use bench::Bench;
pub use cluster::Cluster;
pub use control_plane::{ControlPlane, Options};
pub use faults::{Fault, FaultProxy, Rule};
pub use helm::Helm;
pub use history::History;
pub use identity::Identity;
pub use namespace::Namespace;
pub use operator::{Layout, Operator, Setup};
pub use process::{Process, ProcessSpec, Signal};
pub use prometheus::Prometheus;
