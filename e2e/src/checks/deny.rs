//! cargo-deny, installed in the user's cache directory on first use.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};

use e2e::host::{cache_dir, cargo::ROOT};

use super::{Outcome, Runner, cargo};

/// Pinned, so that a checkout gives the same result everywhere.
const VERSION: &str = "0.20.2";

/// `cargo-deny`, without a subcommand.
pub fn command() -> Result<Command> {
    let program = ensure_installed()?;
    let mut command = Command::new(program);
    command.current_dir(ROOT);
    Ok(command)
}

/// Checks dependencies for known vulnerabilities. Some networks block the git repository with the advisory database.
pub fn advisories(runner: &Runner) -> Result<Outcome> {
    let fetch = command()?.args(["fetch", "db"]).stdin(Stdio::null()).output()?;
    if !fetch.status.success() {
        let message = String::from_utf8_lossy(&fetch.stderr);
        let why = message.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given").trim();
        return Ok(Outcome::skipped(&format!("the advisory database cannot be fetched: {why}")));
    }
    runner.check(command()?.args(["check", "--disable-fetch", "advisories"]))
}

fn ensure_installed() -> Result<PathBuf> {
    let tools = cache_dir("tools")?;
    let dir = tools.join(format!("cargo-deny-{VERSION}"));
    let program = dir.join("bin/cargo-deny");
    if program.is_file() {
        return Ok(program);
    }
    println!("installing cargo-deny {VERSION} into {}: needed once, takes a few minutes", dir.display());
    fs::create_dir_all(&tools)?;
    let unfinished = tempfile::Builder::new().prefix(".installing-").tempdir_in(&tools)?;
    // Optimization would take longer than it saves.
    let status = cargo(&["install", "cargo-deny", "--locked", "--debug", "--version", VERSION])
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .arg("--root")
        .arg(unfinished.path())
        // Outside the checkout's target directory, so that `cargo clean` does not remove it.
        .env("CARGO_TARGET_DIR", unfinished.path().join("target"))
        .stdin(Stdio::null())
        .status()?;
    ensure!(status.success(), "cargo-deny cannot be installed ({status}); the messages are above");
    fs::remove_dir_all(unfinished.path().join("target"))?;
    // Only the rename makes the result visible, so an interrupted build leaves no partial result.
    if let Err(error) = fs::rename(unfinished.path(), &dir) {
        // Another run installed it first.
        ensure!(program.is_file(), "cargo-deny cannot be put into {}: {error}", dir.display());
    }
    Ok(program)
}
