//! Settings of this installation for OpenVPN servers.

/// The image of servers, unless an OpenVPNServer names its own.
pub const SERVER_IMAGE: &str = concat!("ghcr.io/thavlik/vpn-operator-openvpn:", env!("CARGO_PKG_VERSION"));

/// Settings of this installation for OpenVPN servers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The image of servers, unless an OpenVPNServer names its own.
    pub image: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { image: SERVER_IMAGE.to_owned() }
    }
}
