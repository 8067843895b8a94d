//! The addresses of a server's clients.
//!
//! Invariant: OpenVPN never assigns a permanent address of a client to another one.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use ipnet::{IpNet, Ipv4Net};

/// The longest and the shortest network of clients.
const PREFIXES: std::ops::RangeInclusive<u8> = 16..=28;

/// The network of the clients. Its first address is that of the server: the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientNetwork(Ipv4Net);

/// A range of addresses, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pool {
    /// The first address.
    pub first: Ipv4Addr,
    /// The last address.
    pub last: Ipv4Addr,
}

impl ClientNetwork {
    /// Returns the network.
    pub fn net(&self) -> Ipv4Net {
        self.0
    }

    /// Returns the address of the server in the tunnel.
    pub fn gateway(&self) -> Ipv4Addr {
        self.at(1)
    }

    /// Returns how many clients can have an address.
    pub fn capacity(&self) -> u32 {
        // All but the addresses of the network, the gateway and the broadcast.
        (1_u32 << (32 - self.0.prefix_len())) - 3
    }

    /// Returns the addresses for clients without an address of their own. OpenVPN does not exclude addresses that
    /// belong to a client, so the pool is small: twice the maximum number of clients, so that most of them get the
    /// same address again. It has at most half of all addresses, unless the clients need more.
    pub fn pool(&self, max_clients: u32) -> Pool {
        let all = self.capacity();
        let size = max_clients.saturating_mul(2).min(all / 2).max(max_clients).clamp(1, all);
        Pool { first: self.at(2), last: self.at(1 + size) }
    }

    /// Checks a permanent address of a client.
    ///
    /// # Errors
    ///
    /// A message for users.
    pub fn check_address(&self, address: Ipv4Addr, max_clients: u32) -> Result<(), String> {
        let pool = self.pool(max_clients);
        let (after, broadcast) = (u32::from(pool.last) + 1, self.0.broadcast());
        if !self.0.contains(&address) {
            Err(format!("{address} is not in {self}, the network of the clients"))
        } else if address == self.0.network() || address == broadcast {
            Err(format!("{address} is not an address of a host in {self}"))
        } else if address == self.gateway() {
            Err(format!("{address} is the address of the server"))
        } else if !pool.contains(address) {
            Ok(())
        } else if after < u32::from(broadcast) {
            let (after, last) = (Ipv4Addr::from(after), Ipv4Addr::from(u32::from(broadcast) - 1));
            Err(format!("{address} is one that any client may get: choose one from {after} to {last}"))
        } else {
            Err(format!("{self} has no addresses left that could be given to a client for good"))
        }
    }

    fn at(&self, index: u32) -> Ipv4Addr {
        // The longest prefix is 28, so that there are 16 addresses at least.
        Ipv4Addr::from(u32::from(self.0.network()).saturating_add(index))
    }
}

impl Pool {
    /// Whether an address is in the range.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }
}

impl fmt::Display for ClientNetwork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for ClientNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = network(text)?;
        if !PREFIXES.contains(&net.prefix_len()) {
            let (from, to) = (PREFIXES.start(), PREFIXES.end());
            return Err(format!("{text} has a prefix of /{}: it has to be /{from} to /{to}", net.prefix_len()));
        }
        let first = net.network();
        let reserved = first.octets()[0] == 0 || first.octets()[0] >= 240;
        if reserved || first.is_loopback() || first.is_multicast() || first.is_link_local() {
            return Err(format!("{text} is not a network for hosts: use a private one, such as 10.240.0.0/16"));
        }
        Ok(Self(net))
    }
}

/// Returns the network in a text such as `10.96.0.0/12`. Bits after the prefix are cleared.
///
/// # Errors
///
/// A message for users.
pub fn network(text: &str) -> Result<Ipv4Net, String> {
    match text.parse::<IpNet>() {
        Ok(IpNet::V4(net)) => Ok(net.trunc()),
        Ok(IpNet::V6(_)) => Err(format!("{text} is a network of IPv6: only IPv4 is supported")),
        Err(_) => Err(format!("{text} is not a network: write it as 10.96.0.0/12")),
    }
}

/// Whether two networks have addresses in common.
pub fn overlaps(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(b) || b.contains(a)
}

#[cfg(test)]
mod tests;
