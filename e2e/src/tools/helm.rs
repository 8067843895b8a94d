//! helm: the built one for a control plane of ours, the user's own for the user's cluster.

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
        // Nothing of the user's own: neither repositories nor plugins.
        for (name, dir) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")] {
            command.env(name, self.home.join(dir));
        }
        command
    }

    /// Runs helm and gives its standard output; its standard error is the error.
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
