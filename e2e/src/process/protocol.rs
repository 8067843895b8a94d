//! How the owner and the supervisor process talk: one JSON document per line on the standard input and output of the
//! supervisor. It also names the subcommands of the `e2e` binary that take part.

use serde::{Deserialize, Serialize};

use super::spec::ProcessSpec;

/// The first argument that makes the `e2e` binary a supervisor.
pub const SUPERVISE: &str = "supervise";
/// The first argument that makes the `e2e` binary become a supervised program.
pub const BECOME: &str = "become";

/// A request of the owner.
#[derive(Serialize, Deserialize)]
pub(crate) enum Request {
    Start(ProcessSpec),
    Signal { id: u64, signal: i32 },
}

/// A report of the supervisor.
#[derive(Serialize, Deserialize)]
pub(crate) enum Report {
    Started { id: u64, pid: i32 },
    Exited { id: u64, status: String },
}
