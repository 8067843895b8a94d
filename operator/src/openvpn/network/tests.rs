#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use proptest::prelude::*;

use super::*;

fn clients(text: &str) -> ClientNetwork {
    text.parse().unwrap()
}

#[test]
fn the_address_of_the_network_is_normalized() {
    let network = clients("10.240.3.7/16");
    assert_eq!(network.to_string(), "10.240.0.0/16");
    assert_eq!(network.gateway(), Ipv4Addr::new(10, 240, 0, 1));
}

#[test]
fn a_network_of_clients_has_a_usable_size_and_place() {
    for text in ["10.0.0.0/16", "192.168.1.16/28", "100.64.0.0/16"] {
        assert!(text.parse::<ClientNetwork>().is_ok(), "{text}");
    }
    let wrong = ["10.0.0.0/15", "10.0.0.0/29", "10.0.0.0", "", "10.0.0.0/33", "fd00::/64", "127.0.0.0/16"];
    for text in
        wrong.into_iter().chain(["224.0.0.0/16", "0.0.0.0/16", "255.255.0.0/16", "169.254.0.0/16", "10.0.0.0/16 "])
    {
        assert!(text.parse::<ClientNetwork>().is_err(), "{text}");
    }
    assert!("10.0.0.0/15".parse::<ClientNetwork>().unwrap_err().contains("/16 to /28"));
    assert!(network("fd00::/64").unwrap_err().contains("IPv4"));
}

#[test]
fn the_pool_leaves_addresses_to_be_given_for_good() {
    let pool = |text: &str, max| {
        let pool = clients(text).pool(max);
        (pool.first.to_string(), pool.last.to_string())
    };
    let range = |first: &str, last: &str| (first.to_owned(), last.to_owned());
    assert_eq!(pool("10.240.0.0/16", 128), range("10.240.0.2", "10.240.1.1"));
    assert_eq!(pool("10.8.0.0/24", 128), range("10.8.0.2", "10.8.0.129"));
    assert_eq!(pool("10.8.0.0/24", 1000), range("10.8.0.2", "10.8.0.254"));
    assert_eq!(pool("10.8.0.0/28", 128), range("10.8.0.2", "10.8.0.14"));
}

#[test]
fn an_address_is_checked_with_a_reason() {
    let network = clients("10.8.0.0/24");
    let check = |address: [u8; 4]| network.check_address(address.into(), 128);
    assert_eq!(check([10, 8, 0, 130]), Ok(()));
    assert_eq!(check([10, 8, 0, 254]), Ok(()));
    assert!(check([10, 8, 1, 2]).unwrap_err().contains("is not in"));
    assert!(check([10, 8, 0, 0]).unwrap_err().contains("of a host"));
    assert!(check([10, 8, 0, 255]).unwrap_err().contains("of a host"));
    assert!(check([10, 8, 0, 1]).unwrap_err().contains("of the server"));
    assert!(check([10, 8, 0, 129]).unwrap_err().contains("from 10.8.0.130 to 10.8.0.254"));
    let message = network.check_address([10, 8, 0, 9].into(), 1000).unwrap_err();
    assert!(message.contains("no addresses left"), "{message}");
}

fn nets() -> impl Strategy<Value = Ipv4Net> {
    // Few bits, so that networks often overlap.
    (0_u32..64, 0_u8..=32).prop_map(|(bits, prefix)| Ipv4Net::new(Ipv4Addr::from(bits << 26), prefix).unwrap().trunc())
}

proptest! {
    #[test]
    fn a_pool_is_within_the_network_and_large_enough(bits: u32, prefix in 16_u8..=28, max in 1_u32..100_000) {
        let net = Ipv4Net::new(bits.into(), prefix).unwrap();
        let Ok(network) = net.to_string().parse::<ClientNetwork>() else { return Ok(()) };
        let pool = network.pool(max);
        let (first, last) = (u32::from(pool.first), u32::from(pool.last));
        prop_assert_eq!(first, u32::from(network.gateway()) + 1);
        prop_assert!(first <= last && last < u32::from(net.broadcast()));
        let usable = u32::from(net.broadcast()) - first;
        prop_assert!(last - first + 1 >= max.min(usable));
    }

    #[test]
    fn an_address_given_for_good_is_never_in_the_pool(host in 0_u32..=0xffff, max in 1_u32..70_000) {
        let network = clients("10.240.0.0/16");
        let address = Ipv4Addr::from(0x0af0_0000 + host);
        if network.check_address(address, max).is_ok() {
            prop_assert!(!network.pool(max).contains(address) && address != network.gateway());
            prop_assert!(network.net().hosts().any(|host| host == address));
        }
    }

    #[test]
    fn networks_overlap_if_they_share_an_address(a in nets(), b in nets()) {
        let shared = a.network() <= b.broadcast() && b.network() <= a.broadcast();
        prop_assert_eq!(overlaps(&a, &b), shared);
        prop_assert_eq!(overlaps(&b, &a), shared);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[0-9./]{0,20}|.*") {
        let _ = (text.parse::<ClientNetwork>(), network(&text));
    }
}
