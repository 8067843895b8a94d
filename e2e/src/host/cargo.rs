//! cargo, run by programs that cargo itself runs.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

pub use e2e_build::cargo::{ROOT, command};

/// Runs `cargo build` for one executable, shows its messages, and returns the path of the executable.
pub fn built(build: &mut Command) -> Result<PathBuf> {
    build.arg("--message-format=json-render-diagnostics").stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = build.output().context("cannot run cargo")?;
    ensure!(output.status.success(), "{build:?} failed; its messages are above");
    let messages = String::from_utf8(output.stdout)?;
    let executable = |line: &str| serde_json::from_str::<Value>(line).ok()?["executable"].as_str().map(PathBuf::from);
    messages.lines().filter_map(executable).next_back().with_context(|| format!("{build:?} names no executable"))
}

/// Runs a command and returns its standard output. On failure, the error contains its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
