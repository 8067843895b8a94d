//! The owner's side of the [supervisor process](super::supervisor): it starts, watches and signals processes that end
//! with this one.

use std::{
    collections::HashMap,
    ffi::OsString,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
pub use rustix::process::Signal;
use tokio::sync::watch;

use super::{
    isolation::{ISOLATE, Isolation},
    log::log_tail,
    protocol::{Report, Request, SUPERVISE},
    spec::ProcessSpec,
};

/// The state of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Running(i32),
    Exited(String),
}

type States = Arc<Mutex<HashMap<u64, watch::Sender<State>>>>;
type Pipe = Arc<Mutex<Option<ChildStdin>>>;

/// A handle to a supervisor process. It holds the pipe that keeps the supervisor, and so all of its processes, alive.
pub struct Supervisor {
    child: Option<Child>,
    remove: Option<PathBuf>,
    isolation: Option<Isolation>,
    pipe: Pipe,
    states: States,
    next_id: AtomicU64,
}

impl Supervisor {
    /// Starts a supervisor. At the end of the run, the supervisor removes the directory `remove`.
    pub fn spawn(remove: Option<&Path>) -> Result<Self> {
        let mut arguments = vec![SUPERVISE.into()];
        arguments.extend(remove.map(Into::into));
        Self::spawn_with(&arguments, remove, None)
    }

    /// Starts a supervisor in Linux namespaces of its own. The process IDs are those inside of the PID namespace.
    pub fn spawn_isolated(remove: Option<&Path>, isolation: &Isolation) -> Result<Self> {
        let mut arguments = vec![ISOLATE.into(), serde_json::to_string(isolation)?.into()];
        arguments.extend(remove.map(Into::into));
        Self::spawn_with(&arguments, remove, Some(isolation))
    }

    fn spawn_with(arguments: &[OsString], remove: Option<&Path>, isolation: Option<&Isolation>) -> Result<Self> {
        let executable = e2e_executable()?;
        let mut child = Command::new(&executable)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C in a terminal goes to the whole process group. The supervisor and its processes must outlive their
            // owner so that they stop in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", executable.display()))?;
        let pipe = Arc::new(Mutex::new(child.stdin.take()));
        let reports = child.stdout.take().context("the supervisor has no standard output")?;
        let states = States::default();
        // This is a thread and not a task, because it has to outlive the runtime of the test that happens to be the first
        // user of a shared cluster.
        let for_thread = Arc::clone(&states);
        thread::spawn(move || {
            for line in BufReader::new(reports).lines().map_while(Result::ok) {
                let (id, state) = match serde_json::from_str(&line) {
                    Ok(Report::Started { id, pid }) => (id, State::Running(pid)),
                    Ok(Report::Exited { id, status }) => (id, State::Exited(status)),
                    Err(_) => continue,
                };
                if let Some(sender) = locked(&for_thread).get(&id) {
                    sender.send_replace(state);
                }
            }
            for sender in locked(&for_thread).values() {
                sender.send_if_modified(|state| {
                    let open = !matches!(state, State::Exited(_));
                    if open {
                        *state = State::Exited("stopped with the supervisor".into());
                    }
                    open
                });
            }
        });
        Ok(Self {
            child: Some(child),
            remove: remove.map(Path::to_owned),
            isolation: isolation.cloned(),
            pipe,
            states,
            next_id: AtomicU64::new(0),
        })
    }

    /// Starts a process. At the end of the run, the processes stop in reverse order of their start.
    pub async fn start(&self, mut spec: ProcessSpec) -> Result<Process> {
        spec.id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, mut state) = watch::channel(State::Starting);
        locked(&self.states).insert(spec.id, sender);
        send(&self.pipe, &Request::Start(spec.clone()))?;
        let now = state.wait_for(|state| *state != State::Starting).await?.clone();
        if let State::Exited(status) = &now
            && status.starts_with("not started")
        {
            bail!("{} {status}", spec.name);
        }
        Ok(Process { spec, state, pipe: Arc::clone(&self.pipe) })
    }

    /// Stops all processes, newest first, and returns when they have ended.
    pub fn shut_down(&mut self) {
        drop(locked(&self.pipe).take());
        if let Some(mut child) = self.child.take() {
            drop(child.wait());
        }
        // Processes are left only if the supervisor was killed.
        if let Some(isolation) = self.isolation.take() {
            drop(isolation.remove(None));
        }
        if let Some(dir) = self.remove.take().filter(|dir| dir.exists()) {
            drop(std::fs::remove_dir_all(dir));
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// A process that a [`Supervisor`] started. The process keeps running when this handle is dropped.
#[derive(Clone)]
pub struct Process {
    spec: ProcessSpec,
    state: watch::Receiver<State>,
    pipe: Pipe,
}

impl Process {
    /// The specification that the process was started with.
    pub fn spec(&self) -> &ProcessSpec {
        &self.spec
    }

    /// The process ID while the process runs.
    pub fn pid(&self) -> Option<i32> {
        match *self.state.borrow() {
            State::Running(pid) => Some(pid),
            _ => None,
        }
    }

    /// Waits until the process ends and returns how it ended, such as `exit code 1`.
    pub async fn exited(&self) -> String {
        let mut state = self.state.clone();
        loop {
            if let State::Exited(status) = &*state.borrow_and_update() {
                return status.clone();
            }
            if state.changed().await.is_err() {
                return "stopped with the supervisor".into();
            }
        }
    }

    /// Sends a signal. Nothing happens when the process has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        send(&self.pipe, &Request::Signal { id: self.spec.id, signal: signal.as_raw() })
    }

    /// Sends SIGTERM, and SIGKILL if the process still runs after `grace_period`. Returns how the process ended.
    pub async fn stop(&self, grace_period: Duration) -> Result<String> {
        self.signal(Signal::TERM)?;
        if let Ok(status) = tokio::time::timeout(grace_period, self.exited()).await {
            return Ok(status);
        }
        self.signal(Signal::KILL)?;
        Ok(self.exited().await)
    }

    /// The last `lines` lines of the log.
    pub fn log_tail(&self, lines: usize) -> String {
        log_tail(&self.spec.log, lines)
    }
}

fn send(pipe: &Pipe, request: &Request) -> Result<()> {
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    match locked(pipe).as_mut() {
        Some(stdin) => stdin.write_all(line.as_bytes()).context("the supervisor is gone"),
        None => bail!("the cluster is already stopped"),
    }
}

/// Locks a mutex. If another test panicked while it held the lock, the data is still consistent.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The `e2e` binary: the executable of this process, or the one that cargo builds next to a test binary.
fn e2e_executable() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CARGO_BIN_EXE_e2e") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("cannot get the path of this executable")?;
    if own.file_stem().is_some_and(|name| name == "e2e") {
        return Ok(own);
    }
    // Test binaries are in target/<profile>/deps, the binary one directory up.
    let beside = own.parent().and_then(Path::parent).map(|dir| dir.join("e2e"));
    match beside {
        Some(path) if path.is_file() => Ok(path),
        _ => bail!("the e2e binary is not beside {}: run `cargo build -p e2e`", own.display()),
    }
}
