//! containerd, with all of its files in the directory of the run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::images::PAUSE;
use crate::{host::command::run, network::NODE_POD_RANGE, process::ProcessSpec};

const TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(30);

/// The container runtime.
pub const RUNTIME: &str = "/usr/bin/crun";

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
                    "ranges": [[{ "subnet": NODE_POD_RANGE }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    fs::write(networks.join("10-e2e.conflist"), network.to_string())?;
    let base = dir.join("base-spec.json");
    fs::write(&base, base_spec()?.to_string())?;
    // crun: each exec probe starts the runtime. With runc, `tests/node` needs 30 % more processor time.
    // restrict_oom_score_adj: without CAP_SYS_RESOURCE, containerd cannot lower the score of a Pod sandbox.
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
    default_runtime_name = "crun"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun]
      runtime_type = "io.containerd.runc.v2"
      base_runtime_spec = "{base}"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun.options]
        BinaryName = "{RUNTIME}"
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{networks}"
"#,
        dir = dir.display(),
        base = base.display(),
        socket = socket(dir).display(),
        networks = networks.display(),
    );
    fs::write(dir.join("containerd.toml"), config).context("cannot write the configuration of containerd")
}

/// The default of containerd, and the tunnel device. runc allows the tunnel device for every container that may create it:
/// <https://github.com/opencontainers/runc/blob/v1.1.5/libcontainer/specconv/spec_linux.go>.
fn base_spec() -> Result<Value> {
    let mut spec: Value = serde_json::from_str(&run(Command::new("ctr").args(["oci", "spec"]))?)?;
    let tunnels = json!({ "allow": true, "type": "c", "major": 10, "minor": 200, "access": "rwm" });
    let devices = spec.pointer_mut("/linux/resources/devices").and_then(Value::as_array_mut);
    devices.context("ctr oci spec has no rules for devices")?.push(tunnels);
    Ok(spec)
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
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let dir = dir.to_owned();
        match tokio::task::spawn_blocking(move || run(ctr(&dir).arg("version"))).await? {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => sleep(POLL).await,
        }
    }
}

/// Imports an archive of `docker save`, or an OCI image layout.
pub fn import(dir: &Path, archive: &Path) -> Result<()> {
    run(ctr(dir).args(["images", "import"]).arg(archive)).map(drop)
}

/// Kills the first process of a container.
pub fn kill(dir: &Path, container: &str) -> Result<()> {
    run(ctr(dir).args(["tasks", "kill", "--signal", "SIGKILL", container])).map(drop)
}
