//! cargo, run by programs that cargo itself runs.

use std::{
    env,
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};

/// The root of the checkout.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// cargo, as it would run in a terminal at the root of the checkout.
pub fn command() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(ROOT);
    // `cargo run` and `cargo test` tell their programs about the package. Handed on to
    // another cargo, that makes it build again what depends on the same variables: ring,
    // and all that is built on it.
    for (name, _) in env::vars_os() {
        let known = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| known.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs a command, cargo or what it built, and gives its output, with its messages on failure.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
