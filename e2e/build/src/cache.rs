//! The user's cache directory. It is outside cargo's target directory, so `cargo clean` does not cost a build of
//! Kubernetes.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Returns the subdirectory `name` for programs that are built or downloaded once. It may not exist yet.
pub fn cache_dir(name: &str) -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|dir| Path::new(dir).is_absolute()) {
        Some(dir) => dir.into(),
        None => env::home_dir().context("neither XDG_CACHE_HOME nor HOME is set")?.join(".cache"),
    };
    Ok(base.join("vpn-operator").join(name))
}
