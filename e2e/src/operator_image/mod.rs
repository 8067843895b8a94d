//! The container image of the operator, created without a container engine: a static binary, the licenses, and an archive of
//! both.
//!
//! Invariant: the same source and the same toolchain result in the same bytes. The image contains no time, user, or path of
//! the machine.

mod licenses;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::host::cargo;

/// The name of the image, with the version of this checkout.
pub const NAME: &str = concat!("docker.io/thavlik/vpn-operator:", env!("CARGO_PKG_VERSION"));
/// The entrypoint of the image.
pub const ENTRYPOINT: &str = "/vpn-operator";
/// The user and group of the entrypoint. They own no files.
pub const USER: &str = "65532:65532";
/// The cargo profile of the binary.
const PROFILE: &str = "image";
/// The target directory, relative to the root of the checkout.
const DIR: &str = "target/image";
const EPOCH: &str = "1970-01-01T00:00:00Z";

/// Writes the files of the image to a new directory: `/vpn-operator` and `/licenses`.
pub fn root(dir: &Path) -> Result<()> {
    let _one_at_a_time = lock()?;
    fill(dir)
}

/// Does the same, but builds the operator again. Its dependencies are not built again.
pub fn root_anew(dir: &Path) -> Result<()> {
    let _one_at_a_time = lock()?;
    let mut clean = cargo::command();
    clean.args(["clean", "--package=vpn-operator", "--package=vpn-types", "--profile", PROFILE, "--target-dir", DIR]);
    let cleaned = clean.args(["--target", &host()?]).output().context("cannot run cargo")?;
    ensure!(cleaned.status.success(), "cargo clean failed");
    fill(dir)
}

/// Locks the target directory while a binary is built and copied, because another process may build it again.
fn lock() -> Result<fs::File> {
    let dir = Path::new(cargo::ROOT).join(DIR);
    fs::create_dir_all(&dir)?;
    let file = fs::File::create(dir.join("lock"))?;
    file.lock()?;
    Ok(file)
}

fn fill(dir: &Path) -> Result<()> {
    let target = host()?;
    let binary = static_binary(&target)?;
    fs::create_dir_all(dir)?;
    ensure!(fs::read_dir(dir)?.next().is_none(), "{} is not empty", dir.display());
    fs::copy(binary, dir.join("vpn-operator")).context("cannot copy the binary")?;
    licenses::collect(&target, &dir.join("licenses"))
}

/// Packs a directory that [`root`] created as an OCI image layout in a tar archive, which `docker load`, `podman load`,
/// `skopeo copy oci-archive:` and `ctr images import` take.
pub fn archive(root: &Path, output: &Path) -> Result<()> {
    let layer = layer(root)?;
    let platform = json!({ "architecture": architecture(&host()?)?, "os": "linux" });
    let config = json!({
        "created": EPOCH,
        "architecture": platform["architecture"],
        "os": platform["os"],
        "config": {
            "User": USER,
            "Entrypoint": [ENTRYPOINT],
            "WorkingDir": "/",
            "Labels": labels(),
        },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        "history": [{ "created": EPOCH, "created_by": "vpn-operator and its licences" }],
    });
    let (config, mut blobs) = (serde_json::to_vec(&config)?, BTreeMap::new());
    let mut add = |media_type: &str, bytes: Vec<u8>| {
        let descriptor = json!({ "mediaType": media_type, "digest": digest(&bytes), "size": bytes.len() });
        let path = format!("blobs/sha256/{}", digest(&bytes).trim_start_matches("sha256:"));
        blobs.insert(path.clone(), bytes);
        (descriptor, path)
    };
    let (layer, layer_path) = add("application/vnd.oci.image.layer.v1.tar", layer);
    let (config, config_path) = add("application/vnd.oci.image.config.v1+json", config);
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [layer] });
    let (mut manifest, _) = add(manifest_type, serde_json::to_vec(&manifest)?);
    manifest["platform"] = platform;
    let tag = NAME.rsplit(':').next();
    manifest["annotations"] = json!({ "io.containerd.image.name": NAME, "org.opencontainers.image.ref.name": tag });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    // Older versions of `docker load` do not know the OCI layout.
    let short = NAME.trim_start_matches("docker.io/");
    let docker = json!([{ "Config": config_path, "RepoTags": [short], "Layers": [layer_path] }]);
    blobs.insert("index.json".into(), serde_json::to_vec(&index)?);
    blobs.insert("manifest.json".into(), serde_json::to_vec(&docker)?);
    blobs.insert("oci-layout".into(), serde_json::to_vec(&json!({ "imageLayoutVersion": "1.0.0" }))?);

    let file = fs::File::create(output).with_context(|| format!("cannot write {}", output.display()))?;
    let mut tar = Builder::new(file);
    for dir in ["blobs/", "blobs/sha256/"] {
        append(&mut tar, dir, EntryType::Directory, 0o755, &[])?;
    }
    for (path, bytes) in &blobs {
        append(&mut tar, path, EntryType::Regular, 0o644, bytes)?;
    }
    tar.into_inner()?.sync_all()?;
    Ok(())
}

