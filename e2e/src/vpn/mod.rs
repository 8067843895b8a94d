//! A VPN service inside the cluster, for tests and a demo with real connections.

mod client;
mod endpoints;
mod scenario;
mod service;

pub use client::{CONFIG_FILE, CREDENTIALS_DIR, client_pod, device_pod, mount};
pub use endpoints::{OTHER_USERS, PASSWORD, WIREGUARD_KEYS, wireguard_address};
pub use scenario::Scenario;
pub use service::{VpnService, node_of, pod_ready, service};
