//! Third-party programs that the tests use: those built from Go modules, kubectl, helm, and libfaketime.

pub mod faketime;
pub mod helm;
pub mod kubectl;

pub use e2e_build::Binaries;
pub use helm::Helm;
pub use kubectl::Kubectl;
