//! The content of the Secrets of an OpenVPN server. It has private keys, so it is made where a request is sent, and not
//! where it is decided.
//!
//! Invariant: the inputs determine the content of a Secret, except for the keys themselves. The key of a client never
//! changes without its serial number.

mod keystore;
mod profile;

use std::{collections::BTreeMap, fmt, sync::Arc};

use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};
use vpn_types::Reason;

pub use keystore::Keystore;
pub use profile::ProfileSettings;

use crate::pki::{self, Authority, CsrProblem, Request, Revoked, Serial, Usage};

/// The annotation with the hash of the data that the operator wrote.
pub const DATA_ANNOTATION: &str = "vpn.beebs.dev/data";

/// Keys of the Secrets.
pub mod keys {
    /// A certificate.
    pub const CERTIFICATE: &str = "tls.crt";
    /// Its private key.
    pub const KEY: &str = "tls.key";
    /// The certificate authority.
    pub const AUTHORITY: &str = "ca.crt";
    /// The key that all packets are encrypted with before a client is known.
    pub const TLS_CRYPT: &str = "tls-crypt.key";
    /// The revoked certificates, a line for each.
    pub const REVOKED: &str = "revoked";
    /// The list of revoked certificates for programs other than the server.
    pub const CRL: &str = "crl.pem";
    /// The authorities before the present one that are still trusted, as JSON: a list of `Previous`.
    pub const PREVIOUS: &str = "previous.json";
    /// The name of the user's Secret that a certificate authority was taken from.
    pub const SOURCE: &str = "source";
    /// The `spec.pki.generation` of a certificate authority.
    pub const GENERATION: &str = "generation";
}

/// How long a certificate authority is valid.
const AUTHORITY_LIFETIME: Duration = Duration::days(3650);

/// The data of a Secret.
pub type Data = BTreeMap<String, ByteString>;

/// What a Secret is to hold.
#[derive(Clone, Debug)]
pub enum Content {
    /// A new certificate authority.
    Authority {
        /// The common name.
        common_name: String,
        /// The `spec.pki.generation` that it is for.
        generation: i32,
        /// The name of the Secret, in the same namespace, with the certificate authority to use.
        own: Option<String>,
        /// What it takes over from the authority before it.
        predecessor: Option<Box<Predecessor>>,
    },
    /// The certificate of a server.
    Server(Certificate),
    /// The files of the user for a server.
    Keystore {
        /// The name of the user's Secret, in the same namespace.
        source: String,
    },
    /// The files of revoked certificates.
    Revoked {
        /// The certificate authority, if there is one: only the list for other programs needs it.
        authority: Option<Issuer>,
        /// The list.
        revoked: Revoked,
        /// The number of the list, which only grows.
        number: u64,
    },
    /// The certificate of a client, and its profile.
    Client {
        /// The certificate.
        certificate: Certificate,
        /// The certificate signing request, if the key is to stay with the client.
        csr: Option<String>,
        /// The key of the profile.
        file: String,
        /// The profile. The certificates and keys in it are added.
        profile: Box<ProfileSettings>,
    },
    /// The profile of a client that keeps its certificate.
    Profile {
        /// The certificate authority.
        authority: Issuer,
        /// The key of the profile.
        file: String,
        /// The profile. The certificates and keys in it are added.
        profile: Box<ProfileSettings>,
    },
}

/// What a certificate authority takes over from the one before it.
#[derive(Clone, Debug)]
pub struct Predecessor {
    /// The authorities before it, the newest last. That one goes on issuing certificates for clients until the replicas
    /// trust both.
    pub previous: Vec<Previous>,
    /// The key of `tls-crypt`.
    pub tls_crypt: Arc<str>,
    /// The list of revoked certificates.
    pub revoked: Revoked,
}

/// A certificate authority before the present one, as it is kept beside that.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Previous {
    /// The certificate in PEM.
    pub certificate: String,
    /// The private key in PEM.
    pub key: String,
    /// Whether it is one of the user.
    #[serde(default)]
    pub is_own: bool,
    /// When the last certificate of a client ends that it has issued, in seconds since 1970. Absent while it issues them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retires: Option<i64>,
}

impl fmt::Debug for Previous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Previous").field("retires", &self.retires).finish_non_exhaustive()
    }
}

/// A certificate to issue.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// Who issues it.
    pub authority: Issuer,
    /// The common name.
    pub common_name: String,
    /// The serial number.
    pub serial: Serial,
    /// When it ends, in seconds since 1970.
    pub not_after: i64,
}

