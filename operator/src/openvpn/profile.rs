//! The profile of a client: one file with everything it needs.
//!
//! Invariant: what comes from a Secret gets into the profile as PEM only, so that none of it is read as an option.

use std::{fmt, net::IpAddr, str::FromStr};

use super::{
    config::{DATA_CIPHERS, Protocol},
    host::is_host_name,
    lines,
};

/// Where a client finds the server. gluetun takes addresses only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Remote {
    /// An address.
    Address(IpAddr),
    /// A name in DNS.
    Name(HostName),
}

/// A name in DNS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostName(String);

impl FromStr for Remote {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(address) => Ok(Self::Address(address)),
            Err(_) if is_host_name(text) => Ok(Self::Name(HostName(text.to_owned()))),
            Err(_) => Err(format!("{text} is neither an IP address nor a name in DNS")),
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(formatter),
            Self::Name(name) => formatter.write_str(&name.0),
        }
    }
}

/// What a client needs to connect.
#[derive(Clone, Copy)]
pub struct Profile<'a> {
    /// The protocol of the server.
    pub protocol: Protocol,
    /// Where the server is.
    pub remote: &'a Remote,
    /// The port there.
    pub port: u16,
    /// The common name in the certificate of the server.
    pub server_name: &'a str,
    /// The CAs that are trusted, in PEM.
    pub ca: &'a str,
    /// The certificate of the client, in PEM.
    pub certificate: &'a str,
    /// Its private key, in PEM. Without one, it is to be added where it is.
    pub key: Option<&'a str>,
    /// The key for `tls-crypt`.
    pub tls_crypt: &'a str,
    /// The largest UDP packet for segments of TCP.
    pub mssfix: u16,
    /// Further lines, which [`check_client_lines`] has accepted.
    pub lines: &'a [String],
}

impl fmt::Debug for Profile<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Profile");
        debug.field("remote", &self.remote).field("port", &self.port).finish_non_exhaustive()
    }
}

/// The file `NAME.ovpn`. It is a secret.
impl fmt::Display for Profile<'_> {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `tcp-client` is the same, but gluetun does not know it.
        let protocol = if self.protocol == Protocol::Udp { "udp" } else { "tcp" };
        writeln!(text, "client\ndev tun\nproto {protocol}\nremote {} {}", self.remote, self.port)?;
        writeln!(text, "nobind\npersist-key\npersist-tun\nremote-cert-tls server")?;
        let server_name: String = self.server_name.chars().filter(|char| !char.is_control()).collect();
        writeln!(text, "verify-x509-name \"{}\" name", server_name.replace('\\', "\\\\").replace('"', "\\\""))?;
        writeln!(text, "tls-version-min 1.2\ndata-ciphers {DATA_CIPHERS}\nmssfix {}", self.mssfix)?;
        if self.protocol == Protocol::Udp {
            writeln!(text, "explicit-exit-notify 1")?;
        }
        writeln!(text, "verb 3")?;
        for line in self.lines {
            writeln!(text, "{line}")?;
        }
        block(text, "ca", self.ca)?;
        block(text, "cert", self.certificate)?;
        match self.key {
            Some(key) => block(text, "key", key)?,
            None => {
                writeln!(text, "# The private key has not left your device. Name its file here:\n# key client.key")?
            }
        }
        block(text, "tls-crypt", self.tls_crypt)
    }
}

/// Checks further lines for clients.
///
/// # Errors
///
/// A message for users that names the line.
pub fn check_client_lines(all: &[String]) -> Result<(), String> {
    lines::options(all).map(|_| ())
}

fn block(text: &mut fmt::Formatter<'_>, name: &str, pem: &str) -> fmt::Result {
    let mut inside = false;
    writeln!(text, "<{name}>")?;
    for line in pem.lines().map(str::trim) {
        let (begins, ends) = (line.starts_with("-----BEGIN "), line.starts_with("-----END "));
        inside |= begins;
        let is_data = line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
        if begins || ends || (inside && is_data) {
            writeln!(text, "{line}")?;
        }
        inside &= !ends;
    }
    writeln!(text, "</{name}>")
}

#[cfg(test)]
mod tests;
