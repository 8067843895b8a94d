//! Kubernetes API types of vpn-operator, for Rust clients.

mod closed_set;
pub mod condition;
mod consumer;
mod crds;
mod duration;
mod mask;
pub mod names;
mod provider;
mod reservation;
mod schema;
mod verify;

pub use condition::{READY, Reason, UnknownReason};
pub use consumer::*;
pub use crds::crds;
pub use duration::{InvalidDuration, parse_duration};
pub use mask::*;
pub use names::*;
pub use provider::*;
pub use reservation::*;
pub use verify::*;
