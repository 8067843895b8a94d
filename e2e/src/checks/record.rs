//! Records which test binaries have passed, and with which inputs, so that unchanged ones are not run again.
//!
//! Invariant: a result is reused only if no test was skipped and nothing that it depends on has changed: the test
//! binary, the rest of the checkout, the control plane, the machine's packages and kernel, and the environment
//! variables that tests read. `go test` and Bazel cache results in the same way.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use e2e::{host::cargo::ROOT, tools::Binaries};
use jiff::{Timestamp, Unit};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, digest::Output};

use super::Outcome;

/// The inputs that all test binaries share.
pub struct Inputs(Sha256);

/// A recorded result.
#[derive(Serialize, Deserialize)]
pub struct Record {
    /// The hash of all inputs.
    inputs: String,
    passed: usize,
    /// When the tests ended.
    pub at: Timestamp,
}

impl Inputs {
    /// Returns the current inputs. Fails if they cannot be determined.
    pub fn now() -> Result<Self> {
        for (name, other) in [("KUBECONFIG", "cluster"), ("E2E_OPERATOR", "operator")] {
            ensure!(env::var_os(name).is_none(), "{name} sets an external {other}");
        }
        let mut hash = Sha256::new();
        let mut variables: Vec<_> = env::vars_os().filter(|(name, _)| read_by_tests(&name.to_string_lossy())).collect();
        variables.sort();
        for (name, value) in variables {
            add(&mut hash, name.as_encoded_bytes());
            add(&mut hash, value.as_encoded_bytes());
        }
        add(&mut hash, Binaries::ensure()?.dir().as_os_str().as_encoded_bytes());
        add(&mut hash, &digest(Path::new("/proc/sys/kernel/osrelease"))?);
        // The node uses installed packages. A machine without dpkg has no node.
        let packages = Path::new("/var/lib/dpkg/status");
        if packages.exists() {
            add(&mut hash, &digest(packages)?);
        }
        for file in checkout()? {
            add(&mut hash, file.as_os_str().as_encoded_bytes());
            add(&mut hash, &digest(&Path::new(ROOT).join(&file))?);
        }
        Ok(Self(hash))
    }

    /// Returns the hash of all inputs of a test binary.
    fn with(&self, binary: &Path) -> Result<String> {
        let mut hash = self.0.clone();
        add(&mut hash, &digest(binary)?);
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl Record {
    /// Returns the recorded result of a test binary, if its inputs are unchanged.
    pub fn of(binary: &Path, inputs: &Inputs) -> Result<Option<Self>> {
        let text = match fs::read(place(binary)?) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Another version may have written the record.
        let Ok(record) = serde_json::from_slice::<Self>(&text) else { return Ok(None) };
        Ok((record.inputs == inputs.with(binary)?).then_some(record))
    }

    /// Removes a record before the tests run again.
    pub fn forget(binary: &Path) -> Result<()> {
        match fs::remove_file(place(binary)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Records a result, if all tests ran and passed and the inputs did not change during the run.
    pub fn keep(binary: &Path, before: &Inputs, after: &Inputs, outcome: &Outcome) -> Result<()> {
        let Outcome { passed, failed, skipped, .. } = *outcome;
        let inputs = before.with(binary)?;
        if failed + skipped > 0 || inputs != after.with(binary)? {
            return Ok(());
        }
        let record = Self { inputs, passed, at: Timestamp::now().round(Unit::Second)? };
        let place = place(binary)?;
        fs::create_dir_all(place.parent().context("no directory")?)?;
        fs::write(place, serde_json::to_vec(&record)?)?;
        Ok(())
    }

    pub fn outcome(&self) -> Outcome {
        Outcome { passed: self.passed, earlier: self.passed, ..Outcome::default() }
    }
}

/// The path of the record, beside the test binary, so that `cargo clean` removes it.
fn place(binary: &Path) -> Result<PathBuf> {
    let (dir, name) = (binary.parent(), binary.file_name());
    let (Some(dir), Some(name)) = (dir, name) else { bail!("{} is not a binary", binary.display()) };
    Ok(dir.join("passed").join(name).with_extension("json"))
}

fn read_by_tests(variable: &str) -> bool {
    // Some tests build programs.
    ["E2E_", "CARGO_", "RUST", "UPDATE_"].iter().any(|prefix| variable.starts_with(prefix))
        || ["PATH", "HOME", "XDG_CACHE_HOME", "CC", "CFLAGS"].contains(&variable)
}

/// The files of the checkout, except the sources of the tests, which are compiled into the binaries.
fn checkout() -> Result<Vec<PathBuf>> {
    let mut command = Command::new("git");
    command.current_dir(ROOT).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]);
    let output = command.output().context("cannot run git")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    let names = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    let mut files: Vec<PathBuf> = names.split_terminator('\0').map(PathBuf::from).collect();
    let in_binaries = |file: &Path| file.starts_with("e2e") && file.extension().is_some_and(|ending| ending == "rs");
    files.retain(|file| !in_binaries(file) && Path::new(ROOT).join(file).exists());
    files.sort();
    Ok(files)
}

fn digest(file: &Path) -> Result<Output<Sha256>> {
    Ok(Sha256::digest(fs::read(file).with_context(|| file.display().to_string())?))
}

/// Adds a part to the hash. The length prefix keeps different lists of parts from having the same hash.
fn add(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_le_bytes());
    hash.update(part);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use anyhow::Result;
    use sha2::{Digest, Sha256};

    use super::{Inputs, Record, add};
    use crate::checks::Outcome;

    fn inputs(of: &str) -> Inputs {
        let mut hash = Sha256::new();
        add(&mut hash, of.as_bytes());
        Inputs(hash)
    }

    #[test]
    fn a_result_is_known_until_something_changes() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let binary = dir.path().join("some-0123");
        fs::write(&binary, "one")?;
        let known =
            |inputs: &Inputs| Ok::<_, anyhow::Error>(Record::of(&binary, inputs)?.map(|record| record.outcome()));
        assert_eq!(known(&inputs("a"))?, None);

        let outcome = Outcome { passed: 3, ..Outcome::default() };
        Record::keep(&binary, &inputs("a"), &inputs("a"), &outcome)?;
        assert_eq!(known(&inputs("a"))?, Some(Outcome { passed: 3, earlier: 3, ..Outcome::default() }));
        assert_eq!(known(&inputs("b"))?, None);
        fs::write(&binary, "two")?;
        assert_eq!(known(&inputs("a"))?, None);
        fs::write(&binary, "one")?;
        Record::forget(&binary)?;
        assert_eq!(known(&inputs("a"))?, None);
        Ok(())
    }

    #[test]
    fn what_failed_was_left_out_or_changed_meanwhile_is_not_known() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let binary = dir.path().join("some-0123");
        fs::write(&binary, "one")?;
        let passed = Outcome { passed: 3, ..Outcome::default() };
        Record::keep(&binary, &inputs("a"), &inputs("b"), &passed)?;
        Record::keep(&binary, &inputs("a"), &inputs("a"), &Outcome { failed: 1, ..Outcome::default() })?;
        Record::keep(&binary, &inputs("a"), &inputs("a"), &Outcome { passed: 3, skipped: 1, ..Outcome::default() })?;
        assert!(Record::of(&binary, &inputs("a"))?.is_none() && Record::of(&binary, &inputs("b"))?.is_none());
        Ok(())
    }
}
