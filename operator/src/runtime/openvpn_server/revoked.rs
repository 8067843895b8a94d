//! Ends the sessions of clients whose certificate is revoked. OpenVPN itself looks at the directory only when a client
//! connects.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::time::{MissedTickBehavior, interval};

use super::{
    counts::Counts,
    management::{Management, ManagementError},
};
use crate::openvpn::{
    killed::Reason,
    management::{Answer, Command, CommonName},
};

/// How often to look.
const PERIOD: Duration = Duration::from_secs(1);
/// How many times to look for sessions of a name: a client may be about to connect.
const ROUNDS: u32 = 6;
/// The largest size of a file with a common name.
const MAX_NAME: usize = 1024;

/// A directory with a file for each revoked serial number, whose content is the common name.
#[derive(Debug)]
pub struct RevokedDirectory {
    path: PathBuf,
    seen: BTreeSet<String>,
    stamp: Option<Stamp>,
}

/// Changes when the files change: kubelet replaces the link, and every writer changes the time.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    link: Option<PathBuf>,
    modified: SystemTime,
}

impl RevokedDirectory {
    /// Treats existing files as seen. OpenVPN, which starts later, refuses their clients.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let mut directory = Self { path: path.into(), seen: BTreeSet::new(), stamp: None };
        if let Err(error) = directory.changes() {
            tracing::warn!(%error, "cannot read {}", directory.path.display());
        }
        directory
    }

    /// Returns the names in the files that are new since the last time.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn changes(&mut self) -> io::Result<Vec<String>> {
        let modified = fs::metadata(&self.path)?.modified()?;
        let stamp = Stamp { link: fs::read_link(self.path.join("..data")).ok(), modified };
        if self.stamp.as_ref() == Some(&stamp) {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let Ok(serial) = entry?.file_name().into_string() else { continue };
            if !serial.bytes().all(|byte| byte.is_ascii_digit()) || self.seen.contains(&serial) {
                continue;
            }
            // An empty file may be one that is about to be written. It is read again when the directory changes.
            if let Some(name) = read_name(&self.path.join(&serial)) {
                names.push(name);
                self.seen.insert(serial);
            }
        }
        // A change within the same tick of the clock does not change the time.
        let is_settled = modified.elapsed().is_ok_and(|age| age > 2 * PERIOD);
        self.stamp = is_settled.then_some(stamp);
        Ok(names)
    }
}

fn read_name(path: &Path) -> Option<String> {
    let content = fs::read(path).ok()?;
    let name = String::from_utf8_lossy(content.get(..MAX_NAME).unwrap_or(&content)).trim().to_owned();
    (!name.is_empty()).then_some(name)
}

/// Ends sessions until the process ends.
pub async fn watch(mut directory: RevokedDirectory, management: &Management, counts: &Counts) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rounds_left: BTreeMap<String, u32> = BTreeMap::new();
    let mut told = BTreeSet::new();
    loop {
        ticks.tick().await;
        match directory.changes() {
            Ok(names) => rounds_left.extend(names.into_iter().map(|name| (name, ROUNDS))),
            Err(error) => tracing::warn!(%error, "cannot read {}", directory.path.display()),
        }
        if rounds_left.is_empty() {
            told.clear();
            continue;
        }
        // Rounds without an answer do not count.
        match end_sessions(&rounds_left, &mut told, management, counts).await {
            Ok(()) => rounds_left.retain(|_, left| {
                *left -= 1;
                *left > 0
            }),
            Err(error) => tracing::warn!("cannot end the sessions of revoked clients yet: {error}"),
        }
    }
}

/// Ends the sessions of names. First, the client is told to reconnect, which works if it has a new certificate with the
/// same name. If the old session still exists a second later, it ends at once.
async fn end_sessions(
    names: &BTreeMap<String, u32>,
    told: &mut BTreeSet<u64>,
    management: &Management,
    counts: &Counts,
) -> Result<(), ManagementError> {
    let status = management.status().await?;
    for client in status.clients {
        let Some(id) = client.id.filter(|_| names.contains_key(&client.common_name)) else { continue };
        let command = match CommonName::new(&client.common_name) {
            Ok(name) if told.contains(&id) => Command::Kill(name),
            _ => Command::ClientKill(id),
        };
        let answers = management.run(&[command]).await?;
        if matches!(answers[..], [Answer::Success(_)]) && told.insert(id) {
            tracing::info!(name = client.common_name, "the certificate is revoked: ended the session");
            counts.add(Reason::Revoked, 1);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_new_files_are_told_and_only_once() {
        let root = tempfile::tempdir().unwrap();
        let write = |serial: &str, name: &str| fs::write(root.path().join(serial), name).unwrap();
        write("12", "old");
        let mut directory = RevokedDirectory::new(root.path());
        assert!(directory.changes().unwrap().is_empty());
        write("crl.pem", "-----BEGIN X509 CRL-----");
        write("34", "laptop\n");
        write("56", "");
        assert_eq!(directory.changes().unwrap(), ["laptop"]);
        assert!(directory.changes().unwrap().is_empty());
        write("56", "phone");
        assert_eq!(directory.changes().unwrap(), ["phone"]);
        fs::remove_dir_all(root.path()).unwrap();
        assert!(directory.changes().is_err());
    }

    #[test]
    fn files_of_kubelet_are_read() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let publish = |version: &str, files: &[(&str, &str)]| {
            fs::create_dir(path(version)).unwrap();
            for (serial, name) in files {
                fs::write(path(version).join(serial), name).unwrap();
            }
            symlink(version, path("..new")).unwrap();
            fs::rename(path("..new"), path("..data")).unwrap();
            for (serial, _) in files {
                let _ = symlink(format!("..data/{serial}"), path(serial));
            }
        };
        publish("..1", &[("12", "old"), ("crl.pem", "x")]);
        let mut directory = RevokedDirectory::new(root.path());
        publish("..2", &[("12", "old"), ("34", "laptop"), ("crl.pem", "y")]);
        assert_eq!(directory.changes().unwrap(), ["laptop"]);
        assert!(directory.changes().unwrap().is_empty());
    }
}
