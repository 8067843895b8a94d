//! The cluster of a test process, and the namespaces of its tests.

mod connection;
mod namespace;
pub mod shared;

pub use connection::{Cluster, Existing};
pub use namespace::Namespace;
