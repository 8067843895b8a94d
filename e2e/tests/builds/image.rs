//! The container image of the operator: its contents, that it runs on its own, and that its build is reproducible.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, ensure};
use e2e::{host::cargo, operator_image, testing::framework::ensure_eq};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::Archive;

/// Returns the contents of the image, built once.
pub fn root() -> Result<&'static Path> {
    static ROOT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let build = || {
        let dir = tempfile::tempdir()?.keep();
        operator_image::root(&dir).map(|()| dir)
    };
    match ROOT.get_or_init(|| build().map_err(|error| format!("{error:#}"))) {
        Ok(dir) => Ok(dir),
        Err(error) => anyhow::bail!("{error}"),
    }
}

/// The files of an archive by their paths.
pub type Files = BTreeMap<String, (tar::Header, Vec<u8>)>;

/// Returns the files of an archive.
pub fn files(archive: impl Read) -> Result<Files> {
    let mut files = BTreeMap::new();
    for entry in Archive::new(archive).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_str().context("a path that is not UTF-8")?.to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        files.insert(path, (entry.header().clone(), bytes));
    }
    Ok(files)
}

/// Returns the blob of a descriptor, after checking its digest and size.
fn blob<'a>(files: &'a Files, descriptor: &Value) -> Result<&'a [u8]> {
    let digest = descriptor["digest"].as_str().context("no digest")?;
    let hex = digest.strip_prefix("sha256:").context("not sha256")?;
    let (_, bytes) = files.get(&format!("blobs/sha256/{hex}")).with_context(|| format!("no blob {digest}"))?;
    let is: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    ensure_eq("digest", is.as_str(), hex)?;
    ensure_eq("size", &descriptor["size"], &json!(bytes.len()))?;
    Ok(bytes)
}

pub fn it_is_an_image_of_the_operator() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("image.tar");
    operator_image::archive(root()?, &path)?;
    let files_of_image = files(fs::File::open(&path)?)?;
    let parsed = |name: &str| -> Result<Value> {
        Ok(serde_json::from_slice(&files_of_image.get(name).with_context(|| format!("no {name}"))?.1)?)
    };
    ensure_eq("layout", parsed("oci-layout")?, json!({ "imageLayoutVersion": "1.0.0" }))?;
    let index = parsed("index.json")?;
    ensure_eq("name", &index["manifests"][0]["annotations"]["io.containerd.image.name"], &json!(operator_image::NAME))?;
    let manifest: Value = serde_json::from_slice(blob(&files_of_image, &index["manifests"][0])?)?;
    let config: Value = serde_json::from_slice(blob(&files_of_image, &manifest["config"])?)?;
    let layer = blob(&files_of_image, &manifest["layers"][0])?;
    ensure_eq("layers", &config["rootfs"]["diff_ids"], &json!([manifest["layers"][0]["digest"]]))?;
    let run = &config["config"];
    ensure_eq("user", &run["User"], &json!(operator_image::USER))?;
    ensure_eq("entrypoint", &run["Entrypoint"], &json!(["/vpn-operator"]))?;
    let docker = parsed("manifest.json")?;
    let (config_path, layer_path) = (docker[0]["Config"].as_str(), docker[0]["Layers"][0].as_str());
    for path in [config_path, layer_path] {
        ensure!(path.is_some_and(|path| files_of_image.contains_key(path)), "manifest.json names {path:?}");
    }

    let inside = files(layer)?;
    for (name, (header, _)) in &inside {
        ensure_eq(name, (header.uid()?, header.gid()?, header.mtime()?), (0, 0, 0))?;
        let mode = if name.ends_with('/') || name == "vpn-operator" { 0o755 } else { 0o644 };
        ensure_eq(name, header.mode()?, mode)?;
    }
    for name in ["vpn-operator", "licenses/LICENSE-MIT", "licenses/LICENSE-APACHE", "licenses/README"] {
        ensure!(inside.contains_key(name), "no {name}");
    }
    // Licenses of all linked crates, and of no others.
    let of = |name: &str| inside.keys().any(|path| path.starts_with(&format!("licenses/third-party/{name}-")));
    ensure!(of("kube-client") && of("tokio") && of("ring"), "licenses are missing");
    ensure!(!of("proptest") && !of("libtest-mimic"), "licenses of crates that are not linked");
    Ok(())
}

pub fn the_binary_needs_nothing_but_itself_and_knows_no_path_of_the_machine() -> Result<()> {
    let root = root()?;
    // The image is the root directory. The user namespace allows that without root.
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--root"])
        .arg(root)
        .args([operator_image::ENTRYPOINT, "--version"])
        .output()
        .context("cannot run unshare")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure_eq("version", said.trim(), concat!("vpn-operator ", env!("CARGO_PKG_VERSION")))?;

    let binary = fs::read(root.join("vpn-operator"))?;
    let source = Path::new(cargo::ROOT).canonicalize()?;
    let home = std::env::home_dir().context("no HOME")?;
    for place in [source, home.join(".cargo")] {
        let place = place.to_str().context("a path that is not UTF-8")?.as_bytes();
        ensure!(!binary.windows(place.len()).any(|bytes| bytes == place), "{}", String::from_utf8_lossy(place));
    }
    Ok(())
}

pub fn it_is_the_same_each_time() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (one, two) = (dir.path().join("one.tar"), dir.path().join("two.tar"));
    operator_image::archive(root()?, &one)?;
    let again = dir.path().join("again");
    operator_image::root_anew(&again)?;
    operator_image::archive(&again, &two)?;
    ensure!(fs::read(one)? == fs::read(two)?, "the two images differ");
    Ok(())
}

/// The Dockerfile builds the same image with a container engine. This checks what it adds to the contents.
pub fn the_dockerfile_says_the_same() -> Result<()> {
    let dockerfile = fs::read_to_string(Path::new(cargo::ROOT).join("Dockerfile"))?;
    let (build, last) = dockerfile.split_once("FROM scratch\n").context("not FROM scratch")?;
    ensure!(
        build.contains("cargo run --locked -p e2e -- image --root /image\n"),
        "the Dockerfile builds the contents in another way"
    );
    ensure!(last.contains("COPY --from=build /image/ /\n"), "other contents");
    ensure!(last.contains(&format!("USER {}\n", operator_image::USER)), "another user");
    ensure!(last.contains(&format!("ENTRYPOINT [\"{}\"]\n", operator_image::ENTRYPOINT)), "another entrypoint");
    for (label, value) in operator_image::labels().as_object().context("no labels")? {
        ensure!(last.contains(&format!("{label}={value}")), "no label {label}={value}");
    }
    builds_with_the_rust_version(build)
}

/// Checks that the build stage of a Dockerfile uses the Rust version of the workspace.
pub fn builds_with_the_rust_version(stage: &str) -> Result<()> {
    let rust = fs::read_to_string(Path::new(cargo::ROOT).join("Cargo.toml"))?;
    let version = rust.lines().find_map(|line| line.strip_prefix("rust-version = ")).context("no version")?;
    ensure!(stage.contains(&format!("FROM rust:{}-", version.trim_matches('"'))), "another Rust than {version}");
    Ok(())
}
