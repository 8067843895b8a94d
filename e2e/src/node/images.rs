//! The images for the tests. They contain programs of Debian and the Go programs in `e2e/images`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use e2e_build::binaries::NO_DEBUG_DATA;
use sha2::{Digest, Sha256};

use super::image::Image;
use crate::host::{cache_dir, command::run};

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

/// The image [`PAUSE`].
pub fn pause() -> Result<Image> {
    go_program(PAUSE, "pause", "/pause")
}

/// The image [`TOOLS`]: a shell, busybox and curl as Debian builds them.
pub fn tools() -> Result<Image> {
    Image::new(TOOLS).busybox()?.program("/usr/bin/curl")
}

/// The image [`ADDRESS`]: an HTTP server that answers `GET /` with the address the request came from, `GET /json`
/// with `{"ip": …}`, and `GET /count` with how many other requests there were, a line for each address: `10.244.0.7 3`.
pub fn address() -> Result<Image> {
    go_program(ADDRESS, "address", "/address")
}

/// The image [`GLUETUN`]: the interface of gluetun v3.41.3 as far as an operator and its users rely on it, around
/// Debian's openvpn and wireguard-go. What it keeps is told in `e2e/images/gluetun/main.go`.
pub fn gluetun() -> Result<Image> {
    // Users' hooks rely on the shell that it has.
    vpn_programs(go_program(GLUETUN, "gluetun", "/gluetun-entrypoint")?)?.busybox()
}

/// The image [`VPN_SERVER`]: openvpn, wireguard-go, iptables and a shell.
pub fn vpn_server() -> Result<Image> {
    vpn_programs(Image::new(VPN_SERVER))?.busybox()
}

fn vpn_programs(image: Image) -> Result<Image> {
    let modules = fs::read_dir("/usr/lib")?
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("xtables"))
        .find(|dir| dir.is_dir())
        .context("there are no modules of iptables in /usr/lib/*/xtables")?;
    image
        .program("/usr/sbin/openvpn")?
        .program("/usr/bin/wireguard-go")?
        .program("/usr/bin/wg")?
        .program("/usr/sbin/xtables-nft-multi")?
        .link("/usr/sbin/iptables", "xtables-nft-multi")
        .directory(&modules.to_string_lossy())?
        // /usr/sbin/ip is a link to it on Debian.
        .program("/bin/ip")
}

fn go_program(name: &str, program: &str, path: &str) -> Result<Image> {
    Image::new(name).entrypoint(&[path]).file(path, &programs()?.join(program))
}

/// The directory of the Go programs. They are built at the first use of a version.
fn programs() -> Result<PathBuf> {
    let version = run(Command::new("go").current_dir(MODULE).args(["env", "GOVERSION"]))
        .context("some images hold Go programs: install Go and have `go` in PATH")?;
    let mut hash = Sha256::new();
    hash.update(version);
    hash_sources(Path::new(MODULE), &mut hash)?;
    let name: String = hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let cache = cache_dir("images")?;
    let built = cache.join(name);
    if built.is_dir() {
        return Ok(built);
    }
    fs::create_dir_all(&cache)?;
    let unfinished = tempfile::Builder::new().prefix(".building-").tempdir_in(&cache)?;
    let mut command = Command::new("go");
    command.current_dir(MODULE).env("CGO_ENABLED", "0");
    command.args(["build", "-trimpath", NO_DEBUG_DATA, "-ldflags=-s -w", "-o"]);
    run(command.arg(unfinished.path()).arg("./..."))?;
    // Only the rename makes the result visible, so an interrupted build leaves no partial result.
    match fs::rename(unfinished.path(), &built) {
        Ok(()) => drop(unfinished.keep()),
        // Another process was quicker.
        Err(_) if built.is_dir() => {}
        Err(error) => bail!("cannot create {}: {error}", built.display()),
    }
    Ok(built)
}

fn hash_sources(dir: &Path, hash: &mut Sha256) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut paths: Vec<_> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            hash_sources(&path, hash)?;
        } else {
            hash.update(path.as_os_str().as_encoded_bytes());
            hash.update(Sha256::digest(fs::read(&path)?));
        }
    }
    Ok(())
}
