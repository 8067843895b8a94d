//! No part of a cluster outlives the process that started the cluster, however that process ends.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Starts `e2e up`. Returns it with its state directory when it is ready.
fn up() -> Result<(Child, PathBuf)> {
    let mut child =
        Command::new(env!("CARGO_BIN_EXE_e2e")).arg("up").env("RUST_BACKTRACE", "0").stdout(Stdio::piped()).spawn()?;
    let mut kubeconfig = String::new();
    BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut kubeconfig)?;
    let dir = Path::new(kubeconfig.trim()).parent().context("no kubeconfig")?.to_owned();
    ensure!(processes(&dir)?.len() >= 6, "the supervisor, four programs and kwok: {:?}", processes(&dir)?);
    Ok((child, dir))
}

/// Returns the running processes whose command lines contain the state directory.
fn processes(dir: &Path) -> Result<Vec<(i32, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Processes start and exit during the scan.
        let Ok(command) = fs::read(entry.path().join("cmdline")) else { continue };
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&dir.display().to_string()) {
            found.push((pid, command));
        }
    }
    Ok(found)
}

fn nothing_is_left(dir: &Path) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while dir.exists() || !processes(dir)?.is_empty() {
        ensure!(Instant::now() < deadline, "left: {:?}, directory: {}", processes(dir)?, dir.exists());
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn after_sigkill_of_the_owner() -> Result<()> {
    let (mut child, dir) = up()?;
    child.kill()?;
    child.wait()?;
    nothing_is_left(&dir)
}

#[test]
fn after_sigterm_of_the_owner() -> Result<()> {
    let (mut child, dir) = up()?;
    kill_process(Pid::from_child(&child), Signal::TERM)?;
    ensure!(child.wait()?.success(), "stopping on request is not a failure");
    ensure!(!dir.exists() && processes(&dir)?.is_empty(), "the owner exited before its cleanup was done");
    Ok(())
}

#[test]
fn after_sigkill_of_the_supervisor() -> Result<()> {
    let (mut child, dir) = up()?;
    let all = processes(&dir)?;
    let (supervisor, _) = all.iter().find(|(_, command)| command.contains(" supervise ")).context("no supervisor")?;
    kill_process(Pid::from_raw(*supervisor).context("no pid")?, Signal::KILL)?;
    ensure!(!child.wait()?.success(), "the owner did not notice the loss of its cluster");
    nothing_is_left(&dir)
}
