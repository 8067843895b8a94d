//! The process that owns every process of a cluster, so that none outlives a run.
//!
//! `Drop` does not run when the test harness calls `exit`, or on SIGKILL. A pipe always closes. The supervisor is a child
//! process that reads requests from its standard input. When that input ends, the supervisor stops what it started, newest
//! first, because later programs depend on earlier ones. Then it removes the state directory. If the supervisor itself is
//! killed, the kernel kills its children: each child asks for this with `PR_SET_PDEATHSIG` before it becomes its program.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    protocol::{BECOME, Report, Request},
    spec::ProcessSpec,
};

enum Message {
    Request(Request),
    Exited { id: u64, status: String },
    OwnerGone,
}

struct Running {
    id: u64,
    pid: Pid,
    grace_period: Duration,
}

/// Runs the supervisor until its standard input closes. Then stops all processes and removes the directory `remove`.
pub fn supervise(remove: Option<&Path>) -> Result<()> {
    let (messages, inbox) = mpsc::channel();
    let requests = messages.clone();
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(request) => drop(requests.send(Message::Request(request))),
                Err(error) => eprintln!("supervisor: not a request: {error}: {line}"),
            }
        }
        drop(requests.send(Message::OwnerGone));
    });

    let mut running = Vec::new();
    for message in &inbox {
        match message {
            // Children are started only from the main thread: PR_SET_PDEATHSIG fires when the thread that forked ends, not
            // when its process ends.
            Message::Request(Request::Start(spec)) => match start(&spec, messages.clone()) {
                Ok(child) => {
                    report(&Report::Started { id: spec.id, pid: child.pid.as_raw_nonzero().get() });
                    running.push(child);
                }
                Err(error) => report(&Report::Exited { id: spec.id, status: format!("not started: {error:#}") }),
            },
            Message::Request(Request::Signal { id, signal }) => {
                let child = running.iter().find(|child| child.id == id);
                if let (Some(child), Some(signal)) = (child, Signal::from_named_raw(signal)) {
                    _ = kill_process(child.pid, signal);
                }
            }
            Message::Exited { id, status } => {
                running.retain(|child| child.id != id);
                report(&Report::Exited { id, status });
            }
            Message::OwnerGone => break,
        }
    }

    stop_all(running, &inbox);
    if let Some(dir) = remove {
        std::fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(())
}

/// Replaces this process with `program`. The kernel kills it as soon as its parent ends. Returns only on failure.
pub fn become_program(parent: u32, program: &Path, args: &[String]) -> Result<()> {
    #[cfg(target_os = "linux")]
    {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have ended before the line above took effect.
        let now = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        if now.unsigned_abs() != parent {
            bail!("the supervisor (process {parent}) is gone");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = parent;
    Err(Command::new(program).args(args).exec()).with_context(|| format!("cannot run {}", program.display()))
}

fn start(spec: &ProcessSpec, exits: mpsc::Sender<Message>) -> Result<Running> {
    // Here, the caller gets the error. Later, it would only be a line in a log.
    if spec.program.components().count() > 1 && !spec.program.is_file() {
        bail!("there is no program {}", spec.program.display());
    }
    let log = File::options()
        .create(true)
        .append(true)
        .open(&spec.log)
        .with_context(|| format!("cannot open the log {}", spec.log.display()))?;
    let mut child = Command::new(own_executable()?)
        .arg(BECOME)
        .arg(std::process::id().to_string())
        .arg(&spec.program)
        .args(&spec.args)
        .envs(&spec.env)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let pid = Pid::from_child(&child);
    let id = spec.id;
    thread::spawn(move || {
        let status = match child.wait() {
            Ok(status) => match status.signal() {
                Some(signal) => format!("killed by signal {signal}"),
                None => format!("exit code {}", status.code().unwrap_or_default()),
            },
            Err(error) => format!("lost: {error}"),
        };
        drop(exits.send(Message::Exited { id, status }));
    });
    Ok(Running { id, pid, grace_period: Duration::from_millis(spec.grace_period_ms) })
}

/// The running binary, even if a build has replaced its file in the meantime.
fn own_executable() -> Result<PathBuf> {
    if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { Ok(std::env::current_exe()?) }
}

fn report(report: &Report) {
    // If the owner has ended, nobody needs the report.
    if let Ok(line) = serde_json::to_string(report) {
        let mut out = std::io::stdout().lock();
        drop(writeln!(out, "{line}").and_then(|()| out.flush()));
    }
}

fn stop_all(running: Vec<Running>, inbox: &mpsc::Receiver<Message>) {
    let mut exited = VecDeque::new();
    for child in running.iter().rev() {
        for signal in [Signal::TERM, Signal::KILL] {
            if exited.contains(&child.id) {
                break;
            }
            _ = kill_process(child.pid, signal);
            let deadline = Instant::now() + child.grace_period.max(Duration::from_secs(1));
            while !exited.contains(&child.id) {
                match inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(Message::Exited { id, .. }) => exited.push_back(id),
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        }
    }
}
