//! Measurements that tests print.

use std::{
    fs,
    io::{Write, stderr},
};

use anyhow::{Context, Result};

/// Prints a measurement, whether or not the test passes.
pub fn report(figures: &str) {
    // The test harness hides the output of `eprintln!`.
    drop(writeln!(stderr(), "figures: {figures}"));
}

/// The median, or the upper one of two.
///
/// # Errors
/// When there are no measurements.
pub fn median(mut all: Vec<f64>) -> Result<f64> {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().context("nothing measured")
}

/// A field of `/proc/PID/status` of an operator, such as `VmRSS:` or `VmHWM:`, in KiB. With a node that runs containers, the
/// PID is the one inside of the PID namespace.
///
/// # Errors
/// When there is no such process or figure.
pub fn memory_kib(pid: i32, field: &str) -> Result<u64> {
    let pid = pid.to_string();
    let innermost = |status: &str| {
        let line = status.lines().find(|line| line.starts_with("NSpid:"))?;
        Some((line.split_whitespace().count(), line.split_whitespace().next_back()? == pid))
    };
    let processes =
        fs::read_dir("/proc")?.filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("status")).ok());
    let ours = processes.filter(|status| status.starts_with("Name:\tvpn-operator"));
    // Prefers a process with that PID in a PID namespace of its own to an unrelated one of this namespace.
    let status = ours.filter_map(|status| Some((innermost(&status).filter(|found| found.1)?.0, status))).max();
    let (_, status) = status.with_context(|| format!("no operator {pid}"))?;
    let line = status.lines().find(|line| line.starts_with(field)).with_context(|| format!("no {field}"))?;
    let kib: u64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
    Ok(kib)
}

/// A field of `/proc/PID/status` of an operator, in MiB.
///
/// # Errors
/// As [`memory_kib`].
pub fn memory(pid: i32, field: &str) -> Result<u64> {
    memory_kib(pid, field).map(|kib| kib / 1024)
}
