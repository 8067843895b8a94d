//! The machine that the tests run on: its commands, cargo, and the user's cache directory.

pub mod cache;
pub mod cargo;
pub mod command;
