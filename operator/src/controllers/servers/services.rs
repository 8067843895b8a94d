//! The Services of a server.

use serde_json::{Value, json};
use vpn_types::{OpenVPNServiceSpec, OpenVPNServiceType, SessionAffinity, TrafficPolicy};

use super::{
    desired::{Desired, EXPORTER_PORT},
    names::selector,
};
use crate::state::ServerView;

/// Returns the Service of the clients.
pub fn service(server: &ServerView, desired: &Desired) -> Value {
    let given = server.spec.service.clone().unwrap_or_default();
    let type_ = given.type_.unwrap_or_default();
    let is_external = type_ != OpenVPNServiceType::ClusterIP;
    let protocol = server.spec.protocol.unwrap_or_default().as_str();
    let mut port = json!({
        "name": "openvpn", "port": desired.port, "protocol": protocol, "targetPort": "openvpn",
    });
    if let Some(node_port) = given.node_port.filter(|_| is_external) {
        port["nodePort"] = json!(node_port);
    }
    let mut spec = json!({
        "type": type_.as_str(),
        "selector": selector(&server.meta.key),
        "ports": [port],
        "sessionAffinity": session_affinity(&given).as_str(),
        // The server listens on IPv4 only.
        "ipFamilyPolicy": "SingleStack",
        "ipFamilies": ["IPv4"],
    });
    if is_external {
        let policy = given.external_traffic_policy.unwrap_or(TrafficPolicy::Local);
        spec["externalTrafficPolicy"] = json!(policy.as_str());
    }
    if let Some(ranges) = given.load_balancer_source_ranges.filter(|_| type_ == OpenVPNServiceType::LoadBalancer) {
        spec["loadBalancerSourceRanges"] = json!(ranges);
    }
    let metadata = json!({"labels": selector(&server.meta.key), "annotations": given.annotations.unwrap_or_default()});
    json!({"metadata": metadata, "spec": spec})
}

fn session_affinity(service: &OpenVPNServiceSpec) -> SessionAffinity {
    service.session_affinity.unwrap_or(match service.type_.unwrap_or_default() {
        // The controllers of some clouds create no load balancer for a Service with ClientIP.
        OpenVPNServiceType::LoadBalancer => SessionAffinity::None,
        // A NAT may change the source port of a client, which is to stay on its replica.
        OpenVPNServiceType::ClusterIP | OpenVPNServiceType::NodePort => SessionAffinity::ClientIP,
    })
}

/// Returns the Service of the exporters. It must not have the labels of the other one.
pub fn metrics_service(server: &ServerView) -> Value {
    json!({
        "spec": {
            "selector": selector(&server.meta.key),
            "ports": [{"name": "metrics", "port": EXPORTER_PORT, "protocol": "TCP", "targetPort": "metrics"}],
        },
    })
}
