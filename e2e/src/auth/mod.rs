//! Who talks to the API server: keys and certificates, kubeconfig files, and the clients made from them.

pub mod identity;
pub(crate) mod pki;

pub use identity::Identity;
pub(crate) use pki::Pki;
