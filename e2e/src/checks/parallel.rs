//! Runs the test binaries of a package in parallel. Each starts its own control plane and is idle about half of the
//! time.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{
    Outcome, Runner, captured, cargo,
    record::{Inputs, Record},
    show, shown,
};

/// The test binary that builds. It runs alone and first, because it uses all CPUs: other tests would slow down, and
/// real Pods would fail.
const BUILDS: &str = "builds";
/// Test binaries with a node that runs containers, or that measure how soon a real server reacts. Nothing runs beside
/// them, because real Pods use all available CPU time, and fail their probes without it.
const WITH_NODE: [&str; 4] = ["node", "verification", "in_cluster", "agent"];
/// The slowest of the other test binaries, slowest first. The rest follow by name. A slow binary that starts late would
/// delay the whole run.
const LONGEST: [&str; 10] =
    ["autoscaling", "bad_days", "counts", "restart", "operator", "chart", "lease", "crowds", "clients", "life"];
/// How long the start of a control plane keeps the CPUs busy.
const START: Duration = Duration::from_secs(10);
/// The interval over which CPU usage is measured.
const LOOK: Duration = Duration::from_secs(3);
/// The share of idle CPU time above which one more binary starts.
const IDLE_PERCENT: u64 = 50;

/// A line of cargo's JSON output, with the fields that are used here:
/// <https://doc.rust-lang.org/cargo/reference/external-tools.html#artifact-messages>.
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    /// Whether the binary has a test harness. cargo also builds the package's programs, because the tests run them.
    test: bool,
}

/// A test binary.
struct Binary {
    name: String,
    path: PathBuf,
}

impl Runner {
    /// Runs all test binaries of a package, up to `jobs` at once. One more than the number of CPUs always run, because
    /// each is idle about half of the time; further ones start only while the CPUs are idle. A binary with a node runs
    /// alone. Prints the output of a binary when it ends. Unless `fresh` is set, skips binaries that have passed and
    /// whose inputs have not changed.
    pub fn tests_at_once(&self, package: &str, jobs: usize, fresh: bool) -> Result<Outcome> {
        let mut queue = build(package)?;
        let first = || WITH_NODE.iter().chain(&LONGEST);
        let rank = |binary: &Binary| first().position(|name| *name == binary.name).unwrap_or(usize::MAX);
        queue.sort_by(|a, b| (rank(a), &a.name).cmp(&(rank(b), &b.name)));
        let inputs = Inputs::now().inspect_err(|why| println!("all tests run: {why:#}")).ok();
        let mut total = Outcome::default();
        if let Some(inputs) = inputs.as_ref().filter(|_| !fresh) {
            let mut changed = Vec::new();
            for binary in queue {
                match Record::of(&binary.path, inputs)? {
                    Some(record) => {
                        println!("nothing has changed since it passed: {}, {}", binary.name, record.at);
                        total.add(record.outcome());
                    }
                    None => changed.push(binary),
                }
            }
            queue = changed;
        }
        println!("{} test binaries, up to {jobs} at once", queue.len());
        let (builds, others) = queue.into_iter().partition(|binary| binary.name == BUILDS);
        total.add(self.at_once(package, builds, 1, inputs.as_ref())?);
        total.add(self.at_once(package, others, jobs, inputs.as_ref())?);
        Ok(total)
    }

    /// Runs the binaries in order. Those with a node come first, one at a time.
    fn at_once(&self, package: &str, mut queue: Vec<Binary>, jobs: usize, inputs: Option<&Inputs>) -> Result<Outcome> {
        let least = jobs.min(1 + thread::available_parallelism().map_or(1, usize::from));
        let mut total = Outcome::default();
        let (mut processors, mut node_is_free, mut running) = (Processors::new()?, true, 0);
        thread::scope(|scope| {
            let (end, ends) = mpsc::channel();
            while running > 0 || !queue.is_empty() {
                // Real Pods fail their probes if they wait for the CPU.
                let may_start = node_is_free && (running < least || running < jobs && processors.have_time()?);
                if may_start && !queue.is_empty() {
                    let (binary, end) = (queue.remove(0), end.clone());
                    node_is_free &= !binary.with_node();
                    running += 1;
                    println!("started: {}", binary.name);
                    processors.given_work();
                    scope.spawn(move || {
                        let result = binary.run(package, inputs);
                        drop(end.send((binary, result)));
                    });
                } else if let Ok((binary, result)) = ends.recv_timeout(LOOK) {
                    node_is_free |= binary.with_node();
                    running -= 1;
                    let (outcome, output, took) = result.with_context(|| binary.name.clone())?;
                    let word = if outcome.failed == 0 { "ended" } else { "FAILED" };
                    println!("{word}: {} after {:.0} s", binary.name, took.as_secs_f64());
                    if outcome.failed > 0 || !self.quiet {
                        show(output)?;
                    }
                    total.add(outcome);
                }
            }
            Ok(total)
        })
    }
}

