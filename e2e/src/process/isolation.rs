//! The Linux namespaces of a node that runs containers.
//!
//! ```text
//! owner -- isolate -- unshare -- init (PID 1 of the namespaces) -- supervisor -- etcd, containerd, kubelet ...
//! ```
//!
//! The supervisor reads its requests from the pipe of the owner, as usual. When the supervisor ends, init ends. Then the
//! kernel kills every process in the PID namespace, and the mounts and the network disappear with the last process.
//! `isolate` outlives them and removes what is not in a namespace: cgroups and files. When `isolate` itself is killed, the
//! others are killed too, and the owner removes cgroups and files.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::Write,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, WaitOptions, wait};
use serde::{Deserialize, Serialize};

use super::protocol::{BECOME, SUPERVISE};
use crate::{host::command::run, network::SERVICE_RANGE};

/// The first argument that makes the `e2e` binary create namespaces and clean up after them.
pub const ISOLATE: &str = "isolate";
/// The first argument that makes the `e2e` binary the first process of its namespaces.
pub const INIT: &str = "init";

/// The interface of the node. It leads to the machine and no further.
const INTERFACE: &str = "eth0";
const CGROUPS: &str = "/sys/fs/cgroup";
/// Directories of the machine that an empty tmpfs hides from the node.
const HIDDEN: [&str; 4] = ["/run", "/var/log", "/var/lib", "/opt"];

/// The name and the addresses of the namespaces of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Isolation {
    /// The name of the network interface on the machine, and of the cgroup of all Pods.
    pub name: String,
    /// The address of the machine on the link.
    pub machine: Ipv4Addr,
    /// The address of the node. The API server listens there.
    pub node: Ipv4Addr,
}

impl Isolation {
    /// Picks a free name and a free /30 network in 198.18.0.0/15, which RFC 2544 reserves for tests.
    ///
    /// # Errors
    /// When none is free, or `ip` cannot be run.
    pub fn pick(dir: &Path) -> Result<Self> {
        let taken = run(Command::new("ip").args(["-4", "-oneline", "address", "show"]))?;
        let mut hash = DefaultHasher::new();
        (dir, std::process::id()).hash(&mut hash);
        let seed = hash.finish();
        for attempt in 0..100 {
            let index = u32::try_from((seed + attempt) % (1 << 15))?;
            let base = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + 4 * index;
            let [machine, node] = [1, 2].map(|host| Ipv4Addr::from(base + host));
            if !taken.contains(&format!(" {machine}/")) {
                return Ok(Self { name: format!("vpn-e2e-{index:x}"), machine, node });
            }
        }
        bail!("no free network in 198.18.0.0/15")
    }

    /// What is left of the run: the network interface and cgroups.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let link = Path::new("/sys/class/net").join(&self.name);
        let cgroups = hierarchies().into_iter().map(|hierarchy| hierarchy.join(&self.name));
        cgroups.chain([link]).filter(|path| path.exists()).collect()
    }

    /// Removes what the kernel does not remove by itself.
    pub(crate) fn remove(&self, dir: Option<&Path>) -> Result<()> {
        // After a process is killed, its cgroup and its mounts disappear a moment later.
        retry(|| hierarchies().iter().try_for_each(|hierarchy| remove_cgroup(&hierarchy.join(&self.name))))?;
        match dir.filter(|dir| dir.exists()) {
            Some(dir) => retry(|| fs::remove_dir_all(dir)).with_context(|| format!("cannot remove {}", dir.display())),
            None => Ok(()),
        }
    }

    fn create_cgroups(&self) -> Result<()> {
        for hierarchy in hierarchies() {
            let own = hierarchy.join(&self.name);
            fs::create_dir(&own).with_context(|| format!("cannot create the cgroup {}", own.display()))?;
            // cgroup v1 accepts no process before these are set.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if own.join(file).exists() && hierarchy.join("tasks").exists() {
                    fs::write(own.join(file), fs::read(hierarchy.join(file))?)?;
                }
            }
        }
        Ok(())
    }
}

/// Fails with the reason when this process may not create namespaces.
pub fn possible() -> Result<()> {
    run(Command::new("unshare").args(["--net", "--mount", "--pid", "--fork", "true"]))
        .map(drop)
        .context("it needs permission to create namespaces")
}

