//! The programs of the control plane, built from their Go modules at first use.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::stderr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::host::{cache::cache_dir, command::notice};

/// The Go module, part of this repository.
const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/control-plane");
/// For every package, also those of the standard library, which all builds then share.
pub(crate) const NO_DEBUG_DATA: &str = "-gcflags=all=-dwarf=false";
/// The build leaves this out of its own directory: it is shared by all builds.
const LOCK: &str = ".lock";

/// Where the built programs are.
#[derive(Clone, Debug)]
pub struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kubectl in one:
    /// the first argument chooses.
    pub fn control_plane(&self) -> PathBuf {
        self.dir.join("control-plane")
    }

    /// The directory they are in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// kwok, which plays the kubelet.
    pub fn kwok(&self) -> PathBuf {
        self.dir.join("kwok")
    }

    /// helm.
    pub fn helm(&self) -> PathBuf {
        self.dir.join("helm")
    }

    /// Gives the programs, building them when this is the first use of this version.
    ///
    /// The result stays in the user's cache directory, outside cargo's target directory,
    /// so `cargo clean` does not cost a build of Kubernetes.
    pub fn ensure() -> Result<Self> {
        let go = go_version()?;
        let cache = cache_dir("control-plane")?;
        fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
        let built = Self { dir: cache.join(source_hash(&go)?) };
        if built.dir.is_dir() {
            return Ok(built);
        }
        // Test binaries run in parallel: one builds, the others wait and find it done. The
        // lock is released by the kernel, however the holder ends.
        let lock = File::create(cache.join(LOCK))?;
        if lock.try_lock().is_err() {
            notice("waiting for another process that is building the control plane");
            lock.lock()?;
        }
        if !built.dir.is_dir() {
            build(&cache, &built.dir, &go)?;
        }
        Ok(built)
    }
}

fn build(cache: &Path, target: &Path, go: &str) -> Result<()> {
    let version = go_output(&["list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes"])?;
    notice(&format!(
        "building etcd, Kubernetes {version}, helm and kwok with {go} into {}: needed once; \
         6 to 10 minutes on 2 cores, less than a minute when Go has built the same before",
        target.display()
    ));
    let started = Instant::now();
    let unfinished = tempfile::Builder::new().prefix(".building-").tempdir_in(cache)?;
    let child = Command::new("go")
        .current_dir(MODULE)
        .env("CGO_ENABLED", "0")
        // Nobody debugs them; writing that down is a tenth of the build.
        .args(["build", "-trimpath", NO_DEBUG_DATA, "-ldflags", &version_flags(&version)?, "-o"])
        .arg(unfinished.path())
        // `tool` stands for every tool of go.mod: helm and kwok.
        .args([".", "tool"])
        .stdin(Stdio::null())
        .stdout(stderr())
        .spawn()
        .context("cannot run go")?;
    let status = wait_with_progress(child, started)?;
    if !status.success() {
        bail!("go build of {MODULE} failed ({status}); its messages are above");
    }
    // The rename is what makes it visible: an interrupted build leaves no half result.
    fs::rename(unfinished.keep(), target)?;
    notice(&format!("built in {} s", started.elapsed().as_secs()));
    Ok(())
}

/// `go build` says nothing for minutes; a line now and then shows that it lives.
fn wait_with_progress(mut child: std::process::Child, started: Instant) -> Result<std::process::ExitStatus> {
    let (done, waiting) = mpsc::channel();
    thread::spawn(move || done.send(child.wait()));
    loop {
        match waiting.recv_timeout(Duration::from_secs(30)) {
            Ok(status) => return Ok(status?),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                notice(&format!("still building, {} s so far", started.elapsed().as_secs()));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("lost the go process"),
        }
    }
}

/// Without these the API server calls itself v0.0.0, which kubectl and helm cannot parse.
fn version_flags(version: &str) -> Result<String> {
    let mut parts = version.trim_start_matches('v').split('.');
    let (Some(major), Some(minor)) = (parts.next(), parts.next()) else {
        bail!("k8s.io/kubernetes has the version {version:?} in go.mod, not vX.Y.Z");
    };
    let package = "k8s.io/component-base/version";
    Ok(format!("-s -w -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"))
}

fn go_version() -> Result<String> {
    // Asked inside the module: an older Go fetches the version that go.mod names, if it can.
    go_output(&["env", "GOVERSION"])
}

fn go_output(args: &[&str]) -> Result<String> {
    let needed = || {
        let wanted = fs::read_to_string(Path::new(MODULE).join("go.mod"))
            .ok()
            .and_then(|text| text.lines().find_map(|line| line.strip_prefix("go ").map(String::from)))
            .unwrap_or_else(|| "the version named in e2e/control-plane/go.mod".into());
        format!(
            "the control plane is built from source: install Go {wanted} or newer (https://go.dev/dl) and have `go` \
             in PATH, or set KUBECONFIG to use a cluster of your own"
        )
    };
    let output = Command::new("go").current_dir(MODULE).args(args).output().with_context(needed)?;
    if !output.status.success() {
        bail!("`go {}` failed: {}\n{}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim(), needed());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Names a build by what goes into it.
fn source_hash(go: &str) -> Result<String> {
    let mut files: Vec<_> = fs::read_dir(MODULE)
        .with_context(|| format!("the Go module {MODULE} is missing: e2e runs from a checkout of the repository"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| {
        path.extension().is_some_and(|ending| ["go", "mod", "sum"].iter().any(|known| ending == *known))
    });
    files.sort();
    let mut hash = Sha256::new();
    hash.update(go);
    for path in files {
        hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(Sha256::digest(fs::read(&path)?));
    }
    Ok(hash.finalize()[..8].iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}
