//! `e2e demo`

use std::{fs, os::unix::fs::symlink, path::PathBuf, time::Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;
use e2e::{
    Cluster, ControlPlane, ControlPlaneOptions, Layout, Operator, OperatorOptions, VpnService, node, node::images,
    process::log_tail,
};

use super::stopped;
use crate::demo::{Screen, Tour};

/// See vpn-operator at work on a real control plane.
#[derive(Args)]
pub struct Demo {
    /// End after the tour; the exit code is 0 if all that it promises has happened
    #[arg(long)]
    exit: bool,
    /// Let kwok play the node, with accounts that are made up, even where real Pods could connect to a real VPN service
    #[arg(long)]
    made_up: bool,
}

impl Demo {
    pub async fn run(self) -> Result<()> {
        let stop = stopped()?;
        tokio::pin!(stop);
        let mut screen = Screen::new();
        let options = self.options(&mut screen)?;
        let real = options.container_node;
        let began = Instant::now();
        let control_plane = tokio::select! {
            started = ControlPlane::start(options) => started?,
            // Leaving this scope closes the pipe to the supervisor, which stops the rest.
            () = &mut stop => bail!("interrupted during the start"),
        };
        screen.print(&format!("    ready after {:.1} s", began.elapsed().as_secs_f64()));

        let cluster = Cluster::Local(Box::new(control_plane));
        let mut interrupted = false;
        let result = tokio::select! {
            result = self.show(&cluster, screen, real) => result,
            error = wait_for_exit(&cluster) => Err(error),
            () = &mut stop => {
                interrupted = true;
                Ok(())
            }
        };
        eprintln!("\nstopping");
        cluster.stop().await?;
        ensure!(!(interrupted && self.exit), "interrupted before the end of the tour");
        result
    }

    /// A node that runs containers, where there can be one.
    fn options(&self, screen: &mut Screen) -> Result<ControlPlaneOptions> {
        let programs = "A control plane starts: etcd, API server, controllers, scheduler";
        let why = if self.made_up { Some("not wanted".to_owned()) } else { node::unavailable() };
        if let Some(why) = why {
            screen.step(&format!("{programs}; kwok plays the node"));
            screen.print(&format!("    (no node that runs containers: {why})"));
            return Ok(ControlPlaneOptions::default());
        }
        screen.step(&format!("{programs}; and a node: containerd, kubelet, in a network of their own"));
        Ok(ControlPlaneOptions::with_container_node())
    }

    async fn show(&self, cluster: &Cluster, mut screen: Screen, real: bool) -> Result<()> {
        let mut vpn = None;
        if real {
            screen.step("A VPN service starts in the cluster, and beside it a page that tells who asks");
            screen.print(
                "    (no registry is asked: images made of files of this machine stand in for gluetun and curl)",
            );
            vpn = Some(VpnService::start(cluster).await?);
        }
        screen.step("vpn-operator is installed: its kinds (crds/), its rights (chart/templates/rbac/), one process and a webhook");
        let settings = vpn.iter().flat_map(VpnService::operator_env);
        let setup = OperatorOptions::new(Layout::Combined).injection(1).env("INJECTION_IMAGE", images::GLUETUN);
        let setup = settings.fold(setup, |setup, (name, value)| setup.env(name, &value));
        let operator = Operator::start_with(cluster, setup).await?;
        let mut tour = Tour::new(cluster, screen, !self.exit, vpn.as_ref())?;
        let result = tour.walk().await;
        if result.is_err() {
            for log in operator.logs() {
                eprintln!("\nThe end of the operator's log:\n{}", log_tail(&log, 30));
            }
        }
        result?;
        if self.exit {
            return Ok(());
        }
        tour.stay(&kubectl_dir(cluster)?).await
    }
}

/// A directory for `PATH` with the built kubectl in it.
fn kubectl_dir(cluster: &Cluster) -> Result<PathBuf> {
    let dir = cluster.state_dir().join("bin");
    if let Some(control_plane) = cluster.control_plane() {
        fs::create_dir_all(&dir)?;
        // It holds several programs, and is the one it is called as.
        symlink(control_plane.binaries().control_plane(), dir.join("kubectl"))?;
    }
    Ok(dir)
}

async fn wait_for_exit(cluster: &Cluster) -> anyhow::Error {
    match cluster.control_plane() {
        Some(control_plane) => control_plane.wait_for_exit().await,
        None => std::future::pending().await,
    }
}
