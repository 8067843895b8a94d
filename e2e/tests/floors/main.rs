//! The modules of a crate form floors: a module does not import from the floors above it. [`check`] has the rules.

mod check;
mod paths;

use std::path::Path;

use anyhow::{Result, ensure};

/// The floors of `e2e/src`, from the bottom up: the library, then the binary.
const E2E: &[&[&str]] = &[
    &["host", "network", "wait"],
    &["auth", "operator_image", "pods"],
    &["audit", "process"],
    &["faults", "history", "tools"],
    &["node"],
    &["control_plane", "servers_image"],
    &["cluster"],
    &["operator"],
    &["testing"],
    &["vpn"],
    &["lib"],
    &["checks", "demo"],
    &["commands"],
    &["main"],
];

/// The floors of `operator/src`, from the bottom up.
const OPERATOR: &[&[&str]] = &[
    &["gluetun", "openvpn", "pki"],
    &["issuing"],
    &["model"],
    &["state"],
    &["allocator", "capacity", "certificates", "hpa", "scrape"],
    &["controllers", "injection"],
    &["engine"],
    &["metrics"],
    &["metrics_api"],
    &["runtime"],
    &["cli"],
    &["process"],
    &["lib"],
    &["main"],
];

/// Fails with all violations that [`check::check`] finds in a directory of this repository.
fn floors(dir: &str, crate_name: &str, floors: &[&[&str]]) -> Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(dir);
    let violations = check::check(&dir, crate_name, floors)?;
    ensure!(violations.is_empty(), "{}", violations.join("\n"));
    Ok(())
}

#[test]
fn no_module_of_e2e_imports_one_above_it() -> Result<()> {
    floors("e2e/src", "e2e", E2E)
}

#[test]
fn no_module_of_the_operator_imports_one_above_it() -> Result<()> {
    floors("operator/src", "vpn-operator", OPERATOR)
}
