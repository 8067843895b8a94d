//! The addresses, accounts and keys of a VPN service: what a client needs to know to log in.

use std::{
    net::Ipv4Addr,
    process::Command,
    sync::{Mutex, PoisonError},
};

use anyhow::Result;

use crate::host::command::run;

/// The number of WireGuard keys. Each device needs one.
pub const WIREGUARD_KEYS: usize = 4;
/// The user whose account allows one connection.
pub const LIMITED_USER: &str = "limited";
pub const USER: &str = "alice";
/// Further users. Each is an account of its own.
pub const OTHER_USERS: [&str; 2] = ["bob", "carol"];
/// The password of its users.
pub const PASSWORD: &str = "correct-horse-battery-staple";
/// The port of the page that returns the address of its client.
pub const ADDRESS_PORT: u16 = 8080;

/// A WireGuard key pair, in the format of `wg`.
#[derive(Clone, Debug)]
pub struct Key {
    pub private: String,
    pub public: String,
}

/// The addresses of the servers of a VPN service, and the credentials that they accept.
pub struct Endpoints {
    /// The Service of the VPN servers.
    pub server: Ipv4Addr,
    /// The Service of the page that returns the address of its client.
    pub address: Ipv4Addr,
    /// A Pod that drops every packet.
    pub silent: Ipv4Addr,
    /// The CA of the servers, in PEM.
    pub authority: String,
    /// A CA that signed no server, in PEM.
    pub other_authority: String,
    /// The key of the WireGuard server.
    pub server_key: Key,
    /// The keys of the WireGuard clients.
    pub keys: Vec<Key>,
    /// The Pod of the servers. It changes when the servers are started again.
    pub exit: Mutex<Ipv4Addr>,
}

impl Endpoints {
    /// The address from which other Pods see a Pod behind the VPN.
    pub fn exit_address(&self) -> Ipv4Addr {
        *self.exit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the address after the servers have started.
    pub fn set_exit_address(&self, address: Ipv4Addr) {
        *self.exit.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    /// The URL of the page that returns the address of its client.
    pub fn address_url(&self) -> String {
        format!("http://{}:{ADDRESS_PORT}", self.address)
    }
}

/// A new WireGuard key pair.
pub fn new_key() -> Result<Key> {
    let private = run(Command::new("wg").arg("genkey"))?.trim().to_owned();
    let mut derive = Command::new("sh");
    let public = run(derive.env("KEY", &private).args(["-c", "echo \"$KEY\" | wg pubkey"]))?.trim().to_owned();
    Ok(Key { private, public })
}

/// The address in the tunnel of the WireGuard key with this index.
pub fn wireguard_address(index: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 9, 0, 2)) + u32::try_from(index).unwrap_or_default())
}
