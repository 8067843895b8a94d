//! helm. For a control plane that this process starts, it is built with that control plane; for the user's cluster, it is
//! the one in `PATH`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::auth::Identity;

/// How to run helm against one cluster.
#[derive(Clone, Debug)]
pub struct Helm {
    program: PathBuf,
    home: PathBuf,
}

impl Helm {
    pub(crate) fn new(program: PathBuf, state_dir: &Path) -> Self {
        Self { program, home: state_dir.join("helm") }
    }

    /// A helm command that acts as `identity`.
    pub fn command(&self, identity: &Identity) -> Command {
        let mut command = Command::new(&self.program);
        command.env("KUBECONFIG", &identity.kubeconfig);
        // helm must not use the repositories and plugins of the user.
        for (name, dir) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")] {
            command.env(name, self.home.join(dir));
        }
        command
    }

    /// Runs helm and returns its standard output. On failure, the error contains its standard error.
    pub async fn run(&self, identity: &Identity, args: &[&str]) -> Result<String> {
        let output = self
            .command(identity)
            .args(args)
            .output()
            .await
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            bail!("helm {} failed ({}): {}", args.join(" "), output.status, message.trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}
