//! What the tests of the operator share.

pub mod at_rest;
pub mod bench;
pub mod figures;
pub mod harness;
pub mod prometheus;
pub mod webhook;

pub use bench::Bench;
