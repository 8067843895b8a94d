//! The test binaries of a package, some of them at once: each has a control plane of its own, and waits half of the time.

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

/// That which builds and takes all processors, before all others: beside it, tests would take long, and real Pods fail.
const BUILDS: &str = "builds";
/// Those with a node that runs containers: one at a time, because real Pods take what processors there are.
const WITH_NODE: [&str; 3] = ["node", "verification", "in_cluster"];
/// Of the others, those that take long, the longest first; the rest follows by name. Started late, one of these would be
/// waited for alone.
const LONGEST: [&str; 9] = ["bad_days", "counts", "restart", "operator", "chart", "lease", "crowds", "clients", "life"];
/// How long the start of a control plane keeps the processors busy.
const START: Duration = Duration::from_secs(10);
/// For how long one looks at what they do.
const LOOK: Duration = Duration::from_secs(3);
/// How much of that they have to be idle for one more.
const IDLE_PERCENT: u64 = 50;

/// A line of cargo's JSON messages, as far as it is read here:
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
    /// Built with a test harness; programs of the package are built too, for tests to run them.
    test: bool,
}

/// A test binary.
struct Binary {
    name: String,
    path: PathBuf,
}

impl Runner {
    /// Runs all test binaries of a package, up to `jobs` of them at once: one more than there are processors, as each
    /// waits half of the time, and a further one when they have time for it. The output of each is shown when it ends.
    /// Unless `fresh`, those that have passed are not run again while nothing has changed.
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

    /// Runs these, in their order as far as the node is free.
    fn at_once(&self, package: &str, mut queue: Vec<Binary>, jobs: usize, inputs: Option<&Inputs>) -> Result<Outcome> {
        let least = jobs.min(1 + thread::available_parallelism().map_or(1, usize::from));
        let mut total = Outcome::default();
        let (mut processors, mut node_is_free, mut running) = (Processors::new()?, true, 0);
        thread::scope(|scope| {
            let (end, ends) = mpsc::channel();
            while running > 0 || !queue.is_empty() {
                let may_start = running < least || running < jobs && processors.have_time()?;
                let next = queue.iter().position(|binary| node_is_free || !binary.with_node());
                if let Some(next) = next.filter(|_| may_start) {
                    let (binary, end) = (queue.remove(next), end.clone());
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
        // Where cargo runs them.
        command.current_dir(PathBuf::from(e2e::host::cargo::ROOT).join(package)).stdin(Stdio::null());
        let (success, mut output) = captured(&mut command)?;
        let mut outcome = Outcome::default();
        outcome.count_all(&mut output)?;
        outcome.settle(success, || again(package, &self.name));
        // Where they cannot be told any more, something changes just now.
        if let (Some(before), Ok(after)) = (inputs, Inputs::now()) {
            Record::keep(&self.path, before, &after, &outcome)?;
        }
        Ok((outcome, output, began.elapsed()))
    }
}

/// How busy the processors are, as `make --load-average` asks, but of the last seconds.
struct Processors {
    since: Instant,
    before: Ticks,
}

/// Time of all processors since the machine started, in ticks: proc_stat(5).
#[derive(Clone, Copy)]
struct Ticks {
    idle: u64,
    all: u64,
}

impl Processors {
    fn new() -> Result<Self> {
        Ok(Self { since: Instant::now(), before: Ticks::now()? })
    }

    /// A control plane takes all there is until it is up: what is free is known after that.
    fn given_work(&mut self) {
        self.since = Instant::now() + START;
    }

    /// Whether they were idle for a good part of the last seconds.
    fn have_time(&mut self) -> Result<bool> {
        let (now, ticks) = (Instant::now(), Ticks::now()?);
        if now < self.since {
            self.before = ticks;
        }
        if now < self.since + LOOK {
            return Ok(false);
        }
        let before = std::mem::replace(self, Self { since: now, before: ticks }).before;
        // Time that waited for disks may be counted back.
        let (idle, all) = (ticks.idle.saturating_sub(before.idle), ticks.all.saturating_sub(before.all));
        Ok(idle * 100 > all * IDLE_PERCENT)
    }
}

impl Ticks {
    fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().context("/proc/stat is empty")?;
        let times: Vec<u64> = line.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>()?;
        let idle = times.get(3..5).context("/proc/stat does not tell the idle time")?;
        Ok(Self { idle: idle.iter().sum(), all: times.iter().take(8).sum() })
    }
}

/// How to run one of them alone.
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
