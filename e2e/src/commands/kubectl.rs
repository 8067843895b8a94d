//! `e2e kubectl`

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result};
use clap::Args;
use e2e::tools::Binaries;

/// Run the kubectl that is built with the control plane, with KUBECONFIG as it is set.
#[derive(Args)]
pub struct Kubectl {
    /// Arguments for kubectl
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Kubectl {
    /// Replaces this process with kubectl, which then has the terminal, the signals, and the exit code.
    pub fn run(self) -> Result<()> {
        let program = Binaries::ensure()?.control_plane();
        let failed = Command::new(&program).arg("kubectl").args(self.args).exec();
        Err(failed).with_context(|| format!("cannot run {}", program.display()))
    }
}
