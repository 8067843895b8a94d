//! Which addresses may be asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

/// The reason why an address is not that of a Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// `127.0.0.0/8` or `::1`.
    #[error("{0} is a loopback address")]
    Loopback(IpAddr),
    /// `169.254.0.0/16` or `fe80::/10`.
    #[error("{0} is a link-local address")]
    LinkLocal(IpAddr),
    /// `0.0.0.0/8` or `::`.
    #[error("{0} stands for no address")]
    Unspecified(IpAddr),
    /// A multicast address, or `255.255.255.255`.
    #[error("{0} stands for several hosts")]
    Multicast(IpAddr),
    /// A metadata service outside of the link-local range.
    #[error("{0} is the metadata service of a cloud")]
    Metadata(IpAddr),
    /// An IPv6 address that stands for an IPv4 address.
    #[error("{0} stands for an IPv4 address")]
    Translated(IpAddr),
}

/// Metadata services that are not link-local: of Alibaba Cloud, Azure, Oracle Cloud and AWS.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Checks that an address can be that of a Pod.
///
/// # Errors
/// If the address is that of this host, of its link, of a metadata service or of several hosts, or an IPv6 address that
/// leads to an IPv4 address.
pub fn check_address(address: IpAddr) -> Result<(), AddressError> {
    if METADATA.contains(&address) {
        return Err(AddressError::Metadata(address));
    }
    match address {
        IpAddr::V4(v4) if v4.is_loopback() => Err(AddressError::Loopback(address)),
        IpAddr::V4(v4) if v4.is_link_local() => Err(AddressError::LinkLocal(address)),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Err(AddressError::Unspecified(address)),
        IpAddr::V4(v4) if v4.is_multicast() || v4.is_broadcast() => Err(AddressError::Multicast(address)),
        IpAddr::V6(v6) if v6.is_loopback() => Err(AddressError::Loopback(address)),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(AddressError::LinkLocal(address)),
        IpAddr::V6(v6) if v6.is_unspecified() => Err(AddressError::Unspecified(address)),
        IpAddr::V6(v6) if v6.is_multicast() => Err(AddressError::Multicast(address)),
        IpAddr::V6(v6) if is_translated(v6) => Err(AddressError::Translated(address)),
        _ => Ok(()),
    }
}

/// Whether an address is in `::/96`, `::ffff:0:0/96`, `64:ff9b::/96`, `64:ff9b:1::/48` or `2002::/16`.
fn is_translated(address: Ipv6Addr) -> bool {
    matches!(
        address.segments(),
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] | [0x2002, ..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_pods_can_have_are_accepted() {
        let check = |text: &str| check_address(text.parse().expect("an address"));
        for pod in
            ["10.244.1.17", "192.168.0.3", "172.16.0.1", "100.64.0.9", "203.0.113.5", "fd00:10:244::7", "2001:db8::1"]
        {
            assert_eq!(check(pod), Ok(()), "{pod}");
        }
        for other in [
            "127.0.0.1",
            "127.8.9.10",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.170.2",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "2002:7f00:1::",
        ] {
            assert!(check(other).is_err(), "{other}");
        }
    }
}
