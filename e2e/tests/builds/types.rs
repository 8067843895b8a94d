//! `vpn-types` on its own, as other projects use it.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, ensure};
use e2e::host::cargo;

pub fn vpn_types_builds_alone_without_the_operator() -> Result<()> {
    // As published, without the workspace.
    let packages = Path::new(cargo::ROOT).canonicalize()?.join("target/clients");
    let mut package = cargo::command();
    package.args(["package", "--package=vpn-types", "--locked", "--allow-dirty", "--no-verify", "--target-dir"]);
    cargo::output(package.arg(&packages))?;
    let dir = tempfile::tempdir()?;
    let archive = format!("package/vpn-types-{}.crate", env!("CARGO_PKG_VERSION"));
    cargo::output(Command::new("tar").arg("-xzf").arg(packages.join(archive)).arg("-C").arg(dir.path()))?;

    // A client in another project: the example in types/README.md.
    let client = dir.path().join("client");
    fs::create_dir_all(client.join("src"))?;
    let manifest = format!(
        "[package]\nname = \"client\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[dependencies]\n\
         vpn-types = {{ path = \"../vpn-types-{}\" }}\n\
         k8s-openapi = {{ version = \"0.29\", default-features = false, features = [\"v1_36\"] }}\n\
         kube = {{ version = \"5\", default-features = false, features = [\"client\", \"ring\", \"rustls-tls\"] }}\n\
         serde_json = \"1\"\n\
         tokio = {{ version = \"1\", features = [\"macros\", \"rt-multi-thread\"] }}\n\n[workspace]\n",
        env!("CARGO_PKG_VERSION"),
    );
    fs::write(client.join("Cargo.toml"), manifest)?;
    // The versions of the workspace, so that nothing else has to be downloaded.
    fs::copy(Path::new(cargo::ROOT).join("Cargo.lock"), client.join("Cargo.lock"))?;
    fs::copy(Path::new(cargo::ROOT).join("types/examples/run_with_vpn.rs"), client.join("src/main.rs"))?;
    let mut check = cargo::command();
    check.current_dir(&client).args(["check", "--target-dir"]).arg(packages.join("check"));
    cargo::output(&mut check)?;
    let mut tree = cargo::command();
    let tree = cargo::output(tree.current_dir(&client).args(["tree", "--edges=normal,build", "--prefix=none"]))?;
    ensure!(tree.contains("vpn-types v"), "{tree}");
    for not_a_clients in ["vpn-operator", "e2e", "axum", "clap", "prometheus"] {
        ensure!(!tree.lines().any(|line| line.starts_with(&format!("{not_a_clients} "))), "{not_a_clients}:\n{tree}");
    }
    Ok(())
}