/// The labels, as in the Dockerfile.
pub fn labels() -> Value {
    json!({
        "org.opencontainers.image.title": "vpn-operator",
        "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
        "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
        "org.opencontainers.image.source": "https://github.com/thavlik/vpn-operator",
    })
}

/// A directory as a tar archive. Root owns all files.
fn layer(root: &Path) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    let mut entries = Vec::new();
    walk(root, &mut entries)?;
    for path in entries {
        let name = path.strip_prefix(root)?.to_str().context("the path is not UTF-8")?;
        if path.is_dir() {
            append(&mut tar, &format!("{name}/"), EntryType::Directory, 0o755, &[])?;
        } else {
            let mode = if name == ENTRYPOINT.trim_start_matches('/') { 0o755 } else { 0o644 };
            append(&mut tar, name, EntryType::Regular, mode, &fs::read(&path)?)?;
        }
    }
    Ok(tar.into_inner()?)
}

/// The files below a directory, in the order of names, with each directory before its contents.
fn walk(dir: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    entries.sort();
    for path in entries {
        into.push(path.clone());
        if path.is_dir() {
            walk(&path, into)?;
        }
    }
    Ok(())
}

fn append<W: std::io::Write>(tar: &mut Builder<W>, path: &str, kind: EntryType, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, path, bytes).with_context(|| format!("cannot archive {path}"))
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Builds the operator as a static binary.
fn static_binary(target: &str) -> Result<PathBuf> {
    let source = Path::new(cargo::ROOT).canonicalize()?;
    let home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => env::home_dir().context("neither CARGO_HOME nor HOME is set")?.join(".cargo"),
    };
    // Panic messages contain the paths of source files.
    let places = [(home.as_path(), "/cargo"), (source.as_path(), "/source")];
    let rust = places.map(|(place, name)| format!("--remap-path-prefix={}={name}", place.display()));
    let c = places.map(|(place, name)| format!("-ffile-prefix-map={}={name}", place.display()));
    let flags = ["-Ctarget-feature=+crt-static", &rust[0], &rust[1]].join("\u{1f}");
    let mut build = cargo::command();
    build.args(["build", "--locked", "--package=vpn-operator", "--bin=vpn-operator", "--profile", PROFILE]);
    // With a target, the flags do not apply to build scripts and procedural macros, which cannot be static.
    build.args(["--target", target, "--target-dir", DIR]);
    cargo::built(build.env("CARGO_ENCODED_RUSTFLAGS", flags).env("CFLAGS", c.join(" ")))
}

/// The target triple of this machine.
pub fn host() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = std::process::Command::new(rustc).arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not print its host")?;
    Ok(host.to_owned())
}

/// The name of the architecture in the OCI image specification.
fn architecture(target: &str) -> Result<&'static str> {
    match target.split('-').next() {
        Some("x86_64") => Ok("amd64"),
        Some("aarch64") => Ok("arm64"),
        _ => bail!("no image for {target}: amd64 and arm64 are supported"),
    }
}
