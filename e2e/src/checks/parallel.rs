//! The test binaries of a package, some of them at once: each has a control plane of its own, and waits half of the time.

use std::{
    collections::VecDeque,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{Outcome, Runner, captured, cargo, show, shown};

/// Those with a node that runs containers: one at a time, because real Pods take what processors there are.
const WITH_NODE: [&str; 3] = ["node", "verification", "in_cluster"];
/// Of the others, those that take long, the longest first; the rest follows by name. Started late, one of these would be
/// waited for alone.
const LONGEST: [&str; 6] = ["restart", "chart", "bad_days", "counts", "lease", "operator"];

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
    /// Runs all test binaries of a package, up to `jobs` of them at once. The output of each is shown when it ends.
    pub fn tests_at_once(&self, package: &str, jobs: usize) -> Result<Outcome> {
        let dir = PathBuf::from(e2e::cargo::ROOT).join(package);
        let mut binaries = build(package)?;
        let first = || WITH_NODE.iter().chain(&LONGEST);
        let rank = |binary: &Binary| first().position(|name| *name == binary.name).unwrap_or(usize::MAX);
        binaries.sort_by(|a, b| (rank(a), &a.name).cmp(&(rank(b), &b.name)));
        println!("{} test binaries, {jobs} at once", binaries.len());

        let queue = Mutex::new(VecDeque::from(binaries));
        let total = Mutex::new(Outcome::default());
        let (queue, total) = (&queue, &total);
        let lane = |number: usize| -> Result<()> {
            let is_mine = |binary: &Binary| number == 0 || !WITH_NODE.contains(&&*binary.name);
            loop {
                let next = {
                    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                    queue.iter().position(is_mine).and_then(|at| queue.remove(at))
                };
                let Some(binary) = next else { return Ok(()) };
                println!("started: {}", binary.name);
                let began = Instant::now();
                let mut command = Command::new(&binary.path);
                command.current_dir(&dir).stdin(Stdio::null());
                let (success, mut output) = captured(&mut command).with_context(|| binary.name.clone())?;
                let mut outcome = Outcome::default();
                outcome.count_all(&mut output)?;
                outcome.settle(success, || again(package, &binary.name));

                let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                let word = if success { "ended" } else { "FAILED" };
                println!("{word}: {} after {:.0} s", binary.name, began.elapsed().as_secs_f64());
                if !success || !self.quiet {
                    show(output)?;
                }
                total.add(outcome);
            }
        };
        thread::scope(|scope| {
            let lanes: Vec<_> = (0..jobs.max(1)).map(|number| scope.spawn(move || lane(number))).collect();
            lanes.into_iter().try_for_each(|lane| lane.join().map_err(|_| anyhow::anyhow!("a lane panicked"))?)
        })?;
        Ok(std::mem::take(&mut *total.lock().unwrap_or_else(PoisonError::into_inner)))
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
