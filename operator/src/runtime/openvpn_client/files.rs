//! The profiles that were created in this Pod. They have private keys, so only root may read them.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;

/// A directory with profiles.
pub struct Profiles<'a> {
    directory: &'a Path,
}

impl<'a> Profiles<'a> {
    /// Takes a directory, and closes it to others: OpenVPN, which devices can reach, is another user.
    ///
    /// # Errors
    /// If the directory does not exist.
    pub fn new(directory: &'a Path) -> anyhow::Result<Self> {
        let closed = fs::set_permissions(directory, Permissions::from_mode(0o700));
        closed.with_context(|| format!("{} cannot be used for profiles", directory.display()))?;
        Ok(Self { directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.ovpn"))
    }

    /// Returns the private key in the profile of a name, which is one that a certificate may have.
    pub fn key(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.path(name)).ok()?;
        let (_, key) = text.split_once("<key>\n")?;
        Some(key.split_once("</key>")?.0.to_owned())
    }

    /// Writes a profile: all of it or nothing.
    ///
    /// # Errors
    /// If the directory is not writable.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let (path, part) = (self.path(name), self.directory.join(format!(".{name}.{}", std::process::id())));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&part, &path)
        })();
        if written.is_err() {
            // Not even a part of a key stays.
            let _ = fs::remove_file(&part);
        }
        written.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Removes a profile, if there is one.
    ///
    /// # Errors
    /// If it stays.
    pub fn remove(&self, name: &str) -> anyhow::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.path(name).display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    #[test]
    fn only_root_can_read_a_profile() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
        let profiles = Profiles::new(directory.path()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(directory.path()), 0o700);
        let path = profiles.write("laptop", "client\n<key>\nKEY\n</key>\n").unwrap();
        assert_eq!((path.file_name().unwrap().to_str(), mode(&path)), (Some("laptop.ovpn"), 0o600));
        assert_eq!(profiles.key("laptop").unwrap(), "KEY\n");
        profiles.write("laptop", "without").unwrap();
        assert_eq!(profiles.key("laptop"), None);
        profiles.remove("laptop").unwrap();
        profiles.remove("laptop").unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_does_not_exist_is_named() {
        let error = Profiles::new(Path::new("/nowhere/pki")).err().unwrap().to_string();
        assert_eq!(error, "/nowhere/pki cannot be used for profiles");
    }

    #[test]
    fn a_profile_that_cannot_be_written_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let profiles = Profiles::new(directory.path()).unwrap();
        fs::create_dir_all(directory.path().join("laptop.ovpn/x")).unwrap();
        assert!(profiles.write("laptop", "KEY").unwrap_err().to_string().contains("laptop.ovpn"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
