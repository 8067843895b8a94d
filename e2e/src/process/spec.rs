//! What the supervisor needs to know to start a program.

use std::{
    collections::BTreeMap,
    fmt::Display,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A program to run under the supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// The name in messages.
    pub name: String,
    /// The executable.
    pub program: PathBuf,
    /// The arguments.
    pub args: Vec<String>,
    /// Variables that are added to the environment.
    pub env: BTreeMap<String, String>,
    /// The file to which standard output and standard error are appended.
    pub log: PathBuf,
    /// At the end of the run, the time between SIGTERM and SIGKILL.
    pub grace_period_ms: u64,
    pub(crate) id: u64,
}

impl ProcessSpec {
    /// A process without arguments and variables, and with a grace period of 2 s.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            log: log.into(),
            grace_period_ms: 2000,
            id: 0,
        }
    }

    /// Adds a plain argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Display) -> Self {
        self.args.push(arg.to_string());
        self
    }

    /// Adds `--name=value`.
    #[must_use]
    pub fn flag(self, name: &str, value: impl Display) -> Self {
        self.arg(format_args!("--{name}={value}"))
    }

    /// Adds `--name=path`.
    #[must_use]
    pub fn path_flag(self, name: &str, path: &Path) -> Self {
        self.flag(name, path.display())
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Display) -> Self {
        self.env.insert(name.into(), value.to_string());
        self
    }
}