impl Binary {
    fn with_node(&self) -> bool {
        WITH_NODE.contains(&&*self.name)
    }

    fn run(&self, package: &str, inputs: Option<&Inputs>) -> Result<(Outcome, File, Duration)> {
        let began = Instant::now();
        Record::forget(&self.path)?;
        let mut command = Command::new(&self.path);
        // The call stack of an async task is long, and tells less than the cause of the error.
        command.env("RUST_LIB_BACKTRACE", "0");
        // The directory where cargo runs tests.
        command.current_dir(PathBuf::from(e2e::host::cargo::ROOT).join(package)).stdin(Stdio::null());
        let (success, mut output) = captured(&mut command)?;
        let mut outcome = Outcome::default();
        outcome.count_all(&mut output)?;
        outcome.settle(success, || again(package, &self.name));
        // If the inputs cannot be determined any more, the checkout is changing, so the result is not recorded.
        if let (Some(before), Ok(after)) = (inputs, Inputs::now()) {
            Record::keep(&self.path, before, &after, &outcome)?;
        }
        Ok((outcome, output, began.elapsed()))
    }
}

/// CPU usage over the last seconds. `make --load-average` uses the load average instead, which reacts more slowly.
struct Processors {
    since: Instant,
    before: Ticks,
}

/// CPU time since boot in ticks, summed over all CPUs. See proc_stat(5).
#[derive(Clone, Copy)]
struct Ticks {
    idle: u64,
    all: u64,
}

impl Processors {
    fn new() -> Result<Self> {
        Ok(Self { since: Instant::now(), before: Ticks::now()? })
    }

    /// Restarts the measurement after the start of a control plane, which uses all CPUs.
    fn given_work(&mut self) {
        self.since = Instant::now() + START;
    }

    /// Whether the CPUs were idle for enough of the measured interval.
    fn have_time(&mut self) -> Result<bool> {
        let (now, ticks) = (Instant::now(), Ticks::now()?);
        if now < self.since {
            self.before = ticks;
        }
        if now < self.since + LOOK {
            return Ok(false);
        }
        let before = std::mem::replace(self, Self { since: now, before: ticks }).before;
        // The kernel can decrease iowait.
        let (idle, all) = (ticks.idle.saturating_sub(before.idle), ticks.all.saturating_sub(before.all));
        Ok(idle * 100 > all * IDLE_PERCENT)
    }
}

impl Ticks {
    fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().context("/proc/stat is empty")?;
        let times: Vec<u64> = line.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>()?;
        let idle = times.get(3..5).context("/proc/stat has no idle time")?;
        Ok(Self { idle: idle.iter().sum(), all: times.iter().take(8).sum() })
    }
}

/// Returns the command that runs one binary alone.
fn again(package: &str, name: &str) -> String {
    match name == package {
        true => format!("cargo test --package={package} --lib --bins"),
        false => format!("cargo test --package={package} --test={name}"),
    }
}

fn build(package: &str) -> Result<Vec<Binary>> {
    let package = format!("--package={package}");
    let mut command = cargo(&["test", &package, "--locked", "--no-run", "--message-format=json-render-diagnostics"]);
    println!("$ {}", shown(&command));
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the tests do not build; the messages are above");
    let mut binaries = Vec::new();
    for line in output.stdout.split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"{")) {
        let message: Message = serde_json::from_slice(line)?;
        if let (Some(target), Some(Profile { test: true }), Some(path)) =
            (message.target, message.profile, message.executable)
        {
            binaries.push(Binary { name: target.name, path });
        }
    }
    Ok(binaries)
}
