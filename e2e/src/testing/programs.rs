//! Programs in a network of their own, without a cluster. These functions panic on failure.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// The interval between two checks of a condition.
const POLL: Duration = Duration::from_millis(50);

/// Keeps the network until its standard input ends, even if the test is killed. Then kills all remaining processes in
/// the network.
const KEEPER: &str = r#"
ip link set lo up && echo up && cat
own=$(readlink /proc/$$/ns/net)
for process in /proc/[0-9]*; do
    if [ "$process" != "/proc/$$" ] && [ "$(readlink "$process/ns/net")" = "$own" ]; then
        kill -KILL "${process#/proc/}"
    fi
done
"#;

/// Waits until `look` returns a value.
///
/// # Panics
/// When there is none in time.
pub fn eventually<T>(what: &str, seconds: u64, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {seconds} seconds: {what}");
        sleep(POLL);
    }
}

/// A network with only the loopback device. Dropping it ends the network and all programs in it.
pub struct Network(Child);

impl Network {
    /// Creates a network.
    ///
    /// # Panics
    /// When this is not possible.
    #[expect(clippy::new_without_default, reason = "this starts a process")]
    pub fn new() -> Self {
        let mut command = Command::new("unshare");
        // In a process group of its own, Ctrl-C does not end it before it has cleaned up.
        command.args(["--net", "sh", "-c", KEEPER]).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut keeper = command.spawn().expect("unshare runs");
        let mut up = [0; 3];
        let output = keeper.stdout.as_mut().expect("it is piped");
        output.read_exact(&mut up).expect("there is a network");
        Self(keeper)
    }

    /// Returns the command that runs a program in the network.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.0.id().to_string(), "--net", "--"]).arg(program);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A running program. Dropping it ends the program and its children.
pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts a program whose output goes to a file.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let output = File::create(log).expect("the log can be written");
        let errors = output.try_clone().expect("a file can be used twice");
        command.process_group(0).stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// The process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The output so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until the output contains a text.
    ///
    /// # Panics
    /// When that does not happen in time.
    pub fn writes(&self, text: &str, seconds: u64) {
        let what = format!("{text:?} in {}", self.log.display());
        eventually(&what, seconds, || self.log().contains(text).then_some(()));
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the program has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the program runs");
    }

    /// The exit status, if the program has ended.
    ///
    /// # Panics
    /// When the status cannot be read.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is a child of this process")
    }

    /// Waits for the end, and returns how long it took.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn end(&mut self, seconds: u64) -> (ExitStatus, Duration) {
        let started = Instant::now();
        let status = eventually("the program ends", seconds, || self.ended());
        (status, started.elapsed())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), self.log());
        }
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}
