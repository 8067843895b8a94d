//! The file of a client in the directory `client-config-dir` of the server. Its name is the common name.

use std::{fmt::Write, net::Ipv4Addr};

use ipnet::Ipv4Net;

use super::network::{ClientNetwork, overlaps};

/// What a server does for one client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientConfig {
    /// The address that the client always gets.
    pub address: Option<Ipv4Addr>,
    /// Networks that this client reaches through the tunnel, in addition to those of the server.
    pub routes: Vec<Ipv4Net>,
    /// Networks behind the client. The server needs a `route` for each as well.
    pub behind: Vec<Ipv4Net>,
}

impl ClientConfig {
    /// Checks it against the network of the server, and the networks that the server forwards to: without them, it
    /// forwards anywhere.
    ///
    /// # Errors
    ///
    /// A message for users.
    pub fn check(&self, clients: ClientNetwork, max_clients: u32, reachable: Option<&[Ipv4Net]>) -> Result<(), String> {
        if let Some(address) = self.address {
            clients.check_address(address, max_clients)?;
        }
        // A wider route, such as 10.0.0.0/8, gives way to that of the tunnel.
        let hides = |net: &&Ipv4Net| clients.net().contains(*net);
        let collides = |net: &&Ipv4Net| overlaps(net, &clients.net());
        if let Some(net) = self.routes.iter().find(hides).or_else(|| self.behind.iter().find(collides)) {
            return Err(format!("{net} overlaps {clients}, the network of the clients"));
        }
        let Some(reachable) = reachable else { return Ok(()) };
        let is_dropped = |net: &&Ipv4Net| !reachable.iter().any(|other| other.contains(*net));
        match self.routes.iter().find(is_dropped) {
            Some(net) => {
                Err(format!("the server does not forward to {net}: its spec.network.routes do not contain it"))
            }
            None => Ok(()),
        }
    }

    /// Returns the file, or `None` if the client does not need one.
    pub fn file(&self, clients: ClientNetwork) -> Option<String> {
        let mut text = String::new();
        // Writing to a string does not fail.
        if let Some(address) = self.address {
            let _ = writeln!(text, "ifconfig-push {address} {}", clients.net().netmask());
        }
        for net in &self.behind {
            let _ = writeln!(text, "iroute {} {}", net.network(), net.netmask());
        }
        for net in &self.routes {
            let _ = writeln!(text, "push \"route {} {}\"", net.network(), net.netmask());
        }
        (!text.is_empty()).then_some(text)
    }
}

/// Checks a common name. It is the name of a file and of a key in a Secret, and OpenVPN gives two names a meaning of
/// their own: `DEFAULT` is the file of clients that have none, and `UNDEF` a client that is not known yet.
///
/// # Errors
///
/// A message for users.
pub fn check_common_name(name: &str) -> Result<(), String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !(1..=64).contains(&name.len()) || !name.bytes().all(is_allowed) || name.starts_with('.') {
        let rule = "1 to 64 letters, digits, '.', '_' and '-', and does not begin with '.'";
        return Err(format!("{name:?} is not a common name: it has {rule}"));
    }
    if name == "UNDEF" || name == "DEFAULT" {
        return Err(format!("{name} is not a common name: it has a meaning in OpenVPN"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
