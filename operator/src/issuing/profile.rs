//! What the profile of a client says, apart from certificates and keys.
//!
//! Invariant: whoever writes a profile for a server, the operator or a Pod of the server, writes the same text.

use vpn_types::OpenVPNServerSpec;

use crate::openvpn::{Profile, Protocol, Remote};

/// What a profile says, except for certificates and keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProfileSettings {
    /// The protocol of the server.
    pub protocol: Protocol,
    /// Where the server is.
    pub remote: Remote,
    /// The port there.
    pub port: u16,
    /// The common name of the server.
    pub server_name: String,
    /// The largest packet.
    pub mssfix: u16,
    /// Further lines.
    pub lines: Vec<String>,
}

impl ProfileSettings {
    /// Returns what the profiles of a server say to clients that connect to this address.
    pub fn of(server_name: &str, spec: &OpenVPNServerSpec, remote: Remote, port: u16) -> Self {
        Self {
            protocol: spec.protocol.unwrap_or_default().into(),
            remote,
            port,
            server_name: server_name.to_owned(),
            mssfix: spec.mssfix(),
            lines: spec.config.as_ref().and_then(|config| config.client.clone()).unwrap_or_default(),
        }
    }

    /// Returns the profile. It is a secret.
    pub fn text(&self, ca: &str, tls_crypt: &str, certificate: &str, key: Option<&str>) -> String {
        let profile = Profile {
            protocol: self.protocol,
            remote: &self.remote,
            port: self.port,
            server_name: &self.server_name,
            ca,
            certificate,
            key,
            tls_crypt,
            mssfix: self.mssfix,
            lines: &self.lines,
        };
        profile.to_string()
    }
}
