//! Certificates for OpenVPN servers and their clients: a CA, the certificates that it signs, and the revoked ones.
//! Pure: this module reads and writes no objects.
//!
//! Invariants: a certificate never outlives its CA, nothing that a client sends gets into a certificate except for its
//! public key, and a list of revoked certificates never gets shorter unless what it drops has ended.

mod authority;
mod inspect;
mod issue;
mod key;
mod request;
mod revocation;
mod serial;
mod tls_crypt;

pub use authority::{Authority, AuthorityProblem, trusted};
pub use inspect::{CertificateInfo, crl_end, inspect, is_signed_by, key_fits};
pub use issue::{CsrProblem, Issued, Request, Usage, issue, sign_csr};
pub use request::{KeyAndRequest, new_request};
pub use revocation::{Entry, Revoked, crl};
pub use serial::{NotASerial, Serial};
pub use tls_crypt::{new_tls_crypt_key, tls_crypt_key};

/// How much earlier than now certificates begin, because clocks differ.
const SKEW: time::Duration = time::Duration::minutes(5);
