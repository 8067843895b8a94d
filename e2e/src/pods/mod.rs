//! Pods in tests: the Pods that use a slot, and the logs of containers.

pub mod logs;
pub mod usage;
