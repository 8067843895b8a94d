//! The status of an OpenVPN server: a status file of version 1, 2 or 3, or the answer to `status 3`.
//!
//! OpenVPN rewrites its file in place, so a reader may see a part of it. A status without the line `END`, or with text
//! after it, is an error, never a smaller number of clients.

mod columns;
mod parse;
#[cfg(test)]
mod tests;

use thiserror::Error;

/// The common name of a client that has not authenticated yet.
pub const UNDEFINED: &str = "UNDEF";

/// A client that has authenticated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// The common name of its certificate. Bytes that are not UTF-8 are replaced.
    pub common_name: String,
    /// Its address and port outside of the tunnel.
    pub real_address: String,
    /// Its address in the tunnel. Empty if it has none.
    pub virtual_address: String,
    /// The bytes that the server received from it.
    pub received: u64,
    /// The bytes that the server sent to it.
    pub sent: u64,
    /// When it connected, in seconds since 1970.
    pub connected_since: i64,
    /// Its user name: `UNDEF` without one, and empty in version 1.
    pub username: String,
    /// The number of its session. Version 1 and OpenVPN before 2.4 do not tell.
    pub id: Option<u64>,
}

/// A route to a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The address or network in the tunnel. The letter `C` at its end marks an address that OpenVPN learned.
    pub virtual_address: String,
    /// The common name of the client.
    pub common_name: String,
    /// The client's address and port outside of the tunnel.
    pub real_address: String,
    /// When the route was last used, in seconds since 1970.
    pub last_reference: i64,
}

/// The status of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// When OpenVPN wrote it, in seconds since 1970.
    pub updated: i64,
    /// The clients that have authenticated.
    pub clients: Vec<Client>,
    /// The routes to them.
    pub routes: Vec<Route>,
    /// The number of clients that have not authenticated yet.
    pub pending: u64,
    /// The number of clients that have authenticated, but whose line can be read in several ways, because names with
    /// commas look like other columns.
    pub ambiguous: u64,
}

impl Status {
    /// Returns the number of clients that have authenticated.
    pub fn connected(&self) -> u64 {
        self.clients.len() as u64 + self.ambiguous
    }
}

/// The reason why a status cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StatusError {
    /// There is no line `END`.
    #[error("the status is not complete: it does not end with the line END")]
    Incomplete,
    /// Something comes after the line `END`, as while OpenVPN writes over a longer status.
    #[error("the status is not complete: text follows the line END")]
    Trailing,
    /// The first line is that of the status of a client.
    #[error("this is the status of an OpenVPN client, not of a server")]
    NotAServer,
    /// The first line is none of a status.
    #[error("this is not a status of OpenVPN in version 1, 2 or 3")]
    Unknown,
    /// A part is missing.
    #[error("the status has no {0}")]
    Missing(&'static str),
    /// A line is malformed.
    #[error("line {line} of the status: {problem}")]
    Line {
        /// The number of the line, from 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
}
