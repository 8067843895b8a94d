//! The desired state of a server, from its spec and the addresses that it got.

use std::net::IpAddr;

use ipnet::Ipv4Net;
use serde_json::json;
use vpn_types::{MaskProviderVerifyOverridesSpec, OpenVPNNetworkSpec, OpenVPNServerSpec, OpenVPNServiceType};

use super::{keystore_secret::keystore, names::named, settings::Settings};
use crate::{
    model::Now,
    openvpn::{ClientNetwork, Remote, ServerConfig, check_client_lines, check_lines, network, server_config},
    state::{ClusterState, ServerView, ServiceAddresses, check_overrides},
};

pub use crate::openvpn::EXPORTER_PORT;

/// The desired state of a server.
pub struct Desired {
    /// The network of the clients.
    pub network: ClientNetwork,
    /// The port.
    pub port: u16,
    /// The networks that clients reach. Absent: any.
    pub reachable: Option<Vec<Ipv4Net>>,
    /// How many clients a replica accepts.
    pub max_clients: u32,
    /// The configuration of OpenVPN.
    pub server_config: String,
    /// The settings of the server's process and the exporter, as JSON.
    pub agent_settings: String,
    /// The image.
    pub image: String,
    /// What clients outside of the cluster connect to. Absent while it is not known.
    pub endpoint: Option<(Remote, u16)>,
    /// The address of the Service.
    pub cluster_ip: Option<IpAddr>,
    /// The address of the Service of the exporters.
    pub metrics_ip: Option<IpAddr>,
}

impl Desired {
    /// Returns the desired state of a server.
    ///
    /// # Errors
    /// Returns what is wrong with the spec, for users.
    pub fn of(state: &ClusterState, server: &ServerView, settings: &Settings, now: Now) -> Result<Self, String> {
        let spec = &*server.spec;
        let default = OpenVPNNetworkSpec::default();
        let net = spec.network.as_ref().unwrap_or(&default);
        let clients = net.clients.as_deref().unwrap_or(OpenVPNServerSpec::DEFAULT_CLIENTS);
        let clients: ClientNetwork = clients.parse().map_err(|why| format!("spec.network.clients: {why}"))?;
        let routes = routes(net.routes.as_deref()).map_err(|why| format!("spec.network.routes: {why}"))?;
        for (field, parsed) in [
            ("pki.serverDuration", spec.server_duration()),
            ("pki.clientDuration", spec.client_duration()),
            ("drain.timeout", spec.drain_timeout()),
        ] {
            let duration = parsed.map_err(|why| format!("spec.{field}: {why}"))?;
            if field.starts_with("pki") && duration < SHORTEST_LIFETIME {
                return Err(format!("spec.{field}: it has to be at least 1h"));
            }
        }
        let lines = spec.config.clone().unwrap_or_default();
        let (server_lines, client_lines) = (lines.server.unwrap_or_default(), lines.client.unwrap_or_default());
        check_lines(&server_lines).map_err(|why| format!("spec.config.server: {why}"))?;
        check_client_lines(&client_lines).map_err(|why| format!("spec.config.client: {why}"))?;
        let changes = MaskProviderVerifyOverridesSpec { containers: None, pod: spec.pod.clone() };
        check_overrides(&changes).map_err(|why| format!("spec.{why}"))?;
        let dns = net.dns.clone().unwrap_or_default();
        let dns_servers = parse_all(dns.servers).map_err(|why| format!("spec.network.dns.servers: {why}"))?;
        let search_domains =
            parse_all(dns.search_domains).map_err(|why| format!("spec.network.dns.searchDomains: {why}"))?;
        let port = spec.port();
        let max_clients = max_clients(spec, clients)?;
        let redirect_gateway = net.redirect_gateway.unwrap_or(true);
        let agent_settings = json!({
            "version": 1,
            "protocol": spec.protocol.unwrap_or_default().as_str(),
            "port": port,
            "clients": clients.net().to_string(),
            "redirectGateway": redirect_gateway,
            "routes": routes.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "drainTimeoutSeconds": spec.drain_timeout().unwrap_or(OpenVPNServerSpec::DEFAULT_DRAIN).as_secs(),
            "maxClients": max_clients,
            "individuals": spec.exporter.as_ref().and_then(|exporter| exporter.individuals).unwrap_or(true),
        });
        let reachable = (!redirect_gateway).then(|| routes.clone());
        let config = ServerConfig {
            protocol: spec.protocol.unwrap_or_default().into(),
            port,
            clients,
            redirect_gateway,
            routes,
            dns_servers,
            search_domains,
            mssfix: spec.mssfix(),
            max_clients,
            lines: server_lines,
            keystore: keystore(state, server, now).and_then(Result::ok).map(|keystore| keystore.files()),
        };
        let addresses = |key| state.services.get(&key).and_then(|service| service.addresses.as_deref());
        let own = addresses(server.meta.key.clone());
        let exporters = addresses(named(&server.meta.key, "metrics"));
        Ok(Self {
            server_config: server_config(&config),
            agent_settings: agent_settings.to_string(),
            image: spec.image.clone().unwrap_or_else(|| settings.image.clone()),
            endpoint: endpoint(state, server, own, port)?,
            cluster_ip: own.and_then(cluster_ip),
            metrics_ip: exporters.and_then(cluster_ip),
            network: clients,
            reachable,
            port,
            max_clients,
        })
    }
}

