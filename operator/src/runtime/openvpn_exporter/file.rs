//! Reads a status file while OpenVPN may be writing it.
//!
//! OpenVPN overwrites the old file line by line, and truncates it at the end. In between, the file is a mixture, which
//! may even look like a status. So a file counts only if it was not written to for a moment.

use std::{
    fs::{self, Metadata},
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use thiserror::Error;
use tokio::time::sleep;

use crate::openvpn::status::{Status, StatusError};

/// A file is complete when it was not written to for this long.
const SETTLED: Duration = Duration::from_millis(200);
/// How often to read a file that is being written.
const ATTEMPTS: u32 = 5;

/// A status from a file.
#[derive(Debug)]
pub struct StatusFile {
    /// The status.
    pub status: Status,
    /// When the file was written.
    pub written: SystemTime,
}

/// The reason why a file cannot be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read the status file: {0}")]
    Read(#[from] io::Error),
    /// It is not a status.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// It never is complete.
    #[error("the status file is written all the time")]
    Unsettled,
}

/// Reads a file. Waits while it is being written.
///
/// # Errors
/// If the file cannot be read, or if its content is not a status.
pub async fn read(path: &Path) -> Result<StatusFile, FileError> {
    let mut error = FileError::Unsettled;
    let mut before: Option<(SystemTime, u64)> = None;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            sleep(SETTLED).await;
        }
        let (bytes, metadata) = read_once(path)?;
        let stamp = stamp(&metadata)?;
        let is_settled = before == Some(stamp) || stamp.0.elapsed().is_ok_and(|age| age >= SETTLED);
        before = Some(stamp);
        if !is_settled || stamp.1 != bytes.len() as u64 {
            continue;
        }
        match Status::parse(&bytes) {
            Ok(status) => return Ok(StatusFile { status, written: stamp.0 }),
            Err(malformed) => error = malformed.into(),
        }
    }
    Err(error)
}

/// Reads a file, and then looks when it was last written to.
fn read_once(path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    // A pipe or a device would never end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
    }
    Ok((fs::read(path)?, fs::metadata(path)?))
}

fn stamp(metadata: &Metadata) -> io::Result<(SystemTime, u64)> {
    Ok((metadata.modified()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    const EMPTY: &str = "TITLE,OpenVPN\nTIME,2026-11-27 07:53:57,1795766037\n\
        HEADER,CLIENT_LIST,Common Name,Real Address,Bytes Received,Bytes Sent,Connected Since\n\
        HEADER,ROUTING_TABLE,Virtual Address,Common Name,Real Address,Last Ref\nEND\n";

    #[tokio::test]
    async fn a_file_that_is_being_written_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status.log");
        fs::write(&path, &EMPTY[..40]).unwrap();
        let writer = async {
            sleep(SETTLED).await;
            fs::write(&path, EMPTY).unwrap();
        };
        let (read, ()) = tokio::join!(read(&path), writer);
        assert_eq!(read.unwrap().status.updated, 1_795_766_037);
    }

    #[tokio::test]
    async fn what_stays_incomplete_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status.log");
        assert!(matches!(read(&path).await, Err(FileError::Read(_))));
        fs::write(&path, &EMPTY[..40]).unwrap();
        assert!(matches!(read(&path).await, Err(FileError::Status(StatusError::Incomplete))));
        assert!(matches!(read(directory.path()).await, Err(FileError::Read(_))));
    }
}
