//! Runs cargo from programs that cargo itself runs.

use std::{env, process::Command};

/// The root of the checkout.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Returns a cargo command that behaves as in a terminal at the root of the checkout.
pub fn command() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(ROOT);
    // `cargo run` and `cargo test` describe the package in environment variables. If another cargo inherits them, it
    // rebuilds everything that depends on them: ring, and the crates above it.
    for (name, _) in env::vars_os() {
        let known = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| known.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}
