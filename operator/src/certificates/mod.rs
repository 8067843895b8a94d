//! The certificates of the operator's own servers: a CA, and a certificate that it signs. They are in a Secret, which
//! all replicas share.
//!
//! Invariant: clients trust each certificate that some replica may still serve, and each replica may serve a certificate
//! before all clients have noticed it. So a new CA is trusted together with the one before it, and signs only the next
//! certificate. Only what is damaged or lost is replaced at once.

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

/// The keys of the Secret, as in Secrets of cert-manager. `ca.key` is there only if the operator is the issuer. It belongs
/// to the first certificate in `ca.crt`.
pub const CERTIFICATE: &str = "tls.crt";
/// The private key of the certificate.
pub const KEY: &str = "tls.key";
/// The certificate of the CA. That of the CA before it may follow.
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
    /// The CA. The one before it follows while a replica may serve a certificate from it.
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
    let served = served(data, names, now).ok();
    let is_good = served.as_ref().is_some_and(|served| served.is_good);
    // The next certificate comes first: then nobody needs one from a CA that some clients do not trust yet.
    let remaining = if is_good { REPLACE_CA_BEFORE } else { LIFETIME };
    let present = issuer(data, now, now + remaining).ok();
    if present.is_some() && is_good {
        return Ok(None);
    }
    let mut data = data.clone();
    let (issuer, own) = match present {
        Some(present) => present,
        None => {
            let key = KeyPair::generate()?;
            let certificate = ca_params(now).self_signed(&key)?.pem();
            data.insert(CA_KEY.to_owned(), ByteString(key.serialize_pem().into_bytes()));
            (Issuer::from_ca_cert_pem(&certificate, key)?, certificate)
        }
    };
    let previous = served.as_ref().map(|served| &*served.ca).filter(|ca| *ca != own);
    let ca = own.clone() + previous.unwrap_or_default();
    data.insert(CA_CERTIFICATE.to_owned(), ByteString(ca.into_bytes()));
    if !is_good {
        let key = KeyPair::generate()?;
        let certificate = params(names, now)?.signed_by(&key, &issuer)?;
        data.insert(CERTIFICATE.to_owned(), ByteString(certificate.pem().into_bytes()));
        data.insert(KEY.to_owned(), ByteString(key.serialize_pem().into_bytes()));
    }
    Ok(Some(data))
}

/// Returns when [`renew`] would create a certificate anew (seconds since 1970), if nothing else happens.
pub fn renewal_time(certificate: &Certificate) -> i64 {
    certificate.not_after - RENEW_BEFORE.whole_seconds()
}

/// A certificate that replicas serve.
struct Served {
    /// The CA that signed it.
    ca: String,
    /// Whether it does not need to be replaced.
    is_good: bool,
}

/// Returns the certificate in a Secret, unless nobody can use it.
fn served(data: &Data, names: &[String], now: OffsetDateTime) -> Result<Served> {
    let loaded = load(data)?;
    let leaf = pki::inspect(&loaded.certificate)?;
    let mut trusted = pki::trusted(&loaded.ca)?.into_iter();
    let ca = trusted.find(|ca| pki::is_signed_by(&loaded.certificate, ca)).context("not signed by the CA")?;
    let is_valid = (leaf.not_before..leaf.not_after).contains(&now.unix_timestamp());
    ensure!(is_valid && pki::inspect(&ca)?.not_after > now.unix_timestamp(), "not valid now");
    let lasts = leaf.not_after > (now + RENEW_BEFORE).unix_timestamp();
    Ok(Served { ca, is_good: lasts && names.iter().all(|name| leaf.names.contains(name)) })
}

/// Returns the CA in a Secret and its certificate, unless it ends by `until`.
fn issuer(data: &Data, now: OffsetDateTime, until: OffsetDateTime) -> Result<(Issuer<'static, KeyPair>, String)> {
    let text = |key: &str| Ok::<_, anyhow::Error>(std::str::from_utf8(&data.get(key).context("missing")?.0)?);
    let certificate = pki::trusted(text(CA_CERTIFICATE)?)?.remove(0);
    let key = KeyPair::from_pem(text(CA_KEY)?)?;
    let info = pki::inspect(&certificate)?;
    ensure!(info.public_key == key.subject_public_key_info(), "not the key of the CA");
    ensure!(info.not_before <= now.unix_timestamp(), "not valid yet");
    ensure!(info.not_after > until.unix_timestamp(), "about to end");
    Ok((Issuer::from_ca_cert_pem(&certificate, key)?, certificate))
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
