//! kubectl. For a control plane that this process starts, it is built with that control plane; for the user's cluster, it is
//! the one in `PATH`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use e2e_build::Binaries;

use crate::auth::Identity;

/// How to run kubectl against one cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    first_argument: Option<&'static str>,
    cache: PathBuf,
}

impl Kubectl {
    pub(crate) fn built(binaries: &Binaries, state_dir: &Path) -> Self {
        Self { program: binaries.control_plane(), first_argument: Some("kubectl"), cache: state_dir.join("kube-cache") }
    }

    pub(crate) fn from_path(state_dir: &Path) -> Self {
        Self { program: "kubectl".into(), first_argument: None, cache: state_dir.join("kube-cache") }
    }

    /// A kubectl command that acts as `identity`.
    pub fn command(&self, identity: &Identity) -> Command {
        self.blocking_command(identity).into()
    }

    /// A blocking command, for use in `Drop`.
    pub(crate) fn blocking_command(&self, identity: &Identity) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        command.args(self.first_argument);
        command.env("KUBECONFIG", &identity.kubeconfig);
        // kubectl caches for hours which kinds a server has, by address. Without a cache of its own, it would mistake this
        // cluster for another one on the same port.
        command.env("KUBECACHEDIR", &self.cache);
        command
    }

    /// Runs kubectl and returns its standard output. On failure, the error contains its standard error.
    pub async fn run(&self, identity: &Identity, args: &[&str]) -> Result<String> {
        let output = self
            .command(identity)
            .args(args)
            .output()
            .await
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            bail!("kubectl {} failed ({}): {}", args.join(" "), output.status, message.trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}
