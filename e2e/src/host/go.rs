//! The Go programs of this repository, which are built at the first use of a version.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use e2e_build::binaries::NO_DEBUG_DATA;
use sha2::{Digest, Sha256};

use super::{cache_dir, command::run};

/// Returns the directory with the programs of a Go module. `cache` is a directory in the cache of the user.
pub fn programs(module: &Path, cache: &str) -> Result<PathBuf> {
    built(module, cache, "./...", &[])
}

/// Returns the directory with the programs of other modules that a Go module names as its tools.
pub fn tools(module: &Path, cache: &str) -> Result<PathBuf> {
    tools_with_tags(module, cache, &[])
}

/// The same with build tags.
pub fn tools_with_tags(module: &Path, cache: &str, tags: &[&str]) -> Result<PathBuf> {
    built(module, cache, "tool", tags)
}

fn built(module: &Path, cache: &str, packages: &str, tags: &[&str]) -> Result<PathBuf> {
    let tags = tags.join(",");
    let version = run(Command::new("go").current_dir(module).args(["env", "GOVERSION"]))
        .context("Go programs are needed: install Go and have `go` in PATH")?;
    let mut hash = Sha256::new();
    hash.update(version);
    hash_sources(module, &mut hash)?;
    hash.update(&tags);
    let name: String = hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let cache = cache_dir(cache)?;
    let built = cache.join(name);
    if built.is_dir() {
        return Ok(built);
    }
    fs::create_dir_all(&cache)?;
    let unfinished = tempfile::Builder::new().prefix(".building-").tempdir_in(&cache)?;
    let mut command = Command::new("go");
    command.current_dir(module).env("CGO_ENABLED", "0");
    command.args(["build", "-trimpath", NO_DEBUG_DATA, "-ldflags=-s -w", "-tags", &tags, "-o"]);
    run(command.arg(unfinished.path()).arg(packages))?;
    // Only the rename makes the result visible, so an interrupted build leaves no partial result.
    match fs::rename(unfinished.path(), &built) {
        Ok(()) => drop(unfinished.keep()),
        // Another process was quicker.
        Err(_) if built.is_dir() => {}
        Err(error) => bail!("cannot create {}: {error}", built.display()),
    }
    Ok(built)
}

/// Returns the directory with the source of a module that `module` requires.
pub fn source(module: &Path, required: &str) -> Result<PathBuf> {
    run(Command::new("go").current_dir(module).args(["mod", "download", required]))?;
    let dir = run(Command::new("go").current_dir(module).args(["list", "-m", "-f", "{{.Dir}}", required]))?;
    Ok(dir.trim().into())
}

fn hash_sources(dir: &Path, hash: &mut Sha256) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut paths: Vec<_> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            hash_sources(&path, hash)?;
        } else {
            hash.update(path.as_os_str().as_encoded_bytes());
            hash.update(Sha256::digest(fs::read(&path)?));
        }
    }
    Ok(())
}
