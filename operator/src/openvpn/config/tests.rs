#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use super::*;

fn config() -> ServerConfig {
    ServerConfig {
        protocol: Protocol::Udp,
        port: 1194,
        clients: "10.240.0.0/16".parse().unwrap(),
        redirect_gateway: true,
        routes: vec!["10.96.0.0/12".parse().unwrap()],
        dns_servers: vec![Ipv4Addr::new(10, 96, 0, 10)],
        search_domains: vec!["cluster.local".parse().unwrap()],
        mssfix: 1360,
        max_clients: 128,
        lines: vec!["verb 4".to_owned()],
        keystore: None,
    }
}

fn check(line: &str) -> Result<(), String> {
    check_lines(&[line.to_owned()])
}

#[test]
fn the_file_has_all_that_was_asked_for() {
    let expected = "\
port 1194
proto udp
dev tun0
dev-type tun
topology subnet
server 10.240.0.0 255.255.0.0 nopool
ifconfig-pool 10.240.0.2 10.240.1.1 255.255.0.0
ca /etc/openvpn/pki/ca.crt
cert /etc/openvpn/pki/tls.crt
key /etc/openvpn/pki/tls.key
dh none
tls-crypt /etc/openvpn/pki/tls-crypt.key
tls-version-min 1.2
remote-cert-tls client
data-ciphers AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305
crl-verify /etc/openvpn/revoked dir
client-config-dir /etc/openvpn/ccd
keepalive 10 60
max-clients 128
user nobody
group nogroup
persist-key
persist-tun
status /tmp/openvpn-status.log 10
status-version 2
management /run/openvpn/management.sock unix
explicit-exit-notify 1
fast-io
mssfix 1360
push \"redirect-gateway def1\"
push \"route 10.96.0.0 255.240.0.0\"
push \"dhcp-option DNS 10.96.0.10\"
push \"dhcp-option DOMAIN-SEARCH cluster.local\"
verb 3
verb 4
";
    assert_eq!(server_config(&config()), expected);
}

/// OpenVPN does not start if it is there.
#[test]
fn a_server_with_tcp_has_no_exit_notification() {
    let text = server_config(&ServerConfig { protocol: Protocol::Tcp, ..config() });
    assert!(
        text.contains("\nproto tcp-server\n") && !text.contains("explicit-exit-notify") && !text.contains("fast-io")
    );
}

#[test]
fn a_line_that_the_operator_relies_on_is_refused() {
    let options =
        ["crl-verify /x", "management 127.0.0.1 7505", "status /x", "server 10.8.0.0 255.255.255.0", "port 1"];
    let more =
        ["proto tcp", "dev tap", "ca /x", "cert /x", "key /x", "tls-crypt /x", "management-hold", "<tls-crypt-v2>"];
    let most = ["verify-client-cert none", "--crl-verify /x", "setenv opt ca /x", "user root", "config /x", "mode p2p"];
    for line in options.into_iter().chain(more).chain(most) {
        let message = check_lines(&["verb 4".to_owned(), line.to_owned()]).unwrap_err();
        assert!(message.starts_with("line 2"), "{line}: {message}");
    }
    assert_eq!(
        check("crl-verify /x").unwrap_err(),
        "line 1: crl-verify cannot be set here, because the operator relies on it"
    );
}

#[test]
fn other_lines_are_accepted() {
    let lines =
        ["verb 4", "push \"route 10.0.0.0 255.0.0.0\"", "client-to-client", "duplicate-cn", "script-security 2"];
    let more = ["client-connect /x.sh", "plugin /x.so", "server-ipv6 fd00::/64", "keepalive 5 30", "dh /x", "# user x"];
    for line in lines.into_iter().chain(more).chain(["client-disconnect /x", "portable-x", "setenv KEY ca", ""]) {
        assert_eq!(check(line), Ok(()), "{line}");
    }
}

/// The recipe against leaks in the documentation of servers, from openvpn(8).
#[test]
fn the_lines_that_block_ipv6_are_accepted() {
    let ifconfig = "push \"ifconfig-ipv6 fd15:53b6:dead::2/64 fd15:53b6:dead::1\"";
    for line in ["block-ipv6", ifconfig, "push \"redirect-gateway ipv6\""] {
        assert_eq!(check(line), Ok(()), "{line}");
    }
}

#[test]
fn what_is_no_domain_is_refused() {
    for text in ["cluster.local", "a", "svc.cluster.local"] {
        assert_eq!(text.parse::<SearchDomain>().unwrap().to_string(), text);
    }
    for text in ["", ".", "a b", "a\"", "a\nb", "-a", "a..b", &"a".repeat(64)] {
        assert!(text.parse::<SearchDomain>().is_err(), "{text:?}");
    }
}

#[test]
fn files_of_the_user_that_are_absent_are_not_named() {
    let with = |dh, crl, ta| {
        let keystore = Some(KeystoreFiles { dh, crl, ta });
        server_config(&ServerConfig { keystore, ..config() })
    };
    let none = with(false, false, false);
    for absent in ["tls-crypt", "tls-auth", "crl-verify", "remote-cert-tls", "dh.pem"] {
        assert!(!none.contains(absent), "{absent} in {none}");
    }
    assert!(none.contains("\ndh none\n"), "{none}");
    let all = with(true, true, true);
    for line in
        ["dh /etc/openvpn/pki/dh.pem", "tls-auth /etc/openvpn/pki/ta.key 0", "crl-verify /etc/openvpn/revoked/crl.pem"]
    {
        assert!(all.contains(&format!("\n{line}\n")), "{line} is not in {all}");
    }
}
