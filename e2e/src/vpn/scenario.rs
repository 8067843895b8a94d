//! Credentials of a VPN account: those that work, and those that are wrong in one way each.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::{
    client::{CONFIG_FILE, CREDENTIALS_DIR},
    endpoints::{Endpoints, LIMITED_USER, PASSWORD, USER, WIREGUARD_KEYS, wireguard_address},
};

/// An address in the Pod range that no Pod has: the highest addresses are assigned last.
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 253);

/// Credentials that work, or that do not work for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// OpenVPN over UDP; works.
    OpenVpn,
    /// OpenVPN over TCP; works.
    OpenVpnTcp,
    /// WireGuard with the key of this index below [`WIREGUARD_KEYS`](super::WIREGUARD_KEYS); works.
    WireGuard(usize),
    /// OpenVPN, without the variable that names the path of the configuration; works with a VPN client of the operator.
    OpenVpnFile,
    /// WireGuard with the last key, with all settings in the file `wg0.conf`; works with a VPN client of the operator.
    WireGuardFile,
    /// The server refuses the password.
    WrongPassword,
    /// User name and password are empty.
    NoLogin,
    /// The certificate of the server is not signed by the authority in the configuration.
    WrongCa,
    /// Nothing listens on the port, and the host of the server reports that.
    ClosedPort,
    /// The same, over TCP.
    ClosedTcpPort,
    /// There is no such host.
    NoHost,
    /// The server drops all packets. OpenVPN gives up after 60 s.
    SilentDrop,
    /// Works until [`VpnService::take_the_only_connection`](super::VpnService::take_the_only_connection) takes the only
    /// connection of the account.
    TooManyConnections,
    /// The tunnel works, but leads nowhere.
    NothingBehind,
    /// The file has an option that OpenVPN does not know.
    UnknownOption,
    /// The configuration has a host name instead of an address. gluetun rejects it.
    HostName,
    /// The configuration is not in the Secret.
    NoConfig,
    /// The private key is not a valid key.
    InvalidKey,
    /// The server does not know the private key.
    WrongKey,
    /// The server does not use a preshared key.
    WrongPresharedKey,
    /// Nothing listens on the port. WireGuard does not notice that.
    WrongWireGuardPort,
    /// The provider has no server in the requested country.
    NoServer,
    /// gluetun does not know the provider.
    UnknownProvider,
}

impl Scenario {
    pub(super) fn credentials(self, vpn: &Endpoints) -> BTreeMap<String, String> {
        let mut data = BTreeMap::new();
        let mut set = |name: &str, value: &str| drop(data.insert(name.to_owned(), value.to_owned()));
        // There is no Internet, so gluetun uses these servers instead.
        set("HEALTH_TARGET_ADDRESSES", &format!("{}:8080", vpn.address));
        set("PUBLICIP_API", &format!("echoip#{}", vpn.address_url()));
        set("DNS_SERVER", "off");
        set("VERSION_INFORMATION", "off");
        set("VPN_SERVICE_PROVIDER", "custom");
        match self {
            Self::WireGuard(_)
            | Self::InvalidKey
            | Self::WrongKey
            | Self::WrongPresharedKey
            | Self::WrongWireGuardPort => self.wireguard(vpn, set),
            Self::NoServer => {
                set("VPN_SERVICE_PROVIDER", "nordvpn");
                set("SERVER_COUNTRIES", "Atlantis");
                set("OPENVPN_USER", USER);
                set("OPENVPN_PASSWORD", PASSWORD);
            }
            Self::WireGuardFile => {
                let index = WIREGUARD_KEYS - 1;
                set("VPN_TYPE", "wireguard");
                let file = format!(
                    "[Interface]\nPrivateKey = {}\nAddress = {}/32\n\n[Peer]\nPublicKey = {}\nAllowedIPs = 0.0.0.0/0\n\
                     Endpoint = {}:51820\n",
                    vpn.keys[index].private,
                    wireguard_address(index),
                    vpn.server_key.public,
                    vpn.server
                );
                set("wg0.conf", &file);
            }
            Self::UnknownProvider => set("VPN_SERVICE_PROVIDER", "no-such-provider"),
            _ => self.openvpn(vpn, set),
        }
        data
    }

    fn wireguard(self, vpn: &Endpoints, mut set: impl FnMut(&str, &str)) {
        let index = if let Self::WireGuard(index) = self { index } else { 0 };
        let private = match self {
            Self::InvalidKey => "not-a-key",
            // The server does not accept its own key from a client.
            Self::WrongKey => &vpn.server_key.private,
            _ => &vpn.keys[index].private,
        };
        set("VPN_TYPE", "wireguard");
        set("WIREGUARD_PRIVATE_KEY", private);
        set("WIREGUARD_PUBLIC_KEY", &vpn.server_key.public);
        set("WIREGUARD_ADDRESSES", &format!("{}/32", wireguard_address(index)));
        set("WIREGUARD_ENDPOINT_IP", &vpn.server.to_string());
        set("WIREGUARD_ENDPOINT_PORT", if self == Self::WrongWireGuardPort { "51821" } else { "51820" });
        if self == Self::WrongPresharedKey {
            set("WIREGUARD_PRESHARED_KEY", &vpn.keys[0].public);
        }
    }

    fn openvpn(self, vpn: &Endpoints, mut set: impl FnMut(&str, &str)) {
        let exit = vpn.exit_address();
        let (host, port, protocol) = match self {
            Self::OpenVpnTcp => (vpn.server.to_string(), 1194, "tcp"),
            Self::ClosedPort => (exit.to_string(), 1200, "udp"),
            Self::ClosedTcpPort => (exit.to_string(), 1200, "tcp"),
            Self::NoHost => (NOBODY.to_string(), 1194, "udp"),
            Self::SilentDrop => (vpn.silent.to_string(), 1194, "udp"),
            Self::NothingBehind => (vpn.server.to_string(), 1195, "udp"),
            Self::HostName => ("vpn.example.com".into(), 1194, "udp"),
            _ => (vpn.server.to_string(), 1194, "udp"),
        };
        let authority = if self == Self::WrongCa { &vpn.other_authority } else { &vpn.authority };
        let more = if self == Self::UnknownOption { "no-such-option 1\n" } else { "" };
        let config = format!(
            "client\ndev tun\nproto {protocol}\nremote {host} {port}\nnobind\nremote-cert-tls server\n{more}\
             <ca>\n{authority}</ca>\n"
        );
        if self != Self::NoConfig {
            set(CONFIG_FILE, &config);
        }
        if self != Self::OpenVpnFile {
            set("OPENVPN_CUSTOM_CONFIG", &format!("{CREDENTIALS_DIR}/{CONFIG_FILE}"));
        }
        let (user, password) = match self {
            Self::TooManyConnections => (LIMITED_USER, PASSWORD),
            Self::WrongPassword => (USER, "a-wrong-password"),
            Self::NoLogin => ("", ""),
            _ => (USER, PASSWORD),
        };
        set("OPENVPN_USER", user);
        set("OPENVPN_PASSWORD", password);
    }
}
