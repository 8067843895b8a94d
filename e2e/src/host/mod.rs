//! The machine that the tests run on: its commands, cargo, Go, and the user's cache directory.

pub mod cargo;
pub mod command;
pub mod go;

pub use e2e_build::{cache::cache_dir, notice};
