//! The images for the tests. They contain programs of Debian and the Go programs in `e2e/images`.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::image::Image;
use crate::host::go;

const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/images");

/// The container that holds the namespaces of a Pod.
pub const PAUSE: &str = "localhost/pause:1";
/// A shell with the usual programs, and curl.
pub const TOOLS: &str = "localhost/tools:1";
/// A server that returns the address of its client: see [`address`].
pub const ADDRESS: &str = "localhost/address:1";
/// The VPN client with the interface of gluetun: see [`gluetun`].
pub const GLUETUN: &str = "localhost/gluetun-stand-in:v3.41.3";
/// The VPN server: see [`vpn_server`].
pub const VPN_SERVER: &str = "localhost/vpn-server:1";

/// The image with iperf3, which measures throughput.
pub const IPERF3: &str = "localhost/iperf3:1";

/// The image of OpenVPN servers: see [`openvpn`].
pub const OPENVPN: &str = "localhost/vpn-operator-openvpn:1";

/// The directory of a server with the commands that create and revoke clients.
pub const SETUP_DIR: &str = "/etc/openvpn/setup";
/// The directory of this checkout with them.
pub const SETUP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../operator/setup");

/// The image [`OPENVPN`]: this operator, with OpenVPN, iptables and a shell.
pub fn openvpn(operator: &Path) -> Result<Image> {
    let path = "/usr/local/bin/vpn-operator";
    let image = vpn_programs(Image::new(OPENVPN).entrypoint(&[path]))?.busybox()?;
    image.linked_file(path, operator)?.tree(SETUP_DIR, Path::new(SETUP))
}

/// The image [`PAUSE`].
pub fn pause() -> Result<Image> {
    go_program(PAUSE, "pause", "/pause")
}

/// The image [`TOOLS`]: a shell, busybox and curl as Debian builds them.
pub fn tools() -> Result<Image> {
    Image::new(TOOLS).busybox()?.program("/usr/bin/curl")
}

/// The image [`IPERF3`].
pub fn iperf3() -> Result<Image> {
    Image::new(IPERF3).busybox()?.program("/usr/bin/iperf3")
}

/// The image [`ADDRESS`]: an HTTP server that answers `GET /` with the address of the client, `GET /json` with
/// `{"ip": …}`, and `GET /count` with the number of other requests from each address, one line each: `10.244.0.7 3`.
pub fn address() -> Result<Image> {
    go_program(ADDRESS, "address", "/address")
}

/// The image [`GLUETUN`]: Debian's openvpn and wireguard-go behind the part of the interface of gluetun v3.41.3 that an
/// operator and its users rely on. `e2e/images/gluetun/main.go` describes that part.
pub fn gluetun() -> Result<Image> {
    // The hooks of users need the shell that gluetun has.
    vpn_programs(go_program(GLUETUN, "gluetun", "/gluetun-entrypoint")?)?.busybox()
}

/// The image [`VPN_SERVER`]: openvpn, wireguard-go, iptables and a shell.
pub fn vpn_server() -> Result<Image> {
    vpn_programs(Image::new(VPN_SERVER))?.busybox()
}

fn vpn_programs(image: Image) -> Result<Image> {
    openvpn_programs(image)?.program("/usr/bin/wireguard-go")?.program("/usr/bin/wg")
}

/// Adds OpenVPN, iptables with its modules, and `ip`.
pub fn openvpn_programs(image: Image) -> Result<Image> {
    let modules = fs::read_dir("/usr/lib")?
        .filter_map(|entry| Some(entry.ok()?.path().join("xtables")))
        .find(|dir| dir.is_dir())
        .context("there are no modules of iptables in /usr/lib/*/xtables")?;
    image
        .program("/usr/sbin/openvpn")?
        .program("/usr/sbin/xtables-nft-multi")?
        .link("/usr/sbin/iptables", "xtables-nft-multi")
        .tree(&modules.to_string_lossy(), &modules)?
        // /usr/sbin/ip is a link to it on Debian.
        .program("/bin/ip")
}

fn go_program(name: &str, program: &str, path: &str) -> Result<Image> {
    Image::new(name).entrypoint(&[path]).file(path, &go::programs(Path::new(MODULE), "images")?.join(program))
}
