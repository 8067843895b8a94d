//! Which files of tests have passed, and with what, so that one is not run again while nothing has changed.
//!
//! Invariant: a result is used again only if the test binary, the rest of the checkout, the control plane, the machine's
//! packages and kernel, and the variables that tests read are what they were when it passed, with no test left out.
//! `go test` and Bazel do the same.

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

/// What all files of tests depend on.
pub struct Inputs(Sha256);

/// A result that is known already.
#[derive(Serialize, Deserialize)]
pub struct Record {
    /// Of all that the tests depend on.
    inputs: String,
    passed: usize,
    /// When they ended.
    pub at: Timestamp,
}

impl Inputs {
    /// Fails where they cannot be told.
    pub fn now() -> Result<Self> {
        for (name, other) in [("KUBECONFIG", "cluster"), ("E2E_OPERATOR", "operator")] {
            ensure!(env::var_os(name).is_none(), "{name} names a {other} of its own");
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
        // The packages of a node; without dpkg there is none.
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

    /// What a test binary depends on.
    fn with(&self, binary: &Path) -> Result<String> {
        let mut hash = self.0.clone();
        add(&mut hash, &digest(binary)?);
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl Record {
    /// The result of a test binary, if it would be the same now.
    pub fn of(binary: &Path, inputs: &Inputs) -> Result<Option<Self>> {
        let text = match fs::read(place(binary)?) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Written by another version, perhaps.
        let Ok(record) = serde_json::from_slice::<Self>(&text) else { return Ok(None) };
        Ok((record.inputs == inputs.with(binary)?).then_some(record))
    }

    /// Forgets a result, before the tests run again.
    pub fn forget(binary: &Path) -> Result<()> {
        match fs::remove_file(place(binary)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Keeps a result, if all tests ran and passed and nothing has changed meanwhile.
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

/// Beside the test binary, so that `cargo clean` forgets all.
fn place(binary: &Path) -> Result<PathBuf> {
    let (dir, name) = (binary.parent(), binary.file_name());
    let (Some(dir), Some(name)) = (dir, name) else { bail!("{} is no binary", binary.display()) };
    Ok(dir.join("passed").join(name).with_extension("json"))
}

fn read_by_tests(variable: &str) -> bool {
    // Some of them build.
    ["E2E_", "CARGO_", "RUST", "UPDATE_"].iter().any(|prefix| variable.starts_with(prefix))
        || ["PATH", "HOME", "XDG_CACHE_HOME", "CC", "CFLAGS"].contains(&variable)
}

/// The files of the checkout, but for the sources of the tests themselves, which are in their binaries.
fn checkout() -> Result<Vec<PathBuf>> {
    let mut command = Command::new("git");
    command.current_dir(ROOT).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]);
    let output = command.output().context("cannot run git")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    let names = String::from_utf8(output.stdout).context("the name of a file is no text")?;
    let mut files: Vec<PathBuf> = names.split_terminator('\0').map(PathBuf::from).collect();
    let in_binaries = |file: &Path| file.starts_with("e2e") && file.extension().is_some_and(|ending| ending == "rs");
    files.retain(|file| !in_binaries(file) && Path::new(ROOT).join(file).exists());
    files.sort();
    Ok(files)
}

fn digest(file: &Path) -> Result<Output<Sha256>> {
    Ok(Sha256::digest(fs::read(file).with_context(|| file.display().to_string())?))
}

/// With its length, so that no two lists of parts look alike.
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
