//! Programs of others that the tests use: the ones built from Go modules, kubectl, helm, and libfaketime.

pub mod faketime;
pub mod helm;
pub mod kubectl;

pub use e2e_build::Binaries;
pub use helm::Helm;
pub use kubectl::Kubectl;
