//! A digest of gluetun's log, line by line. The patterns are the wording of gluetun v3.41 and of OpenVPN 2.6. Log
//! levels mean little: OpenVPN logs most of its last messages as INFO.
//!
//! Invariant: bounded memory, whatever the length of the log.

use std::collections::VecDeque;

/// A kind of log line that affects the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    AuthFailed,
    NoLogin,
    Missing(&'static str),
    BadPassphrase,
    Exited,
    TooManyConnections,
    NoServer,
    BadConfig,
    NoNetAdmin,
    NoTun,
    Unreachable,
    TlsFailed,
    CertificateRejected,
    WireguardUp,
    TunnelUp,
    Unhealthy,
}

/// Patterns of log lines. A line may match several.
const SIGNS: &[(&str, Sign)] = &[
    ("control message: AUTH_FAILED", Sign::AuthFailed),
    ("No client-side authentication method is specified", Sign::NoLogin),
    ("can't ask for 'Enter Auth Username", Sign::NoLogin),
    ("can't ask for 'Enter Auth Password", Sign::NoLogin),
    ("OpenVPN settings: user is empty", Sign::NoLogin),
    ("OpenVPN settings: password is empty", Sign::NoLogin),
    ("username from Auth authfile", Sign::NoLogin),
    ("Auth username is empty", Sign::NoLogin),
    ("private key is not set", Sign::Missing("WIREGUARD_PRIVATE_KEY")),
    ("pre-shared key is not set", Sign::Missing("WIREGUARD_PRESHARED_KEY")),
    ("client key: missing value", Sign::Missing("OPENVPN_KEY")),
    ("client certificate: missing value", Sign::Missing("OPENVPN_CERT")),
    ("encrypted key: missing value", Sign::Missing("OPENVPN_ENCRYPTED_KEY")),
    ("key passphrase is empty", Sign::BadPassphrase),
    ("can't ask for 'Enter Private Key Password", Sign::BadPassphrase),
    ("bad decrypt", Sign::BadPassphrase),
    ("maybe wrong password", Sign::BadPassphrase),
    ("Probably wrong password", Sign::BadPassphrase),
    ("private-key-password-failure", Sign::BadConfig),
    (EXITED, Sign::Exited),
    ("TOO_MANY_CONNECTIONS", Sign::TooManyConnections),
    ("too many connections", Sign::TooManyConnections),
    ("simultaneous connections", Sign::TooManyConnections),
    ("device limit", Sign::TooManyConnections),
    ("session limit", Sign::TooManyConnections),
    ("no server found", Sign::NoServer),
    ("Unrecognized option", Sign::BadConfig),
    ("Options error", Sign::BadConfig),
    ("Cannot load certificate", Sign::BadConfig),
    ("Cannot load inline certificate", Sign::BadConfig),
    ("Cannot load CA certificate", Sign::BadConfig),
    ("Private key does not match the certificate", Sign::BadConfig),
    ("You must define CA file", Sign::BadConfig),
    ("OPTIONS ERROR", Sign::BadConfig),
    // Reasons that servers give with AUTH_FAILED.
    ("AUTH_FAILED,Data channel", Sign::BadConfig),
    ("AUTH_FAILED,Client incompatible", Sign::BadConfig),
    ("AUTH_FAILED,TEMP", Sign::Unreachable),
    ("AUTH_FAILED,SESSION", Sign::Unreachable),
    ("NET_ADMIN capability is missing", Sign::NoNetAdmin),
    ("TUN device is not available", Sign::NoTun),
    ("Cannot open TUN/TAP", Sign::NoTun),
    ("ECONNREFUSED", Sign::Unreachable),
    ("Connection refused", Sign::Unreachable),
    ("EHOSTUNREACH", Sign::Unreachable),
    ("ENETUNREACH", Sign::Unreachable),
    ("No route to host", Sign::Unreachable),
    ("Network is unreachable", Sign::Unreachable),
    ("Connection timed out", Sign::Unreachable),
    ("TLS key negotiation failed", Sign::Unreachable),
    ("VERIFY ERROR", Sign::CertificateRejected),
    ("TLS handshake failed", Sign::TlsFailed),
    ("Wireguard setup is complete", Sign::WireguardUp),
    ("Initialization Sequence Completed", Sign::TunnelUp),
    ("failed to pass the healthcheck", Sign::Unhealthy),
    ("creating tun device", Sign::NoTun),
];

