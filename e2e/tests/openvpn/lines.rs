//! A real OpenVPN reads configuration lines of users.

use vpn_operator::openvpn::config::{ServerConfig, check_lines};

use crate::fixtures::{Server, config};

pub fn a_server_starts_with_the_lines_that_are_accepted() {
    let certificate = crate::fixtures::authority();
    let block: Vec<_> = certificate.certificate().lines().map(str::to_owned).collect();
    let mut lines = ["verb 4", "client-to-client", "keepalive 5 30", "push \"route 10.0.0.0 255.0.0.0\"", "# comment"]
        .map(str::to_owned)
        .to_vec();
    lines.push("<extra-certs>".to_owned());
    lines.extend(block);
    lines.push("</extra-certs>".to_owned());
    lines.push("setenv opt unknown-option x".to_owned());
    lines.push(format!("setenv LONG {}", "x".repeat(250 - 12)));
    assert_eq!(check_lines(&lines), Ok(()));
    let server = Server::start(ServerConfig { lines, ..config() });
    assert!(server.clients().is_empty());
}
