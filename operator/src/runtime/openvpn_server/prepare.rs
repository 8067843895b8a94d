//! Prepares the start of OpenVPN: the device, forwarding, rules, and files that others can read.

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, bail, ensure};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::openvpn::firewall::Step;

/// The number of the device in Linux.
const TUN: (u32, u32) = (10, 200);

/// Makes the device for tunnels if it is missing, and checks that it can be used.
///
/// # Errors
/// If the container may not.
pub fn tun(device: &Path) -> anyhow::Result<()> {
    if !device.exists() {
        let path = device.display();
        create(device).with_context(|| {
            format!(
                "TunUnavailable: cannot create {path}: the container needs the capability MKNOD, or the node a device \
                 plugin"
            )
        })?;
    }
    OpenOptions::new().read(true).write(true).open(device).map(drop).with_context(|| {
        let path = device.display();
        format!(
            "TunUnavailable: cannot open {path}: the node needs the kernel module tun, and a container runtime that \
             allows the device, or a device plugin"
        )
    })
}

fn create(device: &Path) -> io::Result<()> {
    if let Some(directory) = device.parent() {
        fs::create_dir_all(directory)?;
    }
    let mode = Mode::from_raw_mode(0o666);
    Ok(mknodat(CWD, device, FileType::CharacterDevice, mode, makedev(TUN.0, TUN.1))?)
}

/// Checks that the kernel forwards packets, and asks it to if it does not.
///
/// # Errors
/// If it does not, and the container may not change that.
pub fn forwarding(setting: &Path) -> anyhow::Result<()> {
    let path = setting.display();
    let is_on = || fs::read_to_string(setting).is_ok_and(|value| value.trim() == "1");
    if is_on() {
        return Ok(());
    }
    let written = fs::write(setting, "1");
    if is_on() {
        tracing::info!("IPv4 forwarding was off, and is on now");
        return Ok(());
    }
    let reason = written.err().map_or_else(|| "it stays off".to_owned(), |error| error.to_string());
    bail!("ForwardingDisabled: {path} is not 1, and cannot be set ({reason})")
}

/// Applies the rules.
///
/// # Errors
/// If `iptables` refuses one.
pub fn firewall(iptables: &OsStr, steps: &[Step]) -> anyhow::Result<()> {
    let call = |arguments: &[String]| {
        let output = Command::new(iptables).args(arguments).stdin(Stdio::null()).output();
        output.with_context(|| format!("cannot run {}", iptables.display()))
    };
    for step in steps {
        if let Some(unless) = &step.unless
            && call(unless)?.status.success()
        {
            continue;
        }
        let output = call(&step.arguments)?;
        let (command, error) = (step.arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        ensure!(
            output.status.success(),
            "FirewallUnavailable: iptables {command}: {}: the container needs the capability NET_ADMIN",
            error.trim()
        );
    }
    Ok(())
}

/// Creates the status file, because OpenVPN creates it so that only root can read it.
///
/// # Errors
/// If the directory is not writable.
pub fn status_file(path: &Path) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).mode(0o644).open(path).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn forwarding_is_turned_on_only_if_it_is_off() {
        let directory = tempfile::tempdir().unwrap();
        let setting = directory.path().join("ip_forward");
        fs::write(&setting, "0\n").unwrap();
        forwarding(&setting).unwrap();
        assert_eq!(fs::read_to_string(&setting).unwrap(), "1");
        forwarding(&setting).unwrap();
        let error = forwarding(directory.path()).expect_err("not a file").to_string();
        assert!(error.starts_with("ForwardingDisabled: "), "{error}");
    }

    #[test]
    fn a_device_that_cannot_be_made_is_explained() {
        let error = tun(Path::new("/proc/net/tun")).expect_err("not writable");
        assert!(error.to_string().starts_with("TunUnavailable: cannot create /proc/net/tun: "), "{error}");
        assert!(error.to_string().contains("the container needs the capability MKNOD, or the node a device plugin"));
        let error = tun(Path::new("/proc/self")).expect_err("not a device").to_string();
        assert!(error.starts_with("TunUnavailable: cannot open /proc/self: "), "{error}");
    }

    #[test]
    fn rules_are_applied_in_order_and_a_refusal_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let (program, log) = (directory.path().join("iptables"), directory.path().join("log"));
        let script =
            format!("#!/bin/sh\necho \"$*\" >> {}\n[ \"$1\" != no ] || {{ echo bad >&2; exit 1; }}\n", log.display());
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let step = |arguments: &str, unless: Option<&str>| Step {
            arguments: vec![arguments.into()],
            unless: unless.map(|unless| vec![unless.into()]),
        };
        let steps = [step("one", None), step("two", Some("no")), step("three", Some("yes"))];
        firewall(program.as_os_str(), &steps).unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "one\nno\ntwo\nyes\n");
        let error = firewall(program.as_os_str(), &[step("no", None)]).expect_err("refused").to_string();
        assert!(error.starts_with("FirewallUnavailable: iptables no: bad"), "{error}");
    }

    #[test]
    fn others_can_read_the_status_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status.log");
        fs::write(&path, "old").unwrap();
        status_file(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        fs::remove_file(&path).unwrap();
        status_file(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }
}
