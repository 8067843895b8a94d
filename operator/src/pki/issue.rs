//! Certificates of servers and clients.
//!
//! Invariants: a certificate ends no later than its CA. Of what a client asks for, only the public key is taken.

use anyhow::{Result, ensure};
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData,
    SubjectPublicKeyInfo,
};
use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject};
use time::{Duration, OffsetDateTime};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer, public_key::PublicKey};

use super::{Authority, SKEW, Serial};

/// The upper bound of RFC 5280, and of OpenVPN.
const COMMON_NAME_LENGTH: usize = 64;
/// RSA keys with fewer bits are refused.
const RSA_BITS: usize = 2048;

/// A certificate to be issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The common name: 1 to 64 characters, none of them a control character.
    pub common_name: String,
    /// What the certificate is for.
    pub usage: Usage,
    /// Its number.
    pub serial: Serial,
    /// How long it is valid, unless its CA ends before.
    pub lifetime: Duration,
}

/// What a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usage {
    /// A server with these DNS names and addresses.
    Server(Vec<String>),
    /// A client.
    Client,
}

/// A certificate and its private key, both in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key. It is a secret.
    pub key: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Issued").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Why no certificate is issued for a certificate signing request.
#[derive(Debug, thiserror::Error)]
pub enum CsrProblem {
    /// There is no request in the text, or it is damaged.
    #[error("not a certificate signing request in PEM")]
    NotARequest,
    /// The key is of a kind that cannot be used.
    #[error("the key of the request cannot be used: it has to be ECDSA with P-256 or P-384, Ed25519, or RSA")]
    UnusableKey,
    /// The key is too short.
    #[error("the key of the request is too weak: RSA keys need {RSA_BITS} bits or more")]
    WeakKey,
    /// The sender of the request does not have the private key.
    #[error("the signature of the request is wrong")]
    WrongSignature,
    /// The certificate cannot be issued.
    #[error(transparent)]
    NotIssued(#[from] anyhow::Error),
}

/// Issues a certificate with a new key on the curve P-256.
///
/// # Errors
///
/// If the request is not valid, or the CA has ended.
pub fn issue(authority: &Authority, request: &Request, now: OffsetDateTime) -> Result<Issued> {
    let key = KeyPair::generate()?;
    let certificate = sign(authority, request, &key, now)?;
    Ok(Issued { certificate, key: key.serialize_pem() })
}

/// Issues a certificate for the key of a certificate signing request. What else the request says does not matter.
///
/// # Errors
///
/// If the request is not acceptable, or as for [`issue`].
pub fn sign_csr(
    authority: &Authority,
    csr_pem: &str,
    request: &Request,
    now: OffsetDateTime,
) -> Result<String, CsrProblem> {
    // The old name of the same thing, which some tools still write.
    let csr_pem = csr_pem.replace(" NEW CERTIFICATE REQUEST-----", " CERTIFICATE REQUEST-----");
    let der = CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes()).map_err(|_| CsrProblem::NotARequest)?;
    let (rest, csr) = X509CertificationRequest::from_der(&der).map_err(|_| CsrProblem::NotARequest)?;
    if !rest.is_empty() {
        return Err(CsrProblem::NotARequest);
    }
    let key = &csr.certification_request_info.subject_pki;
    // The algorithm is that of the key, not that of the signature: these differ for P-384 with SHA-256.
    let public = SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| CsrProblem::UnusableKey)?;
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) if rsa.key_size() < RSA_BITS => return Err(CsrProblem::WeakKey),
        Ok(_) => {}
        Err(_) => return Err(CsrProblem::UnusableKey),
    }
    csr.verify_signature().map_err(|_| CsrProblem::WrongSignature)?;
    Ok(sign(authority, request, &public, now)?)
}

fn sign(authority: &Authority, request: &Request, key: &impl PublicKeyData, now: OffsetDateTime) -> Result<String> {
    let length = request.common_name.chars().count();
    ensure!((1..=COMMON_NAME_LENGTH).contains(&length), "a common name has 1 to {COMMON_NAME_LENGTH} characters");
    ensure!(!request.common_name.contains(char::is_control), "a common name has no control characters");
    ensure!(request.lifetime.is_positive(), "the certificate would end before it begins");
    let (names, purpose) = match &request.usage {
        Usage::Server(names) => (names.clone(), ExtendedKeyUsagePurpose::ServerAuth),
        Usage::Client => (Vec::new(), ExtendedKeyUsagePurpose::ClientAuth),
    };
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, &*request.common_name);
    params.serial_number = Some(request.serial.into());
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    let end = authority.not_after();
    ensure!(now < end, "the CA has expired");
    params.not_before = now - SKEW;
    params.not_after = now.checked_add(request.lifetime).map_or(end, |wanted| wanted.min(end));
    Ok(params.signed_by(key, authority.issuer())?.pem())
}

#[cfg(test)]
mod tests;
