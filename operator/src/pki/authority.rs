//! The CA of a server.
//!
//! Invariant: an [`Authority`] is usable: its key fits, it may sign, and what it signs is verified by its certificate.

use std::fmt;

use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData};
use time::{Duration, OffsetDateTime};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{
    SKEW, Serial,
    inspect::{der, is_ca, is_signed_by, parse},
    key::PrivateKey,
};

/// A CA: its certificate and its private key.
pub struct Authority {
    certificate: String,
    key: String,
    not_after: OffsetDateTime,
    key_identifier: Option<Vec<u8>>,
    issuer: Issuer<'static, PrivateKey>,
}

/// Why a certificate and a key are no CA.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityProblem {
    /// There is no certificate in the text, or it is damaged.
    #[error("the certificate of the CA is not a certificate in PEM")]
    NotACertificate,
    /// It is the certificate of a server or a client.
    #[error("the certificate is not that of a CA: it needs basicConstraints with CA:TRUE")]
    NotACertificateAuthority,
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the certificate of the CA")]
    KeyDoesNotFit,
    /// There is no key in the text, or it is of a kind that cannot be used.
    #[error(
        "the private key of the CA cannot be used: it has to be an unencrypted key in PEM, and ECDSA with P-256 or \
         P-384, Ed25519, or RSA with 2048 to 4096 bits"
    )]
    NotAKey,
    /// It has ended.
    #[error("the CA expired on {}", .0.date())]
    Expired(OffsetDateTime),
    /// It begins later.
    #[error("the CA is not valid before {}", .0.date())]
    NotYetValid(OffsetDateTime),
    /// Its key usage does not say that it may sign certificates.
    #[error("the CA may not sign certificates: its keyUsage has no keyCertSign")]
    MayNotSign,
    /// What it signs would name another issuer.
    #[error("the subject of the CA cannot be used: it has to have each attribute at most once, one at a time")]
    UnusableName,
    /// It is signed by another CA, and OpenVPN trusts a CA only up to one that signed itself.
    #[error(
        "the CA is signed by another one, whose certificate is missing: append the certificates up to the one that \
         signed itself"
    )]
    NoRoot,
}

impl Authority {
    /// Returns a new CA with a key on the curve P-256.
    ///
    /// # Errors
    ///
    /// If it cannot be created, for example because it would end after the year 9999.
    pub fn new(common_name: &str, now: OffsetDateTime, lifetime: Duration) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serial_number = Some(Serial::derive(&["ca", common_name, &key.public_key_pem()]).into());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = now - SKEW;
        params.not_after = now.checked_add(lifetime).context("the CA would last too long")?;
        ensure!(params.not_before < params.not_after, "the CA would end before it begins");
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self::load(&certificate, &key.serialize_pem(), now)?)
    }

    /// Returns the CA in these texts. Its certificate is the first one. If another CA signed it, the certificates up to
    /// the one that signed itself follow in any order.
    ///
    /// # Errors
    ///
    /// If they are not a CA that can be used now.
    pub fn load(cert_pem: &str, key_pem: &str, now: OffsetDateTime) -> Result<Self, AuthorityProblem> {
        let der = der(cert_pem).map_err(|_| AuthorityProblem::NotACertificate)?;
        let parsed = parse(&der).map_err(|_| AuthorityProblem::NotACertificate)?;
        if !is_ca(&parsed) {
            return Err(AuthorityProblem::NotACertificateAuthority);
        }
        let key = PrivateKey::from_pem(key_pem).ok_or(AuthorityProblem::NotAKey)?;
        if *parsed.public_key().subject_public_key.data != *key.der_bytes() {
            return Err(AuthorityProblem::KeyDoesNotFit);
        }
        let usage = parsed.key_usage().map_err(|_| AuthorityProblem::NotACertificate)?;
        if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
            return Err(AuthorityProblem::MayNotSign);
        }
        let validity = parsed.validity();
        let (begin, not_after) = (validity.not_before.to_datetime(), validity.not_after.to_datetime());
        if now < begin {
            return Err(AuthorityProblem::NotYetValid(begin));
        }
        if now >= not_after {
            return Err(AuthorityProblem::Expired(not_after));
        }
        // rcgen panics if a name has an empty part.
        if parsed.subject().iter().any(|part| part.iter().next().is_none()) {
            return Err(AuthorityProblem::UnusableName);
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|_| AuthorityProblem::UnusableName)?;
        if !signs_in_its_name(&issuer, &parsed) {
            return Err(AuthorityProblem::UnusableName);
        }
        if !has_root(cert_pem) {
            return Err(AuthorityProblem::NoRoot);
        }
        let key_identifier = key_identifier(&parsed);
        Ok(Self { certificate: cert_pem.to_owned(), key: key_pem.to_owned(), not_after, key_identifier, issuer })
    }

    /// Returns the certificate in PEM, with those up to the root: what has to be trusted.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Returns the private key in PEM. It is a secret.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns when it ends.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, PrivateKey> {
        &self.issuer
    }

    pub(super) fn key_identifier(&self) -> Option<&[u8]> {
        self.key_identifier.as_deref()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Authority");
        debug.field("certificate", &self.certificate).field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// Returns each certificate in a text, in PEM and without what is around it.
///
/// # Errors
///
/// If one of them is damaged, or there is none.
pub fn trusted(bundle: &str) -> Result<Vec<String>> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut certificates = Vec::new();
    let mut rest = bundle;
    while let Some(begin) = rest.find(BEGIN) {
        let end = rest[begin..].find(END).context("a certificate has no end")? + begin + END.len();
        let certificate: String = rest[begin..end].lines().flat_map(|line| [line.trim(), "\n"]).collect();
        parse(&der(&certificate)?).with_context(|| format!("certificate {}", certificates.len() + 1))?;
        certificates.push(certificate);
        rest = &rest[end..];
    }
    ensure!(!certificates.is_empty(), "no certificate in PEM");
    Ok(certificates)
}

/// Whether what it signs is accepted as signed by it. rcgen writes the name of the issuer anew, and forgets attributes
/// that are there twice.
fn signs_in_its_name(issuer: &Issuer<'static, PrivateKey>, ca: &X509Certificate<'_>) -> bool {
    let Ok(trial) = CertificateParams::default().signed_by(issuer.key(), issuer) else { return false };
    let Ok((_, trial)) = X509Certificate::from_der(trial.der()) else { return false };
    trial.issuer().as_raw() == ca.subject().as_raw() && trial.verify_signature(Some(ca.public_key())).is_ok()
}

/// Whether the certificates in a text lead from the first one to one that signed itself.
fn has_root(chain: &str) -> bool {
    let Ok(mut rest) = trusted(chain) else { return false };
    let mut last = rest.remove(0);
    while !is_signed_by(&last, &last) {
        let Some(next) = rest.iter().position(|issuer| is_signed_by(&last, issuer)) else { return false };
        last = rest.remove(next);
    }
    true
}

fn key_identifier(ca: &X509Certificate<'_>) -> Option<Vec<u8>> {
    ca.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
