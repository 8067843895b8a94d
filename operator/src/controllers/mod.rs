//! The controllers. Each one is a [`Controller`] in the [`table`]: which kinds it watches, what it reconciles, and how it
//! takes in what happened. The engine knows them by that table only.
//!
//! To add a controller, write its module and add it to the table.

mod context;
mod controller;
pub mod table;

pub mod consumers;
pub mod masks;
pub mod providers;
pub mod ready;
pub mod reservations;
pub mod status;
pub mod verification;

pub use context::{Answer, Backoffs, Change, Context, Failure, Memory, WorkChange};
pub use controller::{Controller, ControllerSet, Scope};
