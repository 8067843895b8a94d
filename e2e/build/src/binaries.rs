//! The control plane programs, built from their Go modules on first use.

use std::{
    env,
    fmt::Write as _,
    fs::{self, File},
    io::stderr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::{cache::cache_dir, notice};

/// The Go module, part of this repository.
const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../control-plane");
/// Applies to all packages including the standard library, so that all builds share its compiled form.
pub const NO_DEBUG_DATA: &str = "-gcflags=all=-dwarf=false";
/// Outside the build's own directory, because all builds share it.
const LOCK: &str = ".lock";
/// How often the build shows that it is still running.
const PROGRESS: Duration = Duration::from_secs(30);
/// The interval between checks whether the build has ended.
const POLL: Duration = Duration::from_millis(50);

/// The location of the built programs.
#[derive(Clone, Debug)]
pub struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kubectl in one binary. The first argument
    /// selects the program.
    pub fn control_plane(&self) -> PathBuf {
        self.dir.join("control-plane")
    }

    /// The directory of the programs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// kwok, which simulates the kubelet.
    pub fn kwok(&self) -> PathBuf {
        self.dir.join("kwok")
    }

    /// helm.
    pub fn helm(&self) -> PathBuf {
        self.dir.join("helm")
    }

    /// Returns the programs. Builds them on first use of this version.
    ///
    /// The result is in the user's cache directory, outside cargo's target directory, so `cargo clean` does not cost a
    /// build of Kubernetes.
    pub fn ensure() -> Result<Self> {
        Self::ensure_unless(&AtomicBool::new(false))
    }

    /// Like [`Self::ensure`], but stops the build once `stopped` is set.
    pub fn ensure_unless(stopped: &AtomicBool) -> Result<Self> {
        let go = go_version()?;
        let cache = cache_dir("control-plane")?;
        fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
        let built = Self { dir: cache.join(source_hash(&go)?) };
        if built.dir.is_dir() {
            return Ok(built);
        }
        // Test binaries run in parallel: one builds, the others wait. The kernel releases the lock however its holder
        // ends.
        let lock = File::create(cache.join(LOCK))?;
        if lock.try_lock().is_err() {
            notice("waiting for another process that is building the control plane");
            lock.lock()?;
        }
        if !built.dir.is_dir() {
            build(&cache, &built.dir, &go, stopped)?;
        }
        Ok(built)
    }
}

fn build(cache: &Path, target: &Path, go: &str, stopped: &AtomicBool) -> Result<()> {
    let version = go_output(&["list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes"])?;
    notice(&format!(
        "building etcd, Kubernetes {version}, helm and kwok with {go} into {}: needed once; \
         6 to 10 minutes on 2 cores, less than a minute when Go has built the same before",
        target.display()
    ));
    let started = Instant::now();
    let unfinished = Unfinished::new(cache)?;
    let go = || {
        let mut command = Command::new("go");
        command.current_dir(MODULE).stdin(Stdio::null()).stdout(stderr());
        command
    };
    // `go build` discovers modules one import at a time and waits for each, so download them all first. If this fails,
    // `go build` reports what is missing.
    let download = go().args(["mod", "download"]).spawn().context("cannot run go")?;
    wait_with_progress(download, started, stopped)?;
    let child = go()
        .env("CGO_ENABLED", "0")
        .envs(collect_less_garbage())
        // Nobody debugs these programs, and debug data takes a tenth of the build time.
        .args(["build", "-trimpath", NO_DEBUG_DATA, "-ldflags", &version_flags(&version)?, "-o"])
        .arg(&unfinished.0)
        // `tool` builds all tools of go.mod: helm and kwok.
        .args([".", "tool"])
        .spawn()
        .context("cannot run go")?;
    let status = wait_with_progress(child, started, stopped)?;
    if !status.success() {
        bail!("go build of {MODULE} failed ({status}); its messages are above");
    }
    // Only the rename makes the result visible, so an interrupted build leaves no partial result.
    fs::rename(&unfinished.0, target)?;
    notice(&format!("built in {} s", started.elapsed().as_secs()));
    Ok(())
}

/// The directory of a build in progress. Removed on drop, unless it was renamed.
struct Unfinished(PathBuf);

impl Unfinished {
    fn new(cache: &Path) -> Result<Self> {
        let dir = cache.join(format!(".building-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Waits for `go build`, which prints nothing for minutes. Prints a line at intervals to show that it is still running.
fn wait_with_progress(mut child: Child, started: Instant, stopped: &AtomicBool) -> Result<ExitStatus> {
    let mut said = started;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if stopped.load(Ordering::Relaxed) {
            child.kill()?;
            child.wait()?;
            bail!("the build of the control plane was stopped");
        }
        if said.elapsed() > PROGRESS {
            said = Instant::now();
            notice(&format!("still building the control plane, {} s so far", started.elapsed().as_secs()));
        }
        thread::sleep(POLL);
    }
}

/// Returns settings that let the compiler use more memory, up to a limit. By default, it spends a sixth of its time on
/// garbage collection.
fn collect_less_garbage() -> Vec<(&'static str, &'static str)> {
    let is_unset = |(name, _): &(&str, &str)| env::var_os(name).is_none();
    [("GOGC", "400"), ("GOMEMLIMIT", "2GiB")].into_iter().filter(is_unset).collect()
}

/// Without these flags, the API server reports v0.0.0, which kubectl and helm cannot parse.
fn version_flags(version: &str) -> Result<String> {
    let mut parts = version.trim_start_matches('v').split('.');
    let (Some(major), Some(minor)) = (parts.next(), parts.next()) else {
        bail!("k8s.io/kubernetes has the version {version:?} in go.mod, not vX.Y.Z");
    };
    let package = "k8s.io/component-base/version";
    Ok(format!("-s -w -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"))
}

fn go_version() -> Result<String> {
    // Runs inside the module, so that an older Go fetches the version that go.mod names, if it can.
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

/// Returns a hash of all inputs of the build, which names it.
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
