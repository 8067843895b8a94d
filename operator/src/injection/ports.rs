//! The ports of a Pod: those that the firewall of gluetun lets through, and those that gluetun must not use itself.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{Container, PodSpec, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::request::Request;

/// The setting with the ports that are reachable from outside of the VPN.
const INPUT_PORTS: &str = "FIREWALL_INPUT_PORTS";
/// The ports on which gluetun listens: where the setting is, the port, and the host.
const OWN_PORTS: [(&str, u16, &str); 2] =
    [("HTTP_CONTROL_SERVER_ADDRESS", 8000, ""), ("HEALTH_SERVER_ADDRESS", 9999, "127.0.0.1")];

/// Whether a setting of gluetun depends on the other containers.
pub fn is_setting(name: &str) -> bool {
    name == INPUT_PORTS || OWN_PORTS.iter().any(|(setting, ..)| *setting == name)
}

/// Returns the settings of gluetun that depend on the other containers of a Pod.
pub fn settings(others: &PodSpec, request: &Request) -> Vec<(&'static str, String)> {
    let ports = request.input_ports.clone().map_or_else(|| ports_of(others), |ports| ports.into_iter().collect());
    let mut settings = Vec::new();
    if !ports.is_empty() {
        let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
        settings.push((INPUT_PORTS, ports.join(",")));
    }
    settings.extend(own_ports(&ports));
    settings
}

/// Moves the servers of gluetun, which starts first, away from the ports of the other containers.
fn own_ports(taken: &BTreeSet<u16>) -> impl Iterator<Item = (&'static str, String)> {
    OWN_PORTS.into_iter().filter(|(_, port, _)| taken.contains(port)).filter_map(|(setting, port, host)| {
        // The ranges of the two do not overlap.
        let free = (port..port + 1000).find(|port| !taken.contains(port))?;
        Some((setting, format!("{host}:{free}")))
    })
}

/// Returns the ports that the containers declare, and those that kubelet probes: the firewall of gluetun would drop
/// what comes from outside of the VPN.
fn ports_of(spec: &PodSpec) -> BTreeSet<u16> {
    let all = || spec.init_containers.iter().flatten().chain(&spec.containers);
    let declared = all().flat_map(|container| container.ports.iter().flatten()).map(|port| port.container_port);
    let probed = all().flat_map(probed_ports);
    declared.chain(probed).filter_map(|port| u16::try_from(port).ok()).collect()
}

fn probed_ports(container: &Container) -> Vec<i32> {
    let lifecycle = container.lifecycle.iter().flat_map(|hooks| hooks.post_start.iter().chain(&hooks.pre_stop));
    let hooks = lifecycle.filter_map(|hook| hook.http_get.as_ref().map(|get| &get.port));
    let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
    let probes: Vec<&Probe> = probes.into_iter().flatten().collect();
    let http = probes.iter().filter_map(|probe| probe.http_get.as_ref().map(|get| &get.port));
    let tcp = probes.iter().filter_map(|probe| probe.tcp_socket.as_ref().map(|socket| &socket.port));
    let grpc = probes.iter().filter_map(|probe| probe.grpc.as_ref().map(|grpc| grpc.port));
    let number = |port: &IntOrString| match port {
        IntOrString::Int(port) => Some(*port),
        // A name is that of a declared port.
        IntOrString::String(_) => None,
    };
    http.chain(tcp).chain(hooks).filter_map(number).chain(grpc).collect()
}
