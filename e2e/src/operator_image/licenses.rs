//! The licenses of everything that is linked into the operator.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::host::cargo;

/// The names of license files in crates.
const FILES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
const LINKED: &str = "\
vpn-operator is licensed under MIT or Apache-2.0, as you like: LICENSE-MIT, LICENSE-APACHE.

Linked into it are
- the crates in third-party/, each under its own licence,
- the Rust standard library: MIT or Apache-2.0, https://github.com/rust-lang/rust
- the GNU C Library: LGPL-2.1-or-later, https://sourceware.org/glibc. To link the operator with another version of it,
  build it from its source: https://github.com/thavlik/vpn-operator
";

/// Writes the licenses of the operator and of its dependencies to a directory.
pub fn collect(target: &str, into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    fs::write(into.join("README"), LINKED)?;
    for own in ["LICENSE-MIT", "LICENSE-APACHE"] {
        fs::copy(Path::new(cargo::ROOT).join(own), into.join(own)).with_context(|| format!("no {own}"))?;
    }
    for package in linked(target)? {
        let text = |field: &str| package[field].as_str().unwrap_or_default();
        let manifest = Path::new(text("manifest_path"));
        let source = manifest.parent().context("no directory")?;
        let dir = into.join("third-party").join(format!("{}-{}", text("name"), text("version")));
        fs::create_dir_all(&dir)?;
        // Many crates do not contain the license file of their workspace.
        fs::write(dir.join("ABOUT"), format!("{}\n{}\n", text("license"), text("repository")))?;
        for entry in fs::read_dir(source)? {
            let entry = entry?;
            let name = entry.file_name().into_string().unwrap_or_default();
            let is_license = FILES.iter().any(|known| name.to_uppercase().starts_with(known));
            if is_license && entry.file_type()?.is_file() {
                fs::copy(entry.path(), dir.join(name))?;
            }
        }
    }
    Ok(())
}

/// The third-party crates that the operator is built from. This includes crates that only run during the build if cargo does
/// not distinguish them.
fn linked(target: &str) -> Result<Vec<Value>> {
    let output = cargo::command()
        .args(["metadata", "--locked", "--format-version=1", "--filter-platform", target])
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let id = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<String, Value> =
        list(&metadata["packages"]).into_iter().map(|package| (id(&package["id"]), package)).collect();
    let nodes: BTreeMap<String, Value> =
        list(&metadata["resolve"]["nodes"]).into_iter().map(|node| (id(&node["id"]), node)).collect();
    let operator = packages.iter().find(|(_, package)| package["name"] == "vpn-operator");
    let mut open = vec![operator.context("no package vpn-operator")?.0.clone()];
    let mut seen: BTreeSet<String> = open.iter().cloned().collect();
    while let Some(node) = open.pop().and_then(|id| nodes.get(&id)) {
        for dependency in list(&node["deps"]) {
            let normal = list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            let package = id(&dependency["pkg"]);
            if normal && seen.insert(package.clone()) {
                open.push(package);
            }
        }
    }
    let of_others = |package: &&Value| !package["source"].is_null();
    Ok(seen.iter().filter_map(|id| packages.get(id)).filter(of_others).cloned().collect())
}