/// A certificate authority that issues certificates.
#[derive(Clone)]
pub struct Issuer {
    /// The certificate in PEM.
    pub certificate: Arc<str>,
    /// The private key in PEM.
    pub key: Arc<str>,
    /// The key of `tls-crypt`.
    pub tls_crypt: Arc<str>,
    /// The certificates of all authorities that are trusted, in PEM.
    pub trusted: Arc<str>,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").finish_non_exhaustive()
    }
}

/// Why a Secret cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason, from the closed set.
    pub reason: Reason,
    /// The message for users.
    pub message: String,
}

impl Refusal {
    fn of(error: impl fmt::Display) -> Self {
        Self {
            reason: Reason::CertificateAuthorityInvalid,
            message: format!("No certificate can be issued: {error:#}"),
        }
    }

    /// Returns that there is no keystore.
    pub fn keystore_missing(name: &str) -> Self {
        let message = format!("Secret {name} of spec.pki.keystoreSecret does not exist");
        Self { reason: Reason::SecretNotFound, message }
    }

    /// Returns that a keystore cannot be used.
    pub fn keystore_invalid(name: &str, why: &str) -> Self {
        let message = format!("Secret {name} of spec.pki.keystoreSecret cannot be used: {why}");
        Self { reason: Reason::KeystoreInvalid, message }
    }
}

impl Content {
    /// Returns the name of another Secret whose data [`Self::data`] needs.
    pub fn source(&self) -> Option<&str> {
        match self {
            Content::Authority { own, .. } => own.as_deref(),
            Content::Keystore { source } => Some(source),
            _ => None,
        }
    }

    /// Returns the data of the Secret. `known` is the data of [`Self::source`], or the present data of the Secret.
    ///
    /// # Errors
    /// If the certificate authority or the certificate signing request cannot be used.
    pub fn data(&self, known: Option<&Data>, now: OffsetDateTime) -> Result<Data, Refusal> {
        match self {
            Content::Authority { common_name, generation, own, predecessor } => {
                let authority = match own {
                    Some(name) => own_authority(name, known, now)?,
                    None => Authority::new(common_name, now, AUTHORITY_LIFETIME).map_err(Refusal::of)?,
                };
                authority_data(&authority, *generation, own.as_deref(), predecessor.as_deref())
            }
            Content::Server(certificate) => {
                let request = certificate.request(Usage::Server(Vec::new()), now);
                let authority = certificate.authority.load(now)?;
                let issued = pki::issue(&authority, &request, now).map_err(Refusal::of)?;
                let mut data = certificate.authority.public();
                data.insert(keys::CERTIFICATE.to_owned(), bytes(&issued.certificate));
                data.insert(keys::KEY.to_owned(), bytes(&issued.key));
                Ok(data)
            }
            Content::Keystore { source } => {
                let missing = || Refusal::keystore_missing(source);
                let keystore = Keystore::read(known.ok_or_else(missing)?, now);
                keystore.map(|keystore| keystore.data().clone()).map_err(|why| Refusal::keystore_invalid(source, &why))
            }
            Content::Revoked { authority, revoked, number } => {
                // Not every certificate authority may sign lists, and the server does not need them.
                let authority = authority.as_ref().and_then(|authority| authority.load(now).ok());
                let crl = authority.and_then(|authority| pki::crl(&authority, revoked, *number, now).ok());
                let files = revoked.iter().map(|(serial, entry)| (serial.to_string(), bytes(&entry.common_name)));
                let mut data: Data = files.collect();
                data.insert(keys::REVOKED.to_owned(), bytes(&revoked.to_string()));
                data.extend(crl.map(|crl| (keys::CRL.to_owned(), bytes(&crl))));
                Ok(data)
            }
            Content::Client { certificate, csr, file, profile } => {
                let request = certificate.request(Usage::Client, now);
                let authority = certificate.authority.load(now)?;
                let (issued, key) = match csr {
                    Some(csr) => (sign(&authority, csr, &request, now)?, None),
                    None => {
                        let issued = pki::issue(&authority, &request, now).map_err(Refusal::of)?;
                        (issued.certificate, Some(issued.key))
                    }
                };
                Ok(client(&certificate.authority, file, profile, issued, key))
            }
            Content::Profile { authority, file, profile } => {
                let text = |key: &str| String::from_utf8(known?.get(key)?.0.clone()).ok();
                let certificate = text(keys::CERTIFICATE).ok_or_else(|| Refusal::of("the Secret has changed"))?;
                Ok(client(authority, file, profile, certificate, text(keys::KEY)))
            }
        }
    }
}

