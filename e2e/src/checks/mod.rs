//! Runs the checks of `e2e test` and counts their results.

pub mod deny;
mod parallel;
mod record;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Seek, Write, stdout},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use e2e::host::cargo;

/// The result of a stage. A stage that is not a test suite counts as one check.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    /// How many of `passed` passed in an earlier run and have not changed since.
    pub earlier: usize,
    /// Additional information.
    pub note: String,
    /// The tests that did not run, with their reasons.
    pub ignored: Vec<String>,
    /// The tests that failed.
    pub failures: Vec<Failure>,
}

/// A failed test, and how its output begins.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    pub test: String,
    pub output: Vec<String>,
}

impl Failure {
    /// How many lines of the output are kept.
    const LINES: usize = 6;
    /// How many characters of a line are kept.
    const WIDTH: usize = 400;

    /// Adds a line of the output.
    fn add(&mut self, line: &str) {
        if self.output.len() < Self::LINES && !line.trim().is_empty() {
            self.output.push(line.chars().take(Self::WIDTH).collect());
        }
    }
}

impl Outcome {
    pub fn passed() -> Self {
        Self { passed: 1, ..Self::default() }
    }

    pub fn failed(why: &str) -> Self {
        Self { failed: 1, note: why.to_owned(), ..Self::default() }
    }

    /// Returns the result of a skipped stage, with the reason.
    pub fn skipped(why: &str) -> Self {
        Self { skipped: 1, note: why.to_owned(), ..Self::default() }
    }

    /// Adds the result in a line of a test harness.
    fn count(&mut self, line: &str) {
        if let Some((test, why)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ignored")) {
            self.ignored.push(format!("{}{}", test.trim_end(), why.replacen(", ", ": ", 1)));
        }
        if let Some(test) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" ----")) {
            let test = test.strip_suffix(" stdout").unwrap_or(test).to_owned();
            self.failures.push(Failure { test, output: Vec::new() });
        } else if let Some(failure) = self.failures.last_mut() {
            failure.add(line);
        }
        let Some(counts) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else { return };
        for count in counts.1.split("; ") {
            let Some((number, word)) = count.split_once(' ') else { continue };
            let Ok(number) = number.parse::<usize>() else { continue };
            match word {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }

    /// Adds the results in the output of a test harness.
    fn count_all(&mut self, output: &mut File) -> Result<()> {
        output.rewind()?;
        for line in BufReader::new(output).split(b'\n') {
            self.count(&String::from_utf8_lossy(&line?));
        }
        Ok(())
    }

    /// Records whether the harness failed, and how to rerun it.
    fn settle(&mut self, success: bool, again: impl FnOnce() -> String) {
        if !success {
            // A failed build or an aborted process reports no failed test.
            self.failed = self.failed.max(1);
            self.note = format!(": {}", again());
        }
    }

    /// Adds the result of another part of the stage.
    fn add(&mut self, part: Self) {
        self.passed += part.passed;
        self.failed += part.failed;
        self.skipped += part.skipped;
        self.earlier += part.earlier;
        self.note += &part.note;
        self.ignored.extend(part.ignored);
        self.failures.extend(part.failures);
    }
}

/// Runs commands.
pub struct Runner {
    quiet: bool,
}

impl Runner {
    pub fn new(quiet: bool) -> Self {
        Self { quiet }
    }

    /// Runs a command that succeeds or fails.
    pub fn check(&self, command: &mut Command) -> Result<Outcome> {
        let (success, _) = self.run(command)?;
        Ok(if success { Outcome::passed() } else { Outcome::failed(&shown(command)) })
    }

    /// Runs a test harness.
    pub fn tests(&self, command: &mut Command) -> Result<Outcome> {
        let (success, mut outcome) = self.run(command)?;
        outcome.settle(success, || shown(command));
        Ok(outcome)
    }

    fn run(&self, command: &mut Command) -> Result<(bool, Outcome)> {
        println!("$ {}", shown(command));
        command.stdin(Stdio::null());
        if self.quiet { run_captured(command) } else { run_streaming(command) }.with_context(|| shown(command))
    }
}

/// Prints the output while the command runs.
fn run_streaming(command: &mut Command) -> Result<(bool, Outcome)> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut outcome = Outcome::default();
    let mut output = BufReader::new(child.stdout.take().context("no output")?);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        outcome.count(String::from_utf8_lossy(&line).trim_end());
        stdout().write_all(&line)?;
        line.clear();
    }
    Ok((child.wait()?.success(), outcome))
}

/// Prints the output only if the command fails.
fn run_captured(command: &mut Command) -> Result<(bool, Outcome)> {
    let (success, mut output) = captured(command)?;
    let mut outcome = Outcome::default();
    outcome.count_all(&mut output)?;
    if !success {
        show(output)?;
    }
    Ok((success, outcome))
}

/// Runs a command and captures its output in a file, in order.
fn captured(command: &mut Command) -> Result<(bool, File)> {
    let file = tempfile::tempfile()?;
    let success = command.stdout(file.try_clone()?).stderr(file.try_clone()?).status()?.success();
    Ok((success, file))
}

/// Prints the output of a command.
fn show(mut output: File) -> Result<()> {
    output.rewind()?;
    io::copy(&mut output, &mut stdout())?;
    Ok(())
}

/// The command as a user would type it in a shell.
fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program()).file_stem().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Returns a cargo command with these arguments.
pub fn cargo(args: &[&str]) -> Command {
    let mut command = cargo::command();
    command.args(args);
    command
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn the_results_of_test_binaries_add_up() {
        let mut outcome = Outcome::default();
        for line in [
            "running 7 tests",
            "test some::test ... ok",
            "test other::test     ... ignored, known, and why",
            "test result: ok. 5 passed; 0 failed; 2 ignored; 0 measured; 1 filtered out; finished in 0.01s",
            "test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s",
        ] {
            outcome.count(line);
        }
        assert_eq!((outcome.passed, outcome.failed, outcome.skipped), (6, 3, 2));
        assert_eq!(outcome.ignored, ["other::test: known, and why"]);
    }

    #[test]
    fn the_output_of_a_failed_test_is_kept_as_far_as_it_is_read() {
        let mut outcome = Outcome::default();
        let long = "x".repeat(500);
        let frames = ["   0: some::frame"; 20];
        let lines = ["failures:", "", "---- some::test stdout ----", "===== error: a word", "", &long];
        for line in lines.iter().chain(&frames).chain(&["---- other::test ----", "no Pod"]) {
            outcome.count(line);
        }
        let [first, second] = &*outcome.failures else { panic!("{:?}", outcome.failures) };
        assert_eq!((&*first.test, &*first.output[0]), ("some::test", "===== error: a word"));
        assert_eq!((first.output[1].len(), first.output.len()), (400, 6));
        assert_eq!((&*second.test, &*second.output), ("other::test", &["no Pod".to_owned()][..]));
    }
}