impl Sign {
    /// Whether the line is reported whatever its level: OpenVPN logs its last messages as INFO.
    fn is_reported(self) -> bool {
        matches!(self, Sign::NoLogin | Sign::Missing(_) | Sign::BadPassphrase | Sign::BadConfig)
    }
}

/// The line of gluetun when OpenVPN has exited with an error.
const EXITED: &str = "[vpn] exit status 1";
/// How many of OpenVPN's last lines are reported then.
const LAST_LINES: usize = 3;
/// How many of the last warnings and errors are kept.
const KEPT: usize = 6;
/// The maximum length of a kept line, in characters. It is much longer than what is shown, so that no secret value is cut
/// where it would not be recognized.
const LONGEST_KEPT: usize = 4096;

/// The digest of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// How often the server rejected user name and password.
    pub auth_failed: u32,
    /// OpenVPN has neither user name and password nor a client certificate.
    pub no_login: bool,
    /// The name of a missing credential.
    pub missing: Option<&'static str>,
    /// The private key is encrypted, and its passphrase is missing or wrong.
    pub bad_passphrase: bool,
    /// How often OpenVPN exited with an error.
    pub exits: u32,
    /// The server reported too many connected devices.
    pub too_many_connections: bool,
    /// No server matches the settings.
    pub no_server: bool,
    /// OpenVPN cannot read its configuration.
    pub bad_config: bool,
    /// The container lacks NET_ADMIN.
    pub no_net_admin: bool,
    /// There is no tunnel device.
    pub no_tun: bool,
    /// How often the server was unreachable or did not answer.
    pub unreachable: u32,
    /// How often the TLS handshake failed, according to its last line.
    tls_failed: u32,
    /// How often the certificate of the server was rejected, which also ends the handshake.
    certificate_rejected: u32,
    /// A WireGuard interface was set up, which does not prove that the server answers.
    pub wireguard_up: bool,
    /// OpenVPN has connected.
    pub tunnel_up: bool,
    /// How often nothing could be reached through the tunnel.
    pub unhealthy: u32,
    last: VecDeque<String>,
    /// OpenVPN's last lines of any level, reported when it exits.
    of_openvpn: VecDeque<String>,
}

impl Digest {
    /// How often the TLS handshake failed.
    pub fn tls_failures(&self) -> u32 {
        self.tls_failed.max(self.certificate_rejected)
    }

    /// Adds one line.
    pub fn push(&mut self, line: &str) {
        let line = plain(line);
        let mut is_reported = false;
        for (_, sign) in SIGNS.iter().filter(|(words, _)| line.contains(words)) {
            match sign {
                Sign::NoLogin => self.no_login = true,
                Sign::Missing(setting) => self.missing = Some(setting),
                Sign::BadPassphrase => self.bad_passphrase = true,
                Sign::Exited => self.exits = self.exits.saturating_add(1),
                Sign::AuthFailed if is_another_refusal(&line) => {}
                Sign::AuthFailed => self.auth_failed = self.auth_failed.saturating_add(1),
                Sign::TooManyConnections => self.too_many_connections |= line.contains("AUTH_FAILED"),
                Sign::NoServer => self.no_server = true,
                Sign::BadConfig => self.bad_config = true,
                Sign::NoNetAdmin => self.no_net_admin = true,
                // gluetun logs the same as INFO before it creates the device itself.
                Sign::NoTun => self.no_tun |= line.contains("ERROR"),
                Sign::Unreachable => self.unreachable = self.unreachable.saturating_add(1),
                Sign::TlsFailed => self.tls_failed = self.tls_failed.saturating_add(1),
                Sign::CertificateRejected => self.certificate_rejected = self.certificate_rejected.saturating_add(1),
                Sign::WireguardUp => self.wireguard_up = true,
                Sign::TunnelUp => self.tunnel_up = true,
                Sign::Unhealthy => self.unhealthy = self.unhealthy.saturating_add(1),
            }
            is_reported |= sign.is_reported();
        }
        if let Some(kept) = problem(&line).or_else(|| is_reported.then(|| from_level(&line))) {
            self.keep(kept);
        } else if line.contains("[openvpn]") {
            if self.of_openvpn.len() == LAST_LINES {
                self.of_openvpn.pop_front();
            }
            self.of_openvpn.push_back(from_level(&line));
        }
        if line.contains(EXITED) {
            for kept in std::mem::take(&mut self.of_openvpn) {
                self.keep(kept);
            }
        }
    }

