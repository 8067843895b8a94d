//! `e2e up`

use std::{path::PathBuf, time::Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use e2e::{ControlPlane, ControlPlaneOptions, control_plane::KEEP_STATE, node};

use super::stopped;

/// Start a cluster and keep it until Ctrl-C.
#[derive(Args)]
pub struct Up {
    /// How many nodes kwok plays
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Start a node that runs containers instead of the kwok nodes. Needs root, and installs Debian packages
    #[arg(long)]
    node: bool,
}

impl Up {
    pub async fn run(self) -> Result<()> {
        let stop = stopped()?;
        tokio::pin!(stop);

        let began = Instant::now();
        if let Some(why) = node::unavailable().filter(|_| self.node) {
            bail!("cannot start a node that runs containers: {why}");
        }
        let rest = if self.node { "containerd, kubelet and kube-proxy" } else { "kwok" };
        eprintln!("starting etcd, kube-apiserver, kube-controller-manager, kube-scheduler, {rest}");
        let options = if self.node {
            ControlPlaneOptions::with_container_node()
        } else {
            ControlPlaneOptions { kwok_nodes: self.nodes, ..ControlPlaneOptions::default() }
        };
        let control_plane = tokio::select! {
            started = ControlPlane::start(options) => started?,
            // Leaving this scope closes the pipe to the supervisor, which stops the rest.
            () = &mut stop => bail!("interrupted during the start"),
        };
        usage(&control_plane, began).context("cannot print how to use the cluster")?;

        let ended = tokio::select! {
            () = &mut stop => None,
            ended = control_plane.wait_for_exit() => Some(ended),
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
