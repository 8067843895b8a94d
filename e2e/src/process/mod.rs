//! Processes that end with the run, however the run ends.
//!
//! The owner (a test or the demo) starts a [`Supervisor`], which is a child process, and asks it to start programs. The
//! [supervisor process](supervisor) stops them when its owner is gone. With a node that runs containers, the supervisor
//! and its programs have Linux namespaces of their own, the [`Isolation`].

mod handle;
pub mod isolation;
mod log;
pub mod protocol;
mod spec;
pub mod supervisor;

pub use handle::{Process, Signal, Supervisor};
pub use isolation::Isolation;
pub use log::log_tail;
pub use spec::ProcessSpec;
