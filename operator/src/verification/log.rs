//! What gluetun's log says, line by line. The patterns are the wording of gluetun v3.41 and of OpenVPN 2.6.
//!
//! Invariant: bounded memory, however long the log is.

use std::collections::VecDeque;

/// A kind of line that decides, or helps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    AuthFailed,
    TooManyConnections,
    NoServer,
    BadConfig,
    NoNetAdmin,
    NoTun,
    Unreachable,
    TlsFailed,
    WireguardUp,
    TunnelUp,
    Unhealthy,
}

/// A line with one of these words is a sign. Several may fit.
const SIGNS: [(&str, Sign); 25] = [
    ("control message: AUTH_FAILED", Sign::AuthFailed),
    ("TOO_MANY_CONNECTIONS", Sign::TooManyConnections),
    ("too many connections", Sign::TooManyConnections),
    ("no server found", Sign::NoServer),
    ("Unrecognized option", Sign::BadConfig),
    ("Options error", Sign::BadConfig),
    ("NET_ADMIN capability is missing", Sign::NoNetAdmin),
    ("TUN device is not available", Sign::NoTun),
    ("/dev/net/tun", Sign::NoTun),
    ("Cannot open TUN/TAP", Sign::NoTun),
    ("ECONNREFUSED", Sign::Unreachable),
    ("Connection refused", Sign::Unreachable),
    ("EHOSTUNREACH", Sign::Unreachable),
    ("ENETUNREACH", Sign::Unreachable),
    ("No route to host", Sign::Unreachable),
    ("Network is unreachable", Sign::Unreachable),
    ("Connection timed out", Sign::Unreachable),
    ("TLS key negotiation failed", Sign::Unreachable),
    ("VERIFY ERROR", Sign::TlsFailed),
    ("TLS handshake failed", Sign::TlsFailed),
    ("Wireguard setup is complete", Sign::WireguardUp),
    ("Initialization Sequence Completed", Sign::TunnelUp),
    ("failed to pass the healthcheck", Sign::Unhealthy),
    ("cannot create TUN", Sign::NoTun),
    ("creating TUN device", Sign::NoTun),
];

/// How many of the last warnings and errors are kept.
const KEPT: usize = 6;
/// How much of a line is kept, in characters.
const LONGEST_LINE: usize = 400;

/// What was seen in a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// How often the server refused user name and password.
    pub auth_failed: u32,
    /// It said that too many devices are connected.
    pub too_many_connections: bool,
    /// No server matches the settings.
    pub no_server: bool,
    /// OpenVPN cannot read its configuration.
    pub bad_config: bool,
    /// The container lacks NET_ADMIN.
    pub no_net_admin: bool,
    /// There is no tunnel device.
    pub no_tun: bool,
    /// The server was not reached, or did not answer.
    pub unreachable: u32,
    /// The TLS handshake failed.
    pub tls_failed: u32,
    /// A WireGuard interface was set up (which says nothing about the other side).
    pub wireguard_up: bool,
    /// OpenVPN has connected.
    pub tunnel_up: bool,
    /// Nothing could be reached through the tunnel.
    pub unhealthy: u32,
    last: VecDeque<String>,
}

impl Digest {
    /// Takes in one line.
    pub fn push(&mut self, line: &str) {
        let line = plain(line);
        for (_, sign) in SIGNS.iter().filter(|(words, _)| line.contains(words)) {
            match sign {
                Sign::AuthFailed => self.auth_failed = self.auth_failed.saturating_add(1),
                Sign::TooManyConnections => self.too_many_connections = true,
                Sign::NoServer => self.no_server = true,
                Sign::BadConfig => self.bad_config = true,
                Sign::NoNetAdmin => self.no_net_admin = true,
                Sign::NoTun => self.no_tun = true,
                Sign::Unreachable => self.unreachable = self.unreachable.saturating_add(1),
                Sign::TlsFailed => self.tls_failed = self.tls_failed.saturating_add(1),
                Sign::WireguardUp => self.wireguard_up = true,
                Sign::TunnelUp => self.tunnel_up = true,
                Sign::Unhealthy => self.unhealthy = self.unhealthy.saturating_add(1),
            }
        }
        if let Some(said) = complaint(&line)
            && !self.last.iter().any(|known| known == &said)
        {
            if self.last.len() == KEPT {
                self.last.pop_front();
            }
            self.last.push_back(said);
        }
    }

    /// The last different warnings and errors, the oldest first.
    pub fn complaints(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }
}

/// Without colours and other control characters.
fn plain(line: &str) -> String {
    let line: String = strip_ansi_escapes::strip_str(line).chars().filter(|c| !c.is_control()).collect();
    line.trim().to_owned()
}

/// A warning or an error, without its time; `None` for any other line. OpenVPN's own messages come as INFO.
fn complaint(line: &str) -> Option<String> {
    let words = ["ERROR", "WARN", "AUTH_FAILED", "refused", "No route to host"];
    let at = words.iter().filter_map(|word| line.find(word)).min()?;
    let levels = ["ERROR ", "WARN ", "INFO "];
    let start = levels.iter().filter_map(|level| line.find(level)).min().filter(|start| *start <= at).unwrap_or(0);
    Some(line[start..].chars().take(LONGEST_LINE).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(lines: &[&str]) -> Digest {
        let mut digest = Digest::default();
        lines.iter().for_each(|line| digest.push(line));
        digest
    }

    #[test]
    fn signs_are_found_under_colours() {
        let seen = digest(&[
            "2026-08-01T10:00:00Z \u{1b}[31mERROR\u{1b}[0m [openvpn] AUTH: Received control message: AUTH_FAILED",
            "2026-08-01T10:00:00Z INFO [openvpn] SIGUSR1[soft,auth-failure] received, process restarting",
        ]);
        assert_eq!(seen.auth_failed, 1);
        let said: Vec<_> = seen.complaints().collect();
        assert_eq!(said, ["ERROR [openvpn] AUTH: Received control message: AUTH_FAILED"]);
    }

    #[test]
    fn a_repeated_complaint_is_kept_once_and_the_log_takes_no_room() {
        let mut seen = Digest::default();
        for i in 0..10_000 {
            seen.push(&format!("2026-08-01T10:00:0{}Z WARN same", i % 10));
            seen.push(&format!("t WARN {} {}", i, "x".repeat(1000)));
        }
        assert_eq!(seen.complaints().count(), KEPT);
        assert!(seen.complaints().all(|line| line.len() <= LONGEST_LINE));
    }
}
