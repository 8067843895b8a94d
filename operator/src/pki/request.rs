//! A private key and its certificate signing request, for clients that keep their key.

use anyhow::Result;
use rcgen::{CertificateParams, DnType, KeyPair};

/// A new private key, and the request for its certificate, both in PEM.
pub struct KeyAndRequest {
    /// The private key. It is a secret.
    pub key: String,
    /// The certificate signing request.
    pub request: String,
}

impl std::fmt::Debug for KeyAndRequest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KeyAndRequest").field("request", &self.request).finish_non_exhaustive()
    }
}

/// Returns a new key on the curve P-256, and the request for its certificate.
///
/// # Errors
///
/// If the system has no random numbers.
pub fn new_request(common_name: &str) -> Result<KeyAndRequest> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let request = params.serialize_request(&key)?.pem()?;
    Ok(KeyAndRequest { key: key.serialize_pem(), request })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use time::{Duration, OffsetDateTime};

    use super::*;
    use crate::pki::{Authority, Request, Serial, Usage, key_fits, sign_csr};

    #[test]
    fn the_certificate_for_a_request_fits_its_key_and_no_other() {
        let now = OffsetDateTime::now_utc();
        let authority = Authority::new("ca", now, Duration::days(10)).unwrap();
        let ours = new_request("laptop").unwrap();
        let request = Request {
            common_name: "laptop".into(),
            usage: Usage::Client,
            serial: Serial::derive(&["1"]),
            lifetime: Duration::days(1),
        };
        let certificate = sign_csr(&authority, &ours.request, &request, now).unwrap();
        assert!(key_fits(&certificate, &ours.key));
        assert!(!key_fits(&certificate, &new_request("laptop").unwrap().key));
        assert!(!format!("{ours:?}").contains("PRIVATE"));
    }
}
