//! The certificates of the operator's own servers: a CA, and a certificate that it signs. They are in a Secret, which
//! all replicas share.
//!
//! Invariant: a certificate is replaced only by one that the same CA signs, unless that CA is about to end, is unusable
//! or lost. So clients that trust the CA need not notice a renewal.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData,
};
use time::{Duration, OffsetDateTime};

use crate::pki;

/// How long a certificate is valid.
const LIFETIME: Duration = Duration::days(90);
/// How long before its end a certificate is renewed.
const RENEW_BEFORE: Duration = Duration::days(30);
/// How long the CA is valid.
const CA_LIFETIME: Duration = Duration::days(3650);
/// How long before its end the CA is replaced.
const REPLACE_CA_BEFORE: Duration = Duration::days(365);
/// How much earlier than now certificates begin, because clocks differ.
const SKEW: Duration = Duration::hours(1);

/// The keys of the Secret, as in Secrets of cert-manager. `ca.key` is there only if the operator is the issuer.
pub const CERTIFICATE: &str = "tls.crt";
/// The private key of the certificate.
pub const KEY: &str = "tls.key";
/// The certificate of the CA.
pub const CA_CERTIFICATE: &str = "ca.crt";
/// The private key of the CA.
pub const CA_KEY: &str = "ca.key";

/// Data of the Secret.
pub type Data = BTreeMap<String, ByteString>;

/// A certificate and its CA, all in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
    /// The CA.
    pub ca: String,
    /// When it ends, in seconds since 1970.
    pub not_after: i64,
}

/// Returns the certificate in a Secret.
///
/// # Errors
///
/// If a key is missing, or is not what its name says.
pub fn load(data: &Data) -> Result<Certificate> {
    let text = |key: &str| -> Result<String> {
        let value = data.get(key).with_context(|| format!("the Secret has no key {key}"))?;
        String::from_utf8(value.0.clone()).with_context(|| format!("{key} is not PEM"))
    };
    let (certificate, key) = (text(CERTIFICATE)?, text(KEY)?);
    let not_after = pki::inspect(&certificate)?.not_after;
    ensure!(pki::key_fits(&certificate, &key), "{KEY} is not the key of {CERTIFICATE}");
    Ok(Certificate { certificate, key, ca: text(CA_CERTIFICATE)?, not_after })
}

/// Returns the data of the Secret with a certificate for these DNS names or addresses, or `None` if what it has is good
/// for some time.
///
/// # Errors
///
/// If no certificate can be created.
pub fn renew(data: &Data, names: &[String], now: OffsetDateTime) -> Result<Option<Data>> {
    if is_good(data, names, now).unwrap_or(false) {
        return Ok(None);
    }
    let mut data = data.clone();
    let issuer = match issuer(&data, now) {
        Ok(issuer) => issuer,
        Err(_) => {
            let key = KeyPair::generate()?;
            let certificate = ca_params(now).self_signed(&key)?.pem();
            data.insert(CA_CERTIFICATE.to_owned(), ByteString(certificate.clone().into_bytes()));
            data.insert(CA_KEY.to_owned(), ByteString(key.serialize_pem().into_bytes()));
            Issuer::from_ca_cert_pem(&certificate, key)?
        }
    };
    let key = KeyPair::generate()?;
    let certificate = params(names, now)?.signed_by(&key, &issuer)?;
    data.insert(CERTIFICATE.to_owned(), ByteString(certificate.pem().into_bytes()));
    data.insert(KEY.to_owned(), ByteString(key.serialize_pem().into_bytes()));
    Ok(Some(data))
}

/// Returns when [`renew`] would create a certificate anew (seconds since 1970), if nothing else happens.
pub fn renewal_time(certificate: &Certificate) -> i64 {
    certificate.not_after - RENEW_BEFORE.whole_seconds()
}

fn is_good(data: &Data, names: &[String], now: OffsetDateTime) -> Result<bool> {
    let loaded = load(data)?;
    issuer(data, now)?;
    let leaf = pki::inspect(&loaded.certificate)?;
    let begins = leaf.not_before <= now.unix_timestamp();
    let lasts = loaded.not_after > (now + RENEW_BEFORE).unix_timestamp();
    let is_signed = pki::is_signed_by(&loaded.certificate, &loaded.ca);
    Ok(begins && lasts && is_signed && names.iter().all(|name| leaf.names.contains(name)))
}

/// Returns the CA in a Secret, unless it is about to end.
fn issuer(data: &Data, now: OffsetDateTime) -> Result<Issuer<'static, KeyPair>> {
    let text = |key: &str| Ok::<_, anyhow::Error>(std::str::from_utf8(&data.get(key).context("missing")?.0)?);
    let certificate = text(CA_CERTIFICATE)?;
    let key = KeyPair::from_pem(text(CA_KEY)?)?;
    let info = pki::inspect(certificate)?;
    ensure!(info.public_key == key.subject_public_key_info(), "not the key of the CA");
    ensure!(info.not_before <= now.unix_timestamp(), "not valid yet");
    ensure!(info.not_after > (now + REPLACE_CA_BEFORE).unix_timestamp(), "about to end");
    Ok(Issuer::from_ca_cert_pem(certificate, key)?)
}

fn ca_params(now: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "vpn-operator-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (now - SKEW, now + CA_LIFETIME);
    params
}

fn params(names: &[String], now: OffsetDateTime) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name.push(DnType::CommonName, "vpn-operator");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (now - SKEW, now + LIFETIME);
    Ok(params)
}

#[cfg(test)]
mod tests;
