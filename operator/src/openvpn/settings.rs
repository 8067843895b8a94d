//! The settings of the agent in a Pod with an OpenVPN server.
//!
//! The operator writes them to a ConfigMap as JSON, and the agent may be older than the operator: fields that it does
//! not know are ignored, and fields are only ever added.

use std::{net::Ipv4Addr, time::Duration};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// The name of the file, in the directory of the configuration.
pub const SETTINGS_FILE: &str = "agent.json";
/// The version of the format.
pub const SETTINGS_VERSION: u32 = 1;
/// The port of the exporter.
pub const EXPORTER_PORT: u16 = 9176;

/// The protocol between clients and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TunnelProtocol {
    /// Over UDP.
    Udp,
    /// Over TCP.
    Tcp,
}

/// The settings of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentSettings {
    /// The version of the format.
    pub version: u32,
    /// The protocol between clients and the server.
    pub protocol: TunnelProtocol,
    /// The port of the server.
    pub port: u16,
    /// The network of the clients' addresses in the tunnel.
    pub clients: Ipv4Net,
    /// Whether clients send everything through the tunnel.
    #[serde(default)]
    pub redirect_gateway: bool,
    /// The networks that clients reach through the tunnel.
    #[serde(default)]
    pub routes: Vec<Ipv4Net>,
    /// How long sessions may go on when the Pod ends.
    pub drain_timeout_seconds: u64,
    /// The largest number of clients.
    pub max_clients: u32,
    /// Whether the exporter shows names and addresses of clients.
    #[serde(default = "individuals")]
    pub individuals: bool,
}

const fn individuals() -> bool {
    true
}

impl AgentSettings {
    /// Parses the file.
    ///
    /// # Errors
    /// If it is not JSON, or if a field is missing or has another type.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// Returns the server's own address in the tunnel, which is the first of the network.
    pub fn gateway(&self) -> Ipv4Addr {
        self.clients.hosts().next().unwrap_or_else(|| self.clients.addr())
    }

    /// Returns how long sessions may go on when the Pod ends.
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_timeout_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"version":1,"protocol":"UDP","port":1194,"clients":"10.240.0.0/16","redirectGateway":true,
        "routes":["10.96.0.0/12"],"drainTimeoutSeconds":300,"maxClients":128,"individuals":true}"#;

    #[test]
    fn what_the_operator_writes_is_read() {
        let settings = AgentSettings::parse(TEXT).expect("valid");
        assert_eq!(settings.gateway(), Ipv4Addr::new(10, 240, 0, 1));
        assert_eq!(settings.drain_timeout(), Duration::from_secs(300));
        assert_eq!(settings.protocol, TunnelProtocol::Udp);
        let written = serde_json::to_string(&settings).expect("JSON");
        assert_eq!(AgentSettings::parse(&written).expect("valid"), settings);
        assert_eq!(written.split_whitespace().collect::<String>(), TEXT.split_whitespace().collect::<String>());
    }

    #[test]
    fn an_older_agent_reads_newer_settings() {
        let newer = TEXT.replace("\"version\":1", "\"version\":2,\"something\":{\"new\":[]}");
        assert_eq!(AgentSettings::parse(&newer).expect("valid").max_clients, 128);
    }

    #[test]
    fn settings_without_a_client_network_are_refused() {
        assert!(AgentSettings::parse(&TEXT.replace("10.240.0.0/16", "")).is_err());
        assert!(AgentSettings::parse(&TEXT.replace("clients", "other")).is_err());
    }
}
