//! `e2e test`

use std::{
    num::NonZeroUsize,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use e2e::{node, operator_image as image, tools::Binaries};

use crate::checks::{Outcome, Runner, cargo, deny};

/// Run all checks that a change must pass.
#[derive(Args)]
pub struct Test {
    /// Show the output of failed stages only
    #[arg(long, short)]
    quiet: bool,
    /// Maximum number of test binaries with a control plane that run at once. More than the number of CPUs plus one
    /// run only while the CPUs are idle
    #[arg(long, short, default_value = "4")]
    jobs: NonZeroUsize,
    /// Also run test binaries that have passed and whose inputs have not changed
    #[arg(long)]
    fresh: bool,
    /// Stages to run. Default: all
    #[arg(value_enum)]
    stages: Vec<Stage>,
}

/// The stages in order of execution. Fast stages come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Stage {
    /// The source is formatted
    Fmt,
    /// No lints, all targets
    Clippy,
    /// The documentation builds, no broken links
    Doc,
    /// crds/ matches the types
    Crds,
    /// Unit tests, property tests and documentation tests
    Unit,
    /// Licenses, sources and bans of dependencies
    Deny,
    /// Known vulnerabilities of dependencies
    Advisories,
    /// The control plane programs build
    ControlPlane,
    /// The container image builds
    Image,
    /// Tests on a real control plane
    E2e,
    /// The demo runs to its end
    Demo,
}

impl Stage {
    fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn run(self, runner: &Runner, options: &Test) -> Result<Outcome> {
        match self {
            Stage::Fmt => runner.check(&mut cargo(&["fmt", "--all", "--check"])),
            Stage::Clippy => {
                let args = ["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny=warnings"];
                runner.check(&mut cargo(&args))
            }
            Stage::Doc => {
                let mut command = cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
                runner.check(command.env("RUSTDOCFLAGS", "--deny=warnings"))
            }
            Stage::Crds => {
                // Selects the same packages as the unit tests: others would enable other features and rebuild
                // everything.
                let args = ["test", "--workspace", "--exclude=e2e", "--locked", "--test=crds_up_to_date"];
                runner.check(cargo(&args).env_remove("UPDATE_CRDS"))
            }
            Stage::Unit => {
                let args = ["test", "--workspace", "--exclude=e2e", "--locked", "--no-fail-fast"];
                runner.tests(&mut cargo(&args))
            }
            Stage::Deny => {
                let mut command = deny::command()?;
                runner.check(command.args(["check", "licenses", "bans", "sources"]))
            }
            Stage::Advisories => deny::advisories(runner),
            Stage::ControlPlane => {
                Binaries::ensure()?;
                Ok(Outcome::passed())
            }
            // A stage of its own, because the build and the tests would slow each other down.
            Stage::Image => {
                image::root(tempfile::tempdir()?.path())?;
                Ok(Outcome::passed())
            }
            Stage::E2e => {
                // The tests would install missing packages themselves, which changes their own inputs.
                if node::unavailable().is_none() {
                    node::install()?;
                }
                runner.tests_at_once("e2e", options.jobs.get(), options.fresh)
            }
            Stage::Demo => runner.check(&mut demo(&[])).and_then(|outcome| match outcome.failed {
                0 => runner.check(&mut demo(&["--made-up"])),
                _ => Ok(outcome),
            }),
        }
    }
}

/// Runs the demo as a new user does, except that it exits at the end.
fn demo(args: &[&str]) -> Command {
    let mut command = cargo(&["run", "--quiet", "--package=e2e", "--locked", "--", "demo", "--exit"]);
    command.args(args);
    command
}

impl Test {
    pub fn run(self) -> Result<ExitCode> {
        let all = <Stage as clap::ValueEnum>::value_variants();
        let wanted: Vec<_> = all.iter().filter(|stage| self.stages.is_empty() || self.stages.contains(stage)).collect();
        let runner = Runner::new(self.quiet);
        let began = Instant::now();
        let mut results = Vec::new();
        for (index, stage) in wanted.iter().enumerate() {
            println!("\n===== {} of {}: {}", index + 1, wanted.len(), stage.name());
            let began = Instant::now();
            // A stage that cannot run counts as failed. The other stages still run.
            let outcome = stage.run(&runner, &self).unwrap_or_else(|error| Outcome::failed(&format!("{error:#}")));
            println!("===== {}", line(&stage.name(), &outcome, began.elapsed()));
            results.push((stage.name(), outcome, began.elapsed()));
        }
        Ok(summary(&results, began.elapsed()))
    }
}

fn line(name: &str, outcome: &Outcome, took: Duration) -> String {
    let Outcome { passed, failed, skipped, earlier, note, ignored: _, failures: _ } = outcome;
    let word = match (failed, skipped, passed) {
        (1.., ..) => "FAILED",
        (0, 1.., 0) => "skipped",
        _ => "ok",
    };
    let count = match passed + failed + skipped {
        0 | 1 => String::new(),
        _ => format!("{passed} passed{}, {failed} failed, {skipped} skipped", of_them(*earlier)),
    };
    let line = format!("{name:<14} {word:<8} {:>6.1} s  {count}{note}", took.as_secs_f64());
    line.trim_end().to_owned()
}

/// Describes how many of the passed tests ran earlier.
fn of_them(earlier: usize) -> String {
    if earlier > 0 { format!(" ({earlier} of them earlier)") } else { String::new() }
}

fn summary(results: &[(String, Outcome, Duration)], took: Duration) -> ExitCode {
    println!("\n===== summary, {:.0} s in all", took.as_secs_f64());
    for (name, outcome, took) in results {
        println!("{}", line(name, outcome, *took));
        outcome.ignored.iter().for_each(|test| println!("    skipped: {test}"));
    }
    // Reports keep the end of a long output.
    for failure in results.iter().flat_map(|(_, outcome, _)| &outcome.failures) {
        println!("\nfailed: {}", failure.test);
        failure.output.iter().for_each(|line| println!("    {line}"));
    }
    let sum = |part: fn(&Outcome) -> usize| results.iter().map(|(_, outcome, _)| part(outcome)).sum::<usize>();
    let failed = sum(|outcome| outcome.failed);
    let earlier = sum(|outcome| outcome.earlier);
    println!("\n{} passed{}, {failed} failed, {} skipped", sum(|o| o.passed), of_them(earlier), sum(|o| o.skipped));
    if earlier > 0 {
        println!("earlier: with nothing changed since; --fresh runs them again");
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
