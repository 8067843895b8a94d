//! containerd, with all its files under the directory of the run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{POD_RANGE, images::PAUSE, run};
use crate::process::ProcessSpec;

const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(30);

pub fn socket(dir: &Path) -> PathBuf {
    dir.join("containerd.sock")
}

/// Writes the configuration of containerd and of the CNI plugins.
pub fn configure(dir: &Path) -> Result<()> {
    let networks = dir.join("networks");
    fs::create_dir_all(&networks)?;
    let network = json!({
        "cniVersion": "0.4.0",
        "name": "e2e",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": false,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": dir.join("addresses"),
                    "ranges": [[{ "subnet": POD_RANGE }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    fs::write(networks.join("10-e2e.conflist"), network.to_string())?;
    // restrict_oom_score_adj: without CAP_SYS_RESOURCE runc cannot lower the score, as it
    // is asked to for the sandbox of a Pod.
    let config = format!(
        r#"version = 2
root = "{dir}/containerd"
state = "{dir}/containerd-state"
oom_score = 0
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{networks}"
"#,
        dir = dir.display(),
        socket = socket(dir).display(),
        networks = networks.display(),
    );
    fs::write(dir.join("containerd.toml"), config).context("cannot write the configuration of containerd")
}

pub fn process(dir: &Path) -> ProcessSpec {
    ProcessSpec::new("containerd", "/usr/bin/containerd", dir.join("containerd.log"))
        .arg("--config")
        .arg(dir.join("containerd.toml").display())
}

fn ctr(dir: &Path) -> Command {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(socket(dir)).args(["--namespace", "k8s.io"]);
    command
}

/// Waits until containerd answers.
pub async fn ready(dir: &Path) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let dir = dir.to_owned();
        match tokio::task::spawn_blocking(move || run(ctr(&dir).arg("version"))).await? {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => sleep(POLL).await,
        }
    }
}

/// Loads an archive: a docker archive or an OCI image layout.
pub fn import(dir: &Path, archive: &Path) -> Result<()> {
    run(ctr(dir).args(["images", "import"]).arg(archive)).map(drop)
}

/// Kills the first process of a container.
pub fn kill(dir: &Path, container: &str) -> Result<()> {
    run(ctr(dir).args(["tasks", "kill", "--signal", "SIGKILL", container])).map(drop)
}
