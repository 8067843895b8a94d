//! The decision of the webhook for a Pod with the label `vpn.beebs.dev/inject`: how it gets a slot, or why it is
//! refused. It is pure: the same Pod and the same inputs give the same answer.
//!
//! Invariant: a labeled Pod that is admitted waits for its slot, or is left alone because the label says so. Whatever
//! the webhook does not understand is refused, because a Pod without the VPN is worse than no Pod.

mod check;
mod defaults;
mod inject;
mod parts;
mod ports;
mod reinvocation;
mod request;
mod value;

pub use defaults::Defaults;
pub use inject::{Answer, Inputs, MaskSecret, decide, wanted_mask};
pub use value::resources as parse_resources;