impl Certificate {
    fn request(&self, usage: Usage, now: OffsetDateTime) -> Request {
        let lifetime = Duration::seconds(self.not_after - now.unix_timestamp());
        Request { common_name: self.common_name.clone(), usage, serial: self.serial, lifetime }
    }
}

impl Issuer {
    fn load(&self, now: OffsetDateTime) -> Result<Authority, Refusal> {
        Authority::load(&self.certificate, &self.key, now).map_err(Refusal::of)
    }

    fn public(&self) -> Data {
        data([(keys::AUTHORITY, &*self.trusted), (keys::TLS_CRYPT, &*self.tls_crypt)])
    }
}

/// Returns the hash of the data of a Secret. It tells whether somebody else has changed them, and nothing about them: it
/// is cryptographic.
pub fn data_hash(data: &Data) -> String {
    let mut hash = Sha256::new();
    for part in data.iter().flat_map(|(key, value)| [key.as_bytes(), &value.0]) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn authority_data(
    authority: &Authority,
    generation: i32,
    own: Option<&str>,
    predecessor: Option<&Predecessor>,
) -> Result<Data, Refusal> {
    let mut data = data([
        (keys::CERTIFICATE, authority.certificate()),
        (keys::KEY, authority.key()),
        (keys::GENERATION, &generation.to_string()),
    ]);
    data.extend(own.map(|name| (keys::SOURCE.to_owned(), bytes(name))));
    let Some(Predecessor { previous, tls_crypt, revoked }) = predecessor else {
        let tls_crypt = pki::new_tls_crypt_key().map_err(Refusal::of)?;
        data.insert(keys::TLS_CRYPT.to_owned(), bytes(&tls_crypt));
        data.insert(keys::REVOKED.to_owned(), bytes(""));
        return Ok(data);
    };
    // The user may have asked for another authority, and left the same one in the Secret.
    let others: Vec<_> = previous.iter().filter(|one| one.certificate != authority.certificate()).collect();
    if !others.is_empty() {
        let text = serde_json::to_string(&others).map_err(Refusal::of)?;
        data.insert(keys::PREVIOUS.to_owned(), bytes(&text));
    }
    // Profiles that are in use have that key.
    data.insert(keys::TLS_CRYPT.to_owned(), bytes(tls_crypt));
    data.insert(keys::REVOKED.to_owned(), bytes(&revoked.to_string()));
    Ok(data)
}

fn own_authority(name: &str, data: Option<&Data>, now: OffsetDateTime) -> Result<Authority, Refusal> {
    let Some(data) = data else {
        let message = format!("Secret {name} of spec.pki.caSecret does not exist");
        return Err(Refusal { reason: Reason::SecretNotFound, message });
    };
    let invalid = |why: String| Refusal {
        reason: Reason::CertificateAuthorityInvalid,
        message: format!("Secret {name} of spec.pki.caSecret cannot be used: {why}"),
    };
    let text = |key: &str| {
        let value = data.get(key).ok_or_else(|| invalid(format!("it has no key {key}")))?;
        String::from_utf8(value.0.clone()).map_err(|_| invalid(format!("{key} is not PEM")))
    };
    Authority::load(&text(keys::CERTIFICATE)?, &text(keys::KEY)?, now).map_err(|problem| invalid(problem.to_string()))
}

fn sign(authority: &Authority, csr: &str, request: &Request, now: OffsetDateTime) -> Result<String, Refusal> {
    pki::sign_csr(authority, csr, request, now).map_err(|problem| match problem {
        CsrProblem::NotIssued(error) => Refusal::of(error),
        other => {
            Refusal { reason: Reason::SigningRequestInvalid, message: format!("spec.csr cannot be used: {other}") }
        }
    })
}

fn client(issuer: &Issuer, file: &str, settings: &ProfileSettings, certificate: String, key: Option<String>) -> Data {
    let profile = settings.text(&issuer.trusted, &issuer.tls_crypt, &certificate, key.as_deref());
    let mut data = issuer.public();
    data.insert(file.to_owned(), bytes(&profile));
    data.insert(keys::CERTIFICATE.to_owned(), bytes(&certificate));
    data.extend(key.map(|key| (keys::KEY.to_owned(), bytes(&key))));
    data
}

fn data<'a>(entries: impl IntoIterator<Item = (&'static str, &'a str)>) -> Data {
    entries.into_iter().map(|(key, text)| (key.to_owned(), bytes(text))).collect()
}

fn bytes(text: &str) -> ByteString {
    ByteString(text.as_bytes().to_vec())
}
