//! No part of a node outlives the run, however the run ends.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, ControlPlane, ControlPlaneOptions, node::images, process::Isolation, vpn, wait::await_condition};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::PostParams, runtime::conditions::is_pod_running};

use crate::pods::tools;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns what is left of a run: processes, mounts, files, networks, cgroups.
fn leftovers(dir: &Path, isolation: Option<&Isolation>) -> Result<Vec<String>> {
    let text = dir.display().to_string();
    let mut found: Vec<_> =
        isolation.iter().flat_map(|one| one.leftovers()).map(|path| path.display().to_string()).collect();
    if dir.exists() {
        found.push(text.clone());
    }
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let command = fs::read(path.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&text) && !path.ends_with(std::process::id().to_string()) {
            found.push(format!("{}: {command}", path.display()));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    found.extend(mounts.lines().filter(|line| line.contains(&text)).map(String::from));
    Ok(found)
}

/// The kernel removes a network namespace and its link asynchronously.
fn until_nothing_is_left(dir: &Path, isolation: Option<&Isolation>) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let left = leftovers(dir, isolation)?;
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "left behind: {left:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub async fn nothing_is_left_at_the_end() -> Result<()> {
    let cluster = Cluster::Local(Box::new(ControlPlane::start(ControlPlaneOptions::with_container_node()).await?));
    let node = vpn::node_of(&cluster)?;
    let (dir, isolation) = (cluster.state_dir().to_owned(), node.isolation().clone());
    node.import(&images::tools()?).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client()?, "default");
    pods.create(&PostParams::default(), &tools("runs", "trap '' TERM; while :; do sleep 1; done")?).await?;
    await_condition(pods, "runs", is_pod_running()).await?;
    ensure!(leftovers(&dir, Some(&isolation))?.len() > 5, "nothing to leave behind");
    cluster.stop().await?;
    until_nothing_is_left(&dir, Some(&isolation))
}

/// SIGKILL allows no cleanup by the owner, and none is needed.
pub async fn nothing_is_left_when_the_owner_is_killed() -> Result<()> {
    let own = std::env::current_exe()?;
    let e2e = own.parent().and_then(Path::parent).context("not in a target directory")?.join("e2e");
    let mut owner = Command::new(e2e).args(["up", "--node"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut kubeconfig = String::new();
    let output = owner.stdout.take().context("no output")?;
    tokio::task::spawn_blocking(move || BufReader::new(output).read_line(&mut kubeconfig).map(|_| kubeconfig))
        .await?
        .map(|kubeconfig| PathBuf::from(kubeconfig.trim()))
        .context("no kubeconfig")
        .and_then(|kubeconfig| {
            let dir = kubeconfig.parent().context("no directory")?.to_owned();
            ensure!(!leftovers(&dir, None)?.is_empty(), "nothing to leave behind");
            owner.kill()?;
            owner.wait()?;
            until_nothing_is_left(&dir, None)
        })
}
