//! The numbers of ended sessions, in a file for the exporter.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::openvpn::killed::{KILLED_FILE, Killed, Reason};

/// Counts ended sessions.
#[derive(Debug)]
pub struct Counts {
    file: PathBuf,
    killed: Mutex<Killed>,
}

impl Counts {
    /// Continues from the numbers in the directory, which are from before the container restarted.
    pub fn new(directory: &Path) -> Self {
        let file = directory.join(KILLED_FILE);
        let before = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let counts = Self { file, killed: Mutex::new(before.unwrap_or_default()) };
        counts.add(Reason::Drain, 0);
        counts
    }

    /// Counts sessions, and writes the numbers.
    pub fn add(&self, reason: Reason, sessions: usize) {
        let mut killed = self.killed.lock().unwrap_or_else(PoisonError::into_inner);
        killed.add(reason, sessions as u64);
        if let Err(error) = write(&self.file, &killed) {
            tracing::warn!(%error, "cannot write {}", self.file.display());
        }
    }
}

/// Replaces the file at once, so that the exporter reads the old numbers or the new ones.
fn write(file: &Path, killed: &Killed) -> io::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, serde_json::to_vec(killed)?)?;
    fs::rename(new, file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    #[test]
    fn numbers_outlive_the_container() {
        let directory = tempfile::tempdir().unwrap();
        let read = || fs::read_to_string(directory.path().join(KILLED_FILE)).unwrap();
        Counts::new(directory.path()).add(Reason::Revoked, 2);
        Counts::new(directory.path()).add(Reason::Drain, 1);
        assert_eq!(read(), r#"{"revoked":2,"drain":1,"duplicate":0}"#);
        fs::write(directory.path().join(KILLED_FILE), "{").unwrap();
        Counts::new(directory.path());
        assert_eq!(read(), r#"{"revoked":0,"drain":0,"duplicate":0}"#);
    }
}
