//! What certificates say.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use rcgen::PublicKeyData;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::{FromDer, X509Name},
    revocation_list::CertificateRevocationList,
};

use super::{Serial, key::PrivateKey};

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Its number.
    pub serial: Serial,
    /// The common name as OpenVPN sees it; empty if it has none.
    pub common_name: String,
    /// When it begins, in seconds since 1970.
    pub not_before: i64,
    /// When it ends, in seconds since 1970.
    pub not_after: i64,
    /// Whether it is a CA.
    pub is_ca: bool,
    /// The public key, as `SubjectPublicKeyInfo` in DER.
    pub public_key: Vec<u8>,
    /// The DNS names and addresses in its alternative names.
    pub names: Vec<String>,
}

/// Returns what the first certificate in a text says.
///
/// # Errors
///
/// If there is none, or it is damaged, or its serial is negative or too long.
pub fn inspect(pem: &str) -> Result<CertificateInfo> {
    let der = der(pem)?;
    let parsed = parse(&der)?;
    let negative = parsed.raw_serial().first().is_some_and(|byte| byte & 0x80 != 0);
    ensure!(!negative, "its serial number is negative");
    let names = match parsed.subject_alternative_name().context("its alternative names are damaged")? {
        Some(names) => names.value.general_names.iter().filter_map(name).collect(),
        None => Vec::new(),
    };
    Ok(CertificateInfo {
        serial: Serial::from_bytes(parsed.raw_serial())?,
        common_name: common_name(parsed.subject()),
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
        is_ca: is_ca(&parsed),
        public_key: parsed.public_key().raw.to_vec(),
        names,
    })
}

/// Returns when a list of revoked certificates ends, in seconds since 1970, if it does. OpenVPN refuses all clients after
/// that.
///
/// # Errors
///
/// If there is none in the text, or it is damaged.
pub fn crl_end(pem: &str) -> Result<Option<i64>> {
    let der = CertificateRevocationListDer::from_pem_slice(pem.as_bytes());
    let der = der.map_err(|_| anyhow::anyhow!("no list of revoked certificates in PEM"))?;
    let (_, crl) = CertificateRevocationList::from_der(&der).context("the list of revoked certificates is damaged")?;
    Ok(crl.next_update().map(|end| end.timestamp()))
}

/// Whether this CA signed this certificate. The dates do not matter.
pub fn is_signed_by(certificate_pem: &str, ca_pem: &str) -> bool {
    let (Ok(certificate), Ok(ca)) = (der(certificate_pem), der(ca_pem)) else { return false };
    let (Ok(certificate), Ok(ca)) = (parse(&certificate), parse(&ca)) else { return false };
    certificate.issuer().as_raw() == ca.subject().as_raw()
        && certificate.verify_signature(Some(ca.public_key())).is_ok()
}

/// Whether this private key belongs to this certificate. Keys that [`Authority::load`](super::Authority::load) cannot
/// read belong to none.
pub fn key_fits(certificate_pem: &str, key_pem: &str) -> bool {
    let (Ok(der), Some(key)) = (der(certificate_pem), PrivateKey::from_pem(key_pem)) else { return false };
    parse(&der).is_ok_and(|certificate| *certificate.public_key().subject_public_key.data == *key.der_bytes())
}

/// Returns the first certificate in a text, which may have other things around it.
pub(super) fn der(pem: &str) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| anyhow::anyhow!("no certificate in PEM"))
}

pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>> {
    let (rest, parsed) = X509Certificate::from_der(der).context("the certificate is damaged")?;
    ensure!(rest.is_empty(), "the certificate is damaged");
    Ok(parsed)
}

pub(super) fn is_ca(certificate: &X509Certificate<'_>) -> bool {
    certificate.basic_constraints().ok().flatten().is_some_and(|constraints| constraints.value.ca)
}

/// OpenVPN takes the last one if there are several.
fn common_name(subject: &X509Name<'_>) -> String {
    let last = subject.iter_common_name().last();
    last.and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned()
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or_else(|_| v6()).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
