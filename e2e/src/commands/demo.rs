//! `e2e demo`

use std::{fs, os::unix::fs::symlink, path::PathBuf, time::Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;
use e2e::{
    Cluster, ControlPlane, ControlPlaneOptions, Layout, Operator, OperatorOptions, node, node::images, operator,
    process::log_tail, vpn::node_of,
};

use super::stopped;
use crate::demo::{Screen, Tour};

/// See vpn-operator at work on a real control plane.
#[derive(Args)]
pub struct Demo {
    /// Exit after the tour. The exit code is 0 if every step succeeded
    #[arg(long)]
    exit: bool,
    /// Simulate the node with kwok, and use made-up accounts, even if this machine can run real Pods and VPN servers
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

    /// Options with a node that runs containers, if this machine can have one.
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
        screen.step(
            "vpn-operator is installed: its kinds (crds/), its rights (chart/templates/rbac/), one process and a webhook",
        );
        let mut setup = OperatorOptions::new(Layout::Combined).injection(1).env("INJECTION_IMAGE", images::GLUETUN);
        if real {
            let node = node_of(cluster)?;
            for image in [images::openvpn(&operator::executable(cluster).await?)?, images::tools()?, images::gluetun()?]
            {
                node.import(&image).await?;
            }
            screen.print(
                "    (images built from files of this machine replace gluetun and curl, so no registry is needed)",
            );
            let env = [
                ("OPENVPN_IMAGE", images::OPENVPN),
                ("VERIFY_VPN_IMAGE", images::GLUETUN),
                ("VERIFY_INIT_IMAGE", images::TOOLS),
                ("VERIFY_PROBE_IMAGE", images::TOOLS),
            ];
            setup = env.into_iter().fold(setup.servers(), |setup, (name, value)| setup.env(name, value));
        }
        let operator = Operator::start_with(cluster, setup).await?;
        let mut tour = Tour::new(cluster, screen, !self.exit, real)?;
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
        // The binary contains several programs. Its file name selects one.
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
