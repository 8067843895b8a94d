//! The configuration of the server.
//!
//! Invariant: lines of users come last, and none of them undoes what the operator relies on: the certificates, the
//! list of revoked ones, common names, addresses, the status, and the management interface.

use std::{fmt, fmt::Write, net::Ipv4Addr, str::FromStr};

use ipnet::Ipv4Net;
use vpn_types::OpenVPNProtocol;

use super::{host::is_host_name, lines, network::ClientNetwork};

/// The ciphers that servers and clients agree on.
pub(super) const DATA_CIPHERS: &str = "AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305";

/// Options that only the operator sets. Those that end in `*` are beginnings of names.
const RESERVED: &[&str] = &[
    // Server mode, and where the server listens.
    "client",
    "connection",
    "dev",
    "dev-node",
    "dev-type",
    "local",
    "lport",
    "mode",
    "nobind",
    "port",
    "proto",
    "proto-force",
    "pull",
    "remote",
    "secret",
    "server-bridge",
    "tls-client",
    "tls-server",
    // The certificates.
    "ca",
    "capath",
    "cert",
    "key",
    "pkcs12",
    "pkcs11-*",
    "tls-auth",
    "tls-crypt",
    "tls-crypt-v2*",
    // Which clients are rejected. Sessions are ended by common name.
    "client-cert-not-required",
    "crl-verify",
    "remote-cert-*",
    "username-as-common-name",
    "verify-client-cert",
    "x509-username-field",
    // Addresses.
    "client-config-dir",
    "ifconfig",
    "ifconfig-noexec",
    "ifconfig-pool*",
    "ifconfig-push",
    "iroute",
    "max-clients",
    "server",
    "topology",
    // The files that the agent reads, and how it ends the process.
    "cd",
    "chroot",
    "config",
    "daemon",
    "group",
    "inetd",
    "log",
    "log-append",
    "management*",
    "status",
    "status-version",
    "syslog",
    "user",
];

/// The protocol of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

impl From<OpenVPNProtocol> for Protocol {
    fn from(protocol: OpenVPNProtocol) -> Self {
        match protocol {
            OpenVPNProtocol::UDP => Self::Udp,
            OpenVPNProtocol::TCP => Self::Tcp,
        }
    }
}

/// A domain that clients append to names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SearchDomain(String);

impl FromStr for SearchDomain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text} is not a domain");
        is_host_name(text).then(|| Self(text.to_owned())).ok_or_else(wrong)
    }
}

impl fmt::Display for SearchDomain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The settings of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// The protocol.
    pub protocol: Protocol,
    /// The port in the Pod.
    pub port: u16,
    /// The network of the clients.
    pub clients: ClientNetwork,
    /// Whether clients send all traffic through the tunnel.
    pub redirect_gateway: bool,
    /// The networks that clients reach through the tunnel.
    pub routes: Vec<Ipv4Net>,
    /// The DNS servers for clients.
    pub dns_servers: Vec<Ipv4Addr>,
    /// The search domains for clients.
    pub search_domains: Vec<SearchDomain>,
    /// The largest UDP packet for segments of TCP.
    pub mssfix: u16,
    /// How many clients may be connected.
    pub max_clients: u32,
    /// Further lines, which [`check_lines`] has accepted.
    pub lines: Vec<String>,
    /// Which optional files exist, if the user provides the keystore.
    pub keystore: Option<KeystoreFiles>,
}

/// Files that a user may add to the certificate, the key and the certificate authority of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeystoreFiles {
    /// Diffie-Hellman parameters.
    pub dh: bool,
    /// A list of revoked certificates.
    pub crl: bool,
    /// The key for `tls-auth`.
    pub ta: bool,
}

/// Returns the file `server.conf`.
pub fn server_config(config: &ServerConfig) -> String {
    let mut text = String::new();
    let mut line = |line: fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{line}");
    };
    let (net, pool) = (config.clients.net(), config.clients.pool(config.max_clients));
    line(format_args!("port {}", config.port));
    line(format_args!("proto {}", if config.protocol == Protocol::Udp { "udp" } else { "tcp-server" }));
    line(format_args!("dev tun0\ndev-type tun\ntopology subnet"));
    line(format_args!("server {} {} nopool", net.network(), net.netmask()));
    line(format_args!("ifconfig-pool {} {} {}", pool.first, pool.last, net.netmask()));
    line(format_args!("ca /etc/openvpn/pki/ca.crt\ncert /etc/openvpn/pki/tls.crt\nkey /etc/openvpn/pki/tls.key"));
    let files = config.keystore;
    line(format_args!("dh {}", if files.is_some_and(|it| it.dh) { "/etc/openvpn/pki/dh.pem" } else { "none" }));
    match files {
        None => line(format_args!("tls-crypt /etc/openvpn/pki/tls-crypt.key")),
        Some(KeystoreFiles { ta: true, .. }) => line(format_args!("tls-auth /etc/openvpn/pki/ta.key 0")),
        Some(_) => {}
    }
    line(format_args!("tls-version-min 1.2"));
    // Not all certificates that others issued say that they are for clients.
    if files.is_none() {
        line(format_args!("remote-cert-tls client"));
    }
    line(format_args!("data-ciphers {DATA_CIPHERS}"));
    match files {
        None => line(format_args!("crl-verify /etc/openvpn/revoked dir")),
        Some(KeystoreFiles { crl: true, .. }) => line(format_args!("crl-verify /etc/openvpn/revoked/crl.pem")),
        Some(_) => {}
    }
    line(format_args!("client-config-dir /etc/openvpn/ccd"));
    line(format_args!("keepalive 10 60\nmax-clients {}", config.max_clients));
    line(format_args!("user nobody\ngroup nogroup\npersist-key\npersist-tun"));
    line(format_args!("status /tmp/openvpn-status.log 10\nstatus-version 2"));
    line(format_args!("management /run/openvpn/management.sock unix"));
    if config.protocol == Protocol::Udp {
        line(format_args!("explicit-exit-notify 1"));
        // Saves a system call for each packet.
        line(format_args!("fast-io"));
    }
    line(format_args!("mssfix {}", config.mssfix));
    if config.redirect_gateway {
        line(format_args!("push \"redirect-gateway def1\""));
    }
    for route in &config.routes {
        line(format_args!("push \"route {} {}\"", route.network(), route.netmask()));
    }
    for server in &config.dns_servers {
        line(format_args!("push \"dhcp-option DNS {server}\""));
    }
    for domain in &config.search_domains {
        line(format_args!("push \"dhcp-option DOMAIN-SEARCH {domain}\""));
    }
    line(format_args!("verb 3"));
    for user in &config.lines {
        line(format_args!("{user}"));
    }
    text
}

/// Checks further lines for the server. Scripts and plugins are allowed: they need an image that has them.
///
/// # Errors
///
/// A message for users that names the line.
pub fn check_lines(all: &[String]) -> Result<(), String> {
    for line in lines::options(all)? {
        let is_reserved = |reserved: &str| match reserved.strip_suffix('*') {
            Some(beginning) => line.option.starts_with(beginning),
            None => line.option == reserved,
        };
        if RESERVED.iter().any(|reserved| is_reserved(reserved)) {
            let (number, option) = (line.number, &line.option);
            return Err(format!("line {number}: {option} cannot be set here, because the operator relies on it"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
