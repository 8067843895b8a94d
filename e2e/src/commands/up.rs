//! `e2e up`

use std::{path::PathBuf, time::Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use e2e::{ControlPlane, Options, control_plane::KEEP_STATE};

use super::stopped;

/// Start a cluster and keep it until Ctrl-C.
#[derive(Args)]
pub struct Up {
    /// How many nodes kwok plays
    #[arg(long, default_value_t = 1)]
    nodes: usize,
}

impl Up {
    pub async fn run(self) -> Result<()> {
        let stop = stopped()?;
        tokio::pin!(stop);

        let began = Instant::now();
        eprintln!("starting etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok");
        let control_plane = tokio::select! {
            started = ControlPlane::start(Options { nodes: self.nodes, ..Options::default() }) => started?,
            // Leaving this scope closes the pipe to the supervisor, which stops the rest.
            () = &mut stop => bail!("interrupted during the start"),
        };
        usage(&control_plane, began).context("cannot say how to use the cluster")?;

        let ended = tokio::select! {
            () = &mut stop => None,
            ended = control_plane.first_end() => Some(ended),
        };
        eprintln!("stopping");
        control_plane.stop().await?;
        match ended {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

fn usage(control_plane: &ControlPlane, began: Instant) -> Result<()> {
    let own: PathBuf = std::env::current_exe()?;
    let kubeconfig = control_plane.admin().kubeconfig.display();
    println!("{kubeconfig}");
    eprintln!("ready after {:.1} s. In another terminal:", began.elapsed().as_secs_f64());
    eprintln!("    export KUBECONFIG={kubeconfig}");
    eprintln!("    {} kubectl -- get nodes", own.display());
    eprintln!("Logs and the audit log are in {} ({KEEP_STATE}=1 keeps them).", control_plane.state_dir().display());
    eprintln!("Ctrl-C stops it and removes everything.");
    Ok(())
}
