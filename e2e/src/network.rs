//! The addresses inside a cluster.

use std::net::Ipv4Addr;

/// The Service range.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";
/// The first address of the Service range: the Service `kubernetes`. The certificate of kube-apiserver includes it.
pub const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The DNS server of Pods. Nothing listens there: tests reach Services by address.
pub const CLUSTER_DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The address range of simulated Pods. These are multicast addresses, so every attempt to connect to such a Pod fails
/// on this machine.
pub const KWOK_POD_RANGE: &str = "239.244.0.0/16";
/// The Pod range of the node that runs containers.
pub const NODE_POD_RANGE: &str = "10.244.0.0/24";
