//! Helpers of the tests of the operator.

pub mod difference;
pub mod documents;
pub mod figures;
pub mod framework;
pub mod harness;
pub mod http;
pub mod labeled;
pub mod load;
pub mod programs;
pub mod prometheus;
pub mod steady_state;
pub mod webhook;

pub use framework::Framework;