    fn keep(&mut self, line: String) {
        if self.last.iter().any(|known| *known == line) {
            return;
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    /// Returns the last distinct warnings and errors, the oldest first.
    pub fn problems(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }
}

/// Removes colors and other control characters.
fn plain(line: &str) -> String {
    let line: String = strip_ansi_escapes::strip_str(line).chars().filter(|c| !c.is_control()).collect();
    line.trim().to_owned()
}

/// Whether the server gave a reason with AUTH_FAILED that is unrelated to user name and password.
fn is_another_refusal(line: &str) -> bool {
    let reasons = ["Data channel", "Client incompatible", "TEMP", "SESSION"];
    line.split_once("AUTH_FAILED,").is_some_and(|(_, reason)| reasons.iter().any(|known| reason.starts_with(known)))
}

/// Returns a warning or an error without its time, and `None` for any other line. OpenVPN's own messages come as INFO.
fn problem(line: &str) -> Option<String> {
    let words = ["ERROR", "WARN", "AUTH_FAILED", "refused", "No route to host"];
    words.iter().any(|word| line.contains(word)).then(|| from_level(line))
}

/// Returns a line from its level on, without its time.
fn from_level(line: &str) -> String {
    let levels = ["ERROR ", "WARN ", "INFO "];
    let start = levels.iter().filter_map(|level| line.find(level)).min().unwrap_or(0);
    line[start..].chars().take(LONGEST_KEPT).collect()
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
    fn signs_are_found_despite_colors() {
        let seen = digest(&[
            "2026-08-01T10:00:00Z \u{1b}[31mERROR\u{1b}[0m [openvpn] AUTH: Received control message: AUTH_FAILED",
            "2026-08-01T10:00:00Z INFO [openvpn] SIGUSR1[soft,auth-failure] received, process restarting",
        ]);
        assert_eq!(seen.auth_failed, 1);
        let kept: Vec<_> = seen.problems().collect();
        assert_eq!(kept, ["ERROR [openvpn] AUTH: Received control message: AUTH_FAILED"]);
    }

    #[test]
    fn reasons_of_a_rejection_are_distinguished() {
        let refused =
            |reason: &str| digest(&[&format!("INFO [openvpn] AUTH: Received control message: AUTH_FAILED{reason}")]);
        assert_eq!(refused("").auth_failed, 1);
        assert_eq!(refused(",[EXPIRED_ACCOUNT]").auth_failed, 1);
        let cipher = refused(",Data channel cipher negotiation failed (no shared cipher)");
        assert!(cipher.bad_config && cipher.auth_failed == 0);
        let later = refused(",TEMP[backoff 42,advance no]: try later");
        assert!(later.unreachable == 1 && later.auth_failed == 0);
    }

    /// OpenVPN 2.6 logs this at every start without `cipher`.
    #[test]
    fn a_note_is_not_a_sign() {
        let note = "INFO [openvpn] Note: --cipher is not set. OpenVPN versions before 2.5 defaulted to BF-CBC as fallback \
                    when cipher negotiation failed in this case.";
        assert_eq!(digest(&[note]), Digest { of_openvpn: [note.to_owned()].into(), ..Digest::default() });
    }

    #[test]
    fn the_last_lines_of_openvpn_are_reported_when_it_exits() {
        let seen = digest(&[
            "t INFO [openvpn] OpenVPN 2.6.11 x86_64-alpine-linux-musl",
            "t INFO [openvpn] library versions: OpenSSL 3.3.3",
            "t INFO [openvpn] Cipher NONE-128 not supported",
            "t INFO [openvpn] Exiting due to fatal error",
            "t ERROR [vpn] exit status 1",
            "t INFO [vpn] retrying in 15s",
        ]);
        assert_eq!(seen.exits, 1);
        let kept: Vec<_> = seen.problems().collect();
        assert!(kept.contains(&"INFO [openvpn] Cipher NONE-128 not supported"), "{kept:?}");
        assert!(!kept.iter().any(|line| line.contains("retrying")));
    }

    #[test]
    fn a_repeated_problem_is_kept_once_and_memory_is_bounded() {
        let mut seen = Digest::default();
        for i in 0..10_000 {
            seen.push(&format!("2026-08-01T10:00:0{}Z WARN same", i % 10));
            seen.push(&format!("t WARN {} {}", i, "x".repeat(10_000)));
        }
        assert_eq!(seen.problems().count(), KEPT);
        assert!(seen.problems().all(|line| line.len() <= LONGEST_KEPT));
    }
}
