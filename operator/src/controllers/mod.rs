//! The controllers. Each one is a [`Controller`] in the [`table`], which declares the kinds that it watches, the
//! requests that it reconciles, and how it observes changes. The engine knows controllers only by that table.
//!
//! To add a controller, write its module and add it to the table.

mod context;
mod controller;
pub mod table;
mod throttle;

pub mod consumers;
pub mod masks;
pub mod observer;
pub mod pods;
pub mod providers;
pub mod ready;
pub mod reservations;
pub mod servers;
pub mod status;
pub mod verification;

pub use context::{Answer, Backoffs, Change, Context, Failure, Memory, WorkChange};
pub use controller::{Controller, ControllerSet, Scope};
