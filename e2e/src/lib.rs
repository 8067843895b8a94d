//! A real Kubernetes control plane for the tests and the demo of vpn-operator.
//!
//! [`ControlPlane::start`] runs etcd, kube-apiserver, kube-controller-manager and kube-scheduler, built from their
//! published Go modules, on loopback ports. kwok simulates the kubelet. Nothing outlives the process that started it,
//! however that process ends (see [`process`]).
//!
//! Tests use [`shared::cluster`](cluster::shared::cluster), and each test has a [`Namespace`]. [`Cluster::connect`] has
//! the same interface for a cluster that the user has.
//!
//! A module imports only from the floors below its own, which `tests/floors` checks. From the bottom up:
//!
//! | floor | modules |
//! |---|---|
//! | the machine, addresses in the cluster, waits on watches | [`host`], [`network`], [`wait`] |
//! | kubeconfigs and certificates, Pods, the operator's image | [`auth`], [`pods`], [`operator_image`] |
//! | supervised processes, the audit log | [`process`], [`audit`] |
//! | third-party programs, faults between client and server, a recording of watches | [`tools`], [`faults`], [`history`] |
//! | a node that runs containers | [`node`] |
//! | etcd, the API server, controllers, scheduler, kwok; the image of OpenVPN servers | [`control_plane`], [`servers_image`] |
//! | that control plane, or the user's cluster | [`cluster`] |
//! | the operator under test | [`operator`] |
//! | helpers of the tests | [`testing`] |
//! | a VPN service in the cluster | [`vpn`] |

pub mod audit;
pub mod auth;
pub mod cluster;
pub mod control_plane;
pub mod faults;
pub mod history;
pub mod host;
pub mod network;
pub mod node;
pub mod operator;
pub mod operator_image;
pub mod pods;
pub mod process;
pub mod servers_image;
pub mod testing;
pub mod tools;
pub mod vpn;
pub mod wait;

pub use audit::{AuditLog, Filter};
pub use auth::Identity;
pub use cluster::{Cluster, Namespace};
pub use control_plane::{ControlPlane, ControlPlaneOptions};
pub use faults::{Fault, FaultProxy, Rule};
pub use history::History;
pub use operator::{Layout, Operator, OperatorOptions};
pub use process::{Process, ProcessSpec, Signal};
pub use testing::{Framework, prometheus::Prometheus};
pub use tools::Helm;
pub use vpn::VpnService;
