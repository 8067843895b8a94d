//! The Debian packages that a node and images need. Missing ones are installed.

use std::{env, fs, io::Write, os::unix::fs::PermissionsExt, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::containerd::RUNTIME;

/// A file, and the package that contains it.
pub type Package = (&'static str, &'static str);

const BUSYBOX: Package = ("/bin/busybox", "busybox-static");
const IPROUTE2: Package = ("/bin/ip", "iproute2");
const IPTABLES: Package = ("/usr/sbin/iptables", "iptables");
const OPENVPN: Package = ("/usr/sbin/openvpn", "openvpn");

/// The packages that a node needs, and that tests of programs without a cluster need.
pub const NODE: [Package; 11] = [
    ("/usr/bin/containerd", "containerd"),
    (RUNTIME, "crun"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    IPROUTE2,
    IPTABLES,
    OPENVPN,
    ("/usr/bin/openssl", "openssl"),
    ("/usr/bin/wireguard-go", "wireguard-go"),
    ("/usr/bin/wg", "wireguard-tools"),
    BUSYBOX,
    ("/usr/bin/curl", "curl"),
];
/// The packages in the image of OpenVPN servers.
pub const SERVERS: [Package; 4] = [BUSYBOX, IPROUTE2, IPTABLES, OPENVPN];
/// The package that measures network throughput.
pub const IPERF3: [Package; 1] = [("/usr/bin/iperf3", "iperf3")];

/// Maintainer scripts of packages ask this program before they start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

fn missing(packages: &[Package]) -> Vec<&'static str> {
    packages.iter().filter(|(file, _)| !Path::new(file).exists()).map(|&(_, package)| package).collect()
}

/// The reason why the packages cannot be installed, if there is one.
pub fn unavailable(packages: &[Package]) -> Option<String> {
    let missing = missing(packages);
    let debian = Path::new("/etc/debian_version").exists() && Path::new("/usr/bin/apt-get").exists();
    (!missing.is_empty() && !debian)
        .then(|| format!("it needs Debian, or the programs of {} at the same paths as on Debian", missing.join(", ")))
}

/// Installs missing packages. Prints a message first. No service is started.
pub fn ensure(packages: &[Package]) -> Result<()> {
    if missing(packages).is_empty() {
        return Ok(());
    }
    // Only one process installs packages at a time.
    let lock = fs::File::create(env::temp_dir().join("vpn-operator-e2e-packages.lock"))?;
    lock.lock()?;
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    let said = format!("e2e: installing the Debian packages {} (apt-get, no service is started)", missing.join(", "));
    // A test harness hides the output of `eprintln!`.
    writeln!(std::io::stderr(), "{said}")?;
    let _policy = Policy::forbid_services()?;
    // The package lists may be older than the packages on the mirror.
    apt_get(&["update"])?;
    apt_get(&[&["install", "--yes", "--no-install-recommends"], &missing[..]].concat())
}

fn apt_get(args: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(["--quiet", "-o", "DPkg::Lock::Timeout=300"]).args(args).env("DEBIAN_FRONTEND", "noninteractive");
    let output = command.output().context("cannot run apt-get")?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "apt-get {} failed:\n{}", args.join(" "), String::from_utf8_lossy(&said));
    Ok(())
}

/// Keeps packages from starting services until it is dropped.
struct Policy {
    ours: bool,
}

impl Policy {
    fn forbid_services() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(Self { ours: true })
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.ours {
            drop(fs::remove_file(POLICY));
        }
    }
}
