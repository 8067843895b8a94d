//! A wrong clock for a single process: [libfaketime](https://github.com/wolfcw/libfaketime), which is preloaded.
//! The monotonic clock does not change, just as when somebody sets the clock of a machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::host::cache_dir;

/// The Debian package, and the path of the library below the directory of the architecture.
const PACKAGE: &str = "libfaketime";
const LIBRARY: &str = "faketime/libfaketime.so.1";

/// A clock whose offset can change while processes use it.
pub struct Clock {
    file: PathBuf,
    library: PathBuf,
}

impl Clock {
    /// Creates a clock that is right until it is [set](Self::set). The file `dir/name` contains the offset.
    pub fn new(dir: &Path, name: &str) -> Result<Self> {
        let clock = Self { file: dir.join(name), library: library()? };
        clock.set("+0s")?;
        Ok(clock)
    }

    /// Sets the offset, such as `+2h` or `-90s`.
    pub fn set(&self, offset: &str) -> Result<()> {
        // The rename is atomic. libfaketime reads the file each time a process reads the clock.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{offset}\n"))?;
        fs::rename(&new, &self.file).with_context(|| format!("cannot write {}", self.file.display()))
    }

    /// The environment variables for a process that uses this clock.
    pub fn env(&self) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

/// The library of this machine, or one that is downloaded from Debian to the cache.
fn library() -> Result<PathBuf> {
    static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one_at_a_time = LOCK.lock();
    let cache = cache_dir("libfaketime")?;
    if let Some(found) = find(Path::new("/usr/lib")).or_else(|| find(&cache.join("usr/lib"))) {
        return Ok(found);
    }
    eprintln!("e2e: fetching the Debian package {PACKAGE} into {} (apt-get download)", cache.display());
    fetch(&cache).context(
        "the tests of a wrong clock need libfaketime; install the Debian package faketime, or an equivalent",
    )?;
    find(&cache.join("usr/lib")).with_context(|| format!("no {LIBRARY} in the package {PACKAGE}"))
}

fn find(lib: &Path) -> Option<PathBuf> {
    let architectures = fs::read_dir(lib).ok()?.filter_map(Result::ok);
    architectures.map(|entry| entry.path().join(LIBRARY)).chain([lib.join(LIBRARY)]).find(|path| path.is_file())
}

fn fetch(cache: &Path) -> Result<()> {
    fs::create_dir_all(cache)?;
    let dir = tempfile::tempdir()?;
    if run(Command::new("apt-get").args(["--quiet", "download", PACKAGE]).current_dir(&dir)).is_err() {
        // The package lists are missing or older than the mirror.
        run(Command::new("apt-get").args(["--quiet", "update"]))?;
        run(Command::new("apt-get").args(["--quiet", "download", PACKAGE]).current_dir(&dir))?;
    }
    let package = fs::read_dir(&dir)?.next().context("nothing was downloaded")??.path();
    run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(cache))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&said));
    Ok(())
}
