//! Builds what a cluster needs before it can start: the control plane programs, which are written in Go.
//!
//! This crate is small, so that `cargo demo` can run it early: it builds those programs while cargo builds the rest.

pub mod binaries;
pub mod cache;
pub mod cargo;

pub use binaries::Binaries;

use std::io::{Write, stderr};

/// Writes a line directly to stderr, because a test harness hides the output of `eprintln!`.
pub fn notice(text: &str) {
    drop(writeln!(stderr(), "e2e: {text}"));
}
