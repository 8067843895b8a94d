#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use super::*;

fn clients() -> ClientNetwork {
    "10.240.0.0/16".parse().unwrap()
}

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

#[test]
fn the_file_has_the_address_and_the_routes() {
    let config = ClientConfig {
        address: Some(Ipv4Addr::new(10, 240, 9, 9)),
        routes: vec![net("10.96.0.0/12")],
        behind: vec![net("192.168.1.0/24")],
    };
    assert_eq!(config.check(clients(), 128, None), Ok(()));
    let expected = "\
ifconfig-push 10.240.9.9 255.255.0.0
iroute 192.168.1.0 255.255.255.0
push \"route 10.96.0.0 255.240.0.0\"
";
    assert_eq!(config.file(clients()).unwrap(), expected);
    assert_eq!(ClientConfig::default().file(clients()), None);
}

#[test]
fn a_client_is_not_sent_where_the_server_does_not_forward() {
    let reachable = [net("10.96.0.0/12"), net("192.168.1.0/24")];
    let check = |text: &str| {
        let config = ClientConfig { routes: vec![net(text)], ..ClientConfig::default() };
        config.check(clients(), 128, Some(&reachable))
    };
    for text in ["10.96.0.0/12", "10.100.1.0/24", "192.168.1.7/32"] {
        assert_eq!(check(text), Ok(()), "{text}");
    }
    for text in ["10.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12"] {
        assert!(check(text).unwrap_err().contains(&format!("does not forward to {text}: ")), "{text}");
    }
}

#[test]
fn what_collides_with_the_tunnel_is_refused() {
    let address = ClientConfig { address: Some(Ipv4Addr::new(10, 240, 0, 2)), ..ClientConfig::default() };
    assert!(address.check(clients(), 128, None).unwrap_err().contains("any client may get"));
    let check = |routes: &[&str], behind: &[&str]| {
        let nets = |all: &[&str]| all.iter().map(|text| net(text)).collect();
        ClientConfig { address: None, routes: nets(routes), behind: nets(behind) }.check(clients(), 128, None)
    };
    for text in ["10.240.1.0/24", "10.240.0.0/16"] {
        assert!(check(&[text], &[]).unwrap_err().contains("overlaps"), "{text}");
        assert!(check(&[], &[text]).unwrap_err().contains("overlaps"), "{text}");
    }
    for text in ["10.0.0.0/8", "0.0.0.0/0"] {
        assert_eq!(check(&[text], &[]), Ok(()), "{text}");
        assert!(check(&[], &[text]).is_err(), "{text}");
    }
}

#[test]
fn a_common_name_can_be_a_file() {
    for name in ["laptop", "home-slot-0", "a.b_C-9", "-", "DEFAULT2", "undef", &"x".repeat(64)] {
        assert_eq!(check_common_name(name), Ok(()), "{name}");
    }
    let wrong = ["", ".", "..", ".data", "UNDEF", "DEFAULT", "a b", "a/b", "a\n", "é", "a,b", "a\"", &"x".repeat(65)];
    for name in wrong {
        assert!(check_common_name(name).is_err(), "{name:?}");
    }
}