/// Creates the namespaces of a run and waits until they end. Then removes the directory `remove` and the cgroups.
pub fn isolate(isolation: &Isolation, remove: Option<&Path>) -> Result<()> {
    isolation.create_cgroups()?;
    let own = std::env::current_exe()?;
    let status = Command::new(&own)
        .args([BECOME, &std::process::id().to_string(), "unshare"])
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--"])
        .arg(&own)
        .args([INIT, &std::process::id().to_string(), &serde_json::to_string(isolation)?])
        .status();
    isolation.remove(remove)?;
    let status = status?;
    ensure!(status.success(), "the namespaces ended: {status}");
    Ok(())
}

/// Acts as the first process of the namespaces: sets them up, runs the supervisor, and reaps orphaned processes. `outside`
/// is the ID of a process outside of the namespaces.
pub fn init(outside: u32, isolation: &Isolation) -> Result<()> {
    set_up_network(outside, isolation).context("cannot set up the network of the node")?;
    for dir in HIDDEN {
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "tmpfs", dir]))?;
    }
    // crun refuses to choose between both versions of cgroups. The controllers are in the first.
    let unified = Path::new(CGROUPS).join("unified");
    if unified.join("cgroup.controllers").exists() {
        run(Command::new("umount").arg(unified))?;
    }
    // This is last, because the code above needs a /proc that shows the processes outside.
    run(Command::new("mount").args(["-t", "proc", "proc", "/proc"]))?;
    for setting in ["ipv4/ip_forward", "bridge/bridge-nf-call-iptables"] {
        fs::write(Path::new("/proc/sys/net").join(setting), "1")
            .with_context(|| format!("cannot set net/{setting}"))?;
    }
    let supervisor = Command::new("/proc/self/exe").arg(SUPERVISE).spawn()?;
    let supervisor = Pid::from_child(&supervisor);
    loop {
        match wait(WaitOptions::empty())? {
            Some((ended, status)) if ended == supervisor => {
                ensure!(status.exit_status() == Some(0), "the supervisor ended: {status:?}");
                return Ok(());
            }
            _ => {}
        }
    }
}

fn set_up_network(outside: u32, isolation: &Isolation) -> Result<()> {
    let Isolation { name, machine, node } = isolation;
    let network = format!("/proc/{outside}/ns/net");
    run(Command::new("ip").args(["link", "add", INTERFACE, "type", "veth", "peer", "name", name, "netns", &network]))?;
    let mut there = Command::new("nsenter");
    there.arg(format!("--net={network}")).args(["ip", "-batch", "-"]);
    batch(&mut there, &format!("address add {machine}/30 dev {name}\nlink set {name} up\n"))?;
    // There is no default route, so the link leads to the machine and no further. The route to Services lets processes
    // of the node use Service addresses, which kube-proxy rewrites.
    let here = format!(
        "link set lo up\naddress add {node}/30 dev {INTERFACE}\nlink set {INTERFACE} up\n\
         route add {SERVICE_RANGE} dev {INTERFACE} src {node}\n"
    );
    batch(Command::new("ip").args(["-batch", "-"]), &here)?;
    // Pods reach each other, the node, and Services, but not the machine.
    run(Command::new("iptables").args(["-A", "FORWARD", "-o", INTERFACE, "-j", "REJECT"])).map(drop)
}

fn batch(command: &mut Command, lines: &str) -> Result<()> {
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no standard input")?.write_all(lines.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{lines}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// The roots of cgroup v2, or of every hierarchy of cgroup v1.
fn hierarchies() -> Vec<PathBuf> {
    let root = PathBuf::from(CGROUPS);
    if root.join("cgroup.controllers").exists() {
        return vec![root];
    }
    let entries = fs::read_dir(&root).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).filter(|path| path.join("cgroup.procs").exists() && !path.is_symlink()).collect()
}

fn remove_cgroup(dir: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

fn retry(mut attempt: impl FnMut() -> std::io::Result<()>) -> std::io::Result<()> {
    for _ in 0..100 {
        if attempt().is_ok() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    attempt()
}