/// The minimum duration of certificates: shorter ones would be renewed all the time.
const SHORTEST_LIFETIME: std::time::Duration = std::time::Duration::from_secs(3600);

/// Parses networks that clients reach.
///
/// # Errors
/// Returns what is wrong, for users.
pub fn routes(all: Option<&[String]>) -> Result<Vec<Ipv4Net>, String> {
    all.unwrap_or_default().iter().map(|text| network(text)).collect()
}

fn parse_all<T: std::str::FromStr>(all: Option<Vec<String>>) -> Result<Vec<T>, String>
where
    T::Err: std::fmt::Display,
{
    let parsed = all.unwrap_or_default();
    parsed.iter().map(|text| text.parse().map_err(|why| format!("{text}: {why}"))).collect()
}

/// Returns how many clients a replica accepts. OpenVPN gives those without an address a session that does nothing.
fn max_clients(spec: &OpenVPNServerSpec, clients: ClientNetwork) -> Result<u32, String> {
    let capacity = clients.capacity();
    match spec.max_clients.and_then(|max| u32::try_from(max).ok()) {
        Some(max) if max > capacity => {
            Err(format!("spec.maxClients: spec.network.clients {clients} has addresses for {capacity} clients only"))
        }
        Some(max) => Ok(max),
        None => Ok(capacity.min(OpenVPNServerSpec::DEFAULT_MAX_CLIENTS.into())),
    }
}

fn port(port: Option<i32>) -> Option<u16> {
    port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
}

fn cluster_ip(addresses: &ServiceAddresses) -> Option<IpAddr> {
    addresses.cluster_ip.as_deref()?.parse().ok()
}

/// Returns what clients outside of the cluster connect to.
fn endpoint(
    state: &ClusterState,
    server: &ServerView,
    addresses: Option<&ServiceAddresses>,
    own_port: u16,
) -> Result<Option<(Remote, u16)>, String> {
    let given = server.spec.endpoint.clone().unwrap_or_default();
    let given_port = port(given.port);
    let node_port = addresses.and_then(|addresses| port(addresses.node_port));
    let type_ = server.spec.service.as_ref().and_then(|service| service.type_).unwrap_or_default();
    let default_port = if type_ == OpenVPNServiceType::NodePort { node_port } else { Some(own_port) };
    if let Some(host) = given.host.filter(|host| !host.is_empty()) {
        let remote = host.parse().map_err(|why| format!("spec.endpoint.host: {why}"))?;
        return Ok(given_port.or(default_port).map(|port| (remote, port)));
    }
    let Some(addresses) = addresses else { return Ok(None) };
    let host = match type_ {
        OpenVPNServiceType::ClusterIP => addresses.cluster_ip.clone(),
        OpenVPNServiceType::LoadBalancer => addresses.hostname.clone().or_else(|| addresses.ip.clone()),
        OpenVPNServiceType::NodePort => {
            let mut pods = state.server_pods_of(&server.meta.key).filter(|pod| pod.ready);
            pods.find_map(|pod| pod.node_address.clone())
        }
    };
    let remote = host.and_then(|host| host.parse().ok());
    Ok(remote.zip(given_port.or(default_port)))
}
