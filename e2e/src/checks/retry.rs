//! Runs failed tests once more, when nothing else runs. A test that then passes is flaky: it counts as passed, and the
//! summary shows how it failed.
//!
//! Invariant: an account with more users than slots fails the run, even if it happens only once.

use std::process::Command;

use anyhow::Result;
use e2e::history::OVERUSE;

use super::{Failure, Outcome, captured};

/// How many failed tests run again. If more fail, the change is to blame.
const MOST: usize = 3;

/// Moves the failures that do not happen again from `failures` to `flaky`, and adds the results of all binaries up. Each
/// binary comes with the command that runs it.
pub fn retry(mut binaries: Vec<(Outcome, impl Fn() -> Command)>) -> Result<Outcome> {
    let may_retry = binaries.iter().map(|(outcome, _)| outcome.failed).sum::<usize>() <= MOST
        && binaries.iter().all(|(outcome, _)| may_be_accidents(outcome));
    let mut total = Outcome::default();
    for (outcome, command) in &mut binaries {
        if may_retry {
            retry_binary(outcome, &*command)?;
        }
        total.add(std::mem::take(outcome));
    }
    Ok(total)
}

fn retry_binary(outcome: &mut Outcome, command: impl Fn() -> Command) -> Result<()> {
    for failure in std::mem::take(&mut outcome.failures) {
        println!("runs again, alone: {}", failure.test);
        let (success, mut output) = captured(command().args(["--exact", &failure.test]))?;
        let mut again = Outcome::default();
        again.count_all(&mut output)?;
        // A name that matches no test succeeds too.
        if success && again.passed == 1 {
            outcome.failed -= 1;
            outcome.passed += 1;
            outcome.flaky.push(failure);
        } else {
            outcome.failures.push(failure);
        }
    }
    if outcome.failed == 0 {
        outcome.note.clear();
    }
    Ok(())
}

/// A binary that aborts does not name all tests that failed.
fn may_be_accidents(outcome: &Outcome) -> bool {
    let overuse = |failure: &Failure| failure.output.iter().any(|line| line.contains(OVERUSE));
    outcome.failed == outcome.failures.len() && !outcome.failures.iter().any(overuse)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use anyhow::Result;
    use e2e::history::OVERUSE;

    use super::retry;
    use crate::checks::{Failure, Outcome};

    fn failed(outputs: &[&str]) -> Outcome {
        let failure = |output: &&str| Failure { test: "some::test".to_owned(), output: vec![(*output).to_owned()] };
        let failures: Vec<_> = outputs.iter().map(failure).collect();
        Outcome { passed: 5, failed: outputs.len(), note: ": again".to_owned(), failures, ..Outcome::default() }
    }

    fn sh(script: &str) -> impl Fn() -> Command {
        move || {
            let mut command = Command::new("sh");
            command.args(["-c", script, "sh"]);
            command
        }
    }

    /// Returns how many tests passed and failed, and how many were flaky.
    fn after(outcome: Outcome, script: &str) -> Result<(usize, usize, usize)> {
        let outcome = retry(vec![(outcome, sh(script))])?;
        assert_eq!(outcome.note.is_empty(), outcome.failed == 0);
        assert_eq!(outcome.failed, outcome.failures.len());
        Ok((outcome.passed, outcome.failed, outcome.flaky.len()))
    }

    const PASSES: &str = r#"[ "$1 $2" = "--exact some::test" ] && echo "test result: ok. 1 passed; 0 failed""#;

    #[test]
    fn what_passes_alone_is_flaky() -> Result<()> {
        assert_eq!(after(failed(&["not within 60 s"]), PASSES)?, (6, 0, 1));
        assert_eq!(after(failed(&["not within 60 s", "refused"]), PASSES)?, (7, 0, 2));
        Ok(())
    }

    #[test]
    fn what_fails_again_has_failed() -> Result<()> {
        for script in ["exit 1", "true", "echo 'test result: ok. 0 passed; 0 failed'", &format!("{PASSES}; exit 1")] {
            assert_eq!(after(failed(&["not within 60 s"]), script)?, (5, 1, 0), "{script}");
        }
        Ok(())
    }

    #[test]
    fn an_account_over_its_limit_is_never_an_accident() -> Result<()> {
        let overuse = format!("{OVERUSE}: provider a/b allows 1");
        assert_eq!(after(failed(&[&overuse]), PASSES)?, (5, 1, 0));
        assert_eq!(after(failed(&["not within 60 s", &overuse]), PASSES)?, (5, 2, 0));
        Ok(())
    }

    #[test]
    fn many_failures_are_no_accident() -> Result<()> {
        assert_eq!(after(failed(&["a", "b", "c", "d"]), PASSES)?, (5, 4, 0));
        let two = || (failed(&["a", "b"]), sh(PASSES));
        assert_eq!(retry(vec![two(), two()])?.failed, 4);
        Ok(())
    }

    #[test]
    fn a_binary_that_aborts_is_no_accident() -> Result<()> {
        let aborted = Outcome { failed: 1, ..Outcome::default() };
        let outcome = retry(vec![(aborted, sh(PASSES))])?;
        assert_eq!((outcome.failed, outcome.flaky.len()), (1, 0));
        Ok(())
    }
}
