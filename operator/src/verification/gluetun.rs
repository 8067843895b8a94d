//! What is known of gluetun's settings, by their names in its documentation (gluetun v3.41).

use std::collections::BTreeMap;

use k8s_openapi::ByteString;

/// What OpenVPN logs in with.
const LOGIN: [&str; 2] = ["OPENVPN_USER", "OPENVPN_PASSWORD"];

/// Which of user name and password a Secret lacks, or has empty.
pub fn missing_login(secret: &BTreeMap<String, ByteString>) -> Vec<&'static str> {
    let is_there = |key: &str| secret.get(key).is_some_and(|value| !value.0.trim_ascii().is_empty());
    LOGIN.into_iter().filter(|key| !is_there(key)).collect()
}

/// Whether a setting is public by its nature: it says where, how and what, but does not let anybody in. Everything
/// unknown counts as secret.
pub fn is_public(name: &str) -> bool {
    PUBLIC.binary_search(&name).is_ok() || name.ends_with("_SECRETFILE")
}

/// In order.
const PUBLIC: [&str; 120] = [
    "BLOCK_ADS",
    "BLOCK_MALICIOUS",
    "BLOCK_SURVEILLANCE",
    "BORINGPOLL_GLUETUNCOM",
    "CITY",
    "COUNTRY",
    "DNS_ADDRESS",
    "DNS_BLOCK_IPS",
    "DNS_BLOCK_IP_PREFIXES",
    "DNS_CACHING",
    "DNS_KEEP_NAMESERVER",
    "DNS_PRIVATE_ADDRESSES",
    "DNS_REBINDING_PROTECTION_EXEMPT_HOSTNAMES",
    "DNS_SERVER",
    "DNS_UNBLOCK_HOSTNAMES",
    "DNS_UPDATE_PERIOD",
    "DNS_UPSTREAM_IPV6",
    "DNS_UPSTREAM_PLAIN_ADDRESSES",
    "DNS_UPSTREAM_RESOLVERS",
    "DNS_UPSTREAM_RESOLVER_TYPE",
    "DOT",
    "DOT_CACHING",
    "DOT_IPV6",
    "DOT_PRIVATE_ADDRESS",
    "DOT_PROVIDERS",
    "EXTRA_SUBNETS",
    "FIREWALL",
    "FIREWALL_DEBUG",
    "FIREWALL_ENABLED_DISABLING_IT_SHOOTS_YOU_IN_YOUR_FOOT",
    "FIREWALL_INPUT_PORTS",
    "FIREWALL_IPTABLES_LOG_LEVEL",
    "FIREWALL_OUTBOUND_SUBNETS",
    "FIREWALL_VPN_INPUT_PORTS",
    "FREE_ONLY",
    "HEALTH_ICMP_TARGET_IP",
    "HEALTH_ICMP_TARGET_IPS",
    "HEALTH_RESTART_VPN",
    "HEALTH_SERVER_ADDRESS",
    "HEALTH_SMALL_CHECK_TYPE",
    "HEALTH_SUCCESS_WAIT_DURATION",
    "HEALTH_TARGET_ADDRESS",
    "HEALTH_TARGET_ADDRESSES",
    "HEALTH_VPN_DURATION_ADDITION",
    "HEALTH_VPN_DURATION_INITIAL",
    "HTTPPROXY",
    "HTTPPROXY_LISTENING_ADDRESS",
    "HTTPPROXY_LOG",
    "HTTPPROXY_STEALTH",
    "HTTP_CONTROL_SERVER_ADDRESS",
    "HTTP_CONTROL_SERVER_AUTH_CONFIG_FILEPATH",
    "HTTP_CONTROL_SERVER_LOG",
    "ISP",
    "LOG_LEVEL",
    "MULTIHOP_ONLY",
    "OPENVPN_AUTH",
    "OPENVPN_CIPHERS",
    "OPENVPN_CUSTOM_CONFIG",
    "OPENVPN_ENDPOINT_IP",
    "OPENVPN_ENDPOINT_PORT",
    "OPENVPN_FLAGS",
    "OPENVPN_INTERFACE",
    "OPENVPN_MSSFIX",
    "OPENVPN_PORT",
    "OPENVPN_PROCESS_USER",
    "OPENVPN_PROTOCOL",
    "OPENVPN_ROOT",
    "OPENVPN_TARGET_IP",
    "OPENVPN_VERBOSITY",
    "OPENVPN_VERSION",
    "OWNED_ONLY",
    "PGID",
    "PORT_FORWARD_ONLY",
    "PREMIUM_ONLY",
    "PRIVATE_INTERNET_ACCESS_OPENVPN_ENCRYPTION_PRESET",
    "PUBLICIP_API",
    "PUBLICIP_ENABLED",
    "PUBLICIP_FILE",
    "PUBLICIP_PERIOD",
    "PUID",
    "REGION",
    "SECURE_CORE_ONLY",
    "SERVER_CATEGORIES",
    "SERVER_CITIES",
    "SERVER_COUNTRIES",
    "SERVER_HOSTNAMES",
    "SERVER_NAMES",
    "SERVER_NUMBER",
    "SERVER_REGIONS",
    "SHADOWSOCKS",
    "SHADOWSOCKS_CIPHER",
    "SHADOWSOCKS_LISTENING_ADDRESS",
    "SHADOWSOCKS_LOG",
    "STORAGE_FILEPATH",
    "STREAM_ONLY",
    "TOR_ONLY",
    "TZ",
    "UNBLOCK",
    "UPDATER_MIN_RATIO",
    "UPDATER_PERIOD",
    "UPDATER_VPN_SERVICE_PROVIDERS",
    "VERSION_INFORMATION",
    "VPNSP",
    "VPN_ENDPOINT_IP",
    "VPN_ENDPOINT_PORT",
    "VPN_INTERFACE",
    "VPN_PORT_FORWARDING",
    "VPN_PORT_FORWARDING_DOWN_COMMAND",
    "VPN_PORT_FORWARDING_LISTENING_PORT",
    "VPN_PORT_FORWARDING_PROVIDER",
    "VPN_PORT_FORWARDING_STATUS_FILE",
    "VPN_PORT_FORWARDING_UP_COMMAND",
    "VPN_SERVICE_PROVIDER",
    "VPN_TYPE",
    "WIREGUARD_ALLOWED_IPS",
    "WIREGUARD_ENDPOINT_IP",
    "WIREGUARD_ENDPOINT_PORT",
    "WIREGUARD_IMPLEMENTATION",
    "WIREGUARD_INTERFACE",
    "WIREGUARD_MTU",
    "WIREGUARD_PUBLIC_KEY",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_and_credentials_are_not_among_them() {
        assert!(PUBLIC.is_sorted());
        for secret in ["OPENVPN_USER", "OPENVPN_PASSWORD", "OPENVPN_KEY", "WIREGUARD_PRIVATE_KEY", "HTTPPROXY_PASSWORD"]
        {
            assert!(!is_public(secret), "{secret}");
        }
        assert!(is_public("VPN_SERVICE_PROVIDER"));
        assert!(!is_public("SOMETHING_NEW"));
    }
}
