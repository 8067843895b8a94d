//! The controllers.

pub mod consumers;
pub mod masks;
pub mod providers;
pub mod ready;
pub mod reservations;
pub mod status;
pub mod verification;
