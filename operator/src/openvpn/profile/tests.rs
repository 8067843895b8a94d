#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use super::*;

const CERTIFICATE: &str = "junk\n-----BEGIN CERTIFICATE-----\nAA+/\nBB==\n-----END CERTIFICATE-----\n";

fn profile(remote: &Remote) -> Profile<'_> {
    Profile {
        protocol: Protocol::Udp,
        remote,
        port: 1194,
        server_name: "home.accounts",
        ca: CERTIFICATE,
        certificate: CERTIFICATE,
        key: Some("-----BEGIN PRIVATE KEY-----\nCC\n-----END PRIVATE KEY-----"),
        tls_crypt: "#\n-----BEGIN OpenVPN Static key V1-----\n00ff\n-----END OpenVPN Static key V1-----\n",
        mssfix: 1360,
        lines: &[],
    }
}

#[test]
fn a_profile_has_all_that_a_client_needs() {
    let expected = "\
client
dev tun
proto udp
remote vpn.example.org 1194
nobind
persist-key
persist-tun
remote-cert-tls server
verify-x509-name \"home.accounts\" name
tls-version-min 1.2
data-ciphers AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305
mssfix 1360
explicit-exit-notify 1
verb 3
<ca>
-----BEGIN CERTIFICATE-----
AA+/
BB==
-----END CERTIFICATE-----
</ca>
<cert>
-----BEGIN CERTIFICATE-----
AA+/
BB==
-----END CERTIFICATE-----
</cert>
<key>
-----BEGIN PRIVATE KEY-----
CC
-----END PRIVATE KEY-----
</key>
<tls-crypt>
-----BEGIN OpenVPN Static key V1-----
00ff
-----END OpenVPN Static key V1-----
</tls-crypt>
";
    assert_eq!(profile(&"vpn.example.org".parse().unwrap()).to_string(), expected);
}

#[test]
fn a_profile_with_tcp_has_no_exit_notification() {
    let remote = "203.0.113.7".parse().unwrap();
    let text = Profile { protocol: Protocol::Tcp, ..profile(&remote) }.to_string();
    assert!(text.contains("\nproto tcp\nremote 203.0.113.7 1194\n") && !text.contains("explicit-exit-notify"));
}

#[test]
fn a_profile_without_a_key_says_where_it_belongs() {
    let remote = "203.0.113.7".parse().unwrap();
    let text = Profile { key: None, ..profile(&remote) }.to_string();
    assert!(text.contains("\n# key client.key\n") && !text.contains("<key>"));
}

#[test]
fn nothing_but_pem_gets_into_a_block() {
    let remote = "203.0.113.7".parse().unwrap();
    let ca = "up /evil\n-----BEGIN CERTIFICATE-----\nAA==\n</ca>\nup /evil\n-----END CERTIFICATE-----\nup /evil\n";
    let text = Profile { ca, ..profile(&remote) }.to_string();
    assert!(!text.contains("evil") && text.matches("</ca>").count() == 1, "{text}");
}

#[test]
fn the_key_of_a_profile_is_not_shown() {
    let remote = "203.0.113.7".parse().unwrap();
    assert!(!format!("{:?}", profile(&remote)).contains("PRIVATE"));
}

#[test]
fn a_remote_is_an_address_or_a_name() {
    for text in ["203.0.113.7", "2001:db8::1", "vpn.example.org", "vpn", "a-1.example.org"] {
        assert_eq!(text.parse::<Remote>().unwrap().to_string(), text);
    }
    assert!(matches!("203.0.113.7".parse(), Ok(Remote::Address(_))));
    for text in ["", "203.0.113.7VIP", "203.0.113.256", "a b", "a\nup /x", "a_b", "vpn.", "[2001:db8::1]", "vpn:1194"] {
        // The wrong address is a valid name, as its last label is not a number.
        assert_eq!(text.parse::<Remote>().is_ok(), text == "203.0.113.7VIP", "{text}");
    }
}

#[test]
fn lines_of_clients_are_checked() {
    let check = |line: &str| check_client_lines(&[line.to_owned()]);
    assert_eq!(check("auth-nocache"), Ok(()));
    assert!(check("auth-nocache\nup /x").unwrap_err().starts_with("line 1"));
    assert!(check("<ca>").unwrap_err().starts_with("line 1"));
}
