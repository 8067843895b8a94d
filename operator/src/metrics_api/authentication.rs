//! Who sends a request: kube-apiserver on behalf of a user (front proxy), or a client with a certificate of its own.
//!
//! Invariant: the headers with the name of a user count only if the certificate of the connection is one of the front
//! proxy. They are ignored otherwise.

use std::{collections::BTreeMap, fmt, sync::Arc};

use anyhow::{Context, Result};
use http::HeaderMap;
use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The namespace of the ConfigMap with the certificates to trust.
pub const CONFIG_NAMESPACE: &str = "kube-system";
/// The name of the ConfigMap with the certificates to trust.
pub const CONFIG_NAME: &str = "extension-apiserver-authentication";
/// The group of all users that are known.
const AUTHENTICATED: &str = "system:authenticated";
/// Members of this group may do everything, as on kube-apiserver.
pub const MASTERS: &str = "system:masters";

/// A user, as in a SubjectAccessReview.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct User {
    /// The name.
    pub name: String,
    /// The UID, if it is known.
    pub uid: Option<String>,
    /// The groups.
    pub groups: Vec<String>,
    /// Further attributes.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Returns the user of requests without credentials.
    pub fn anonymous() -> Self {
        let groups = vec!["system:unauthenticated".to_owned()];
        Self { name: "system:anonymous".to_owned(), groups, ..Self::default() }
    }

    /// Adds the group of known users.
    pub fn authenticated(mut self) -> Self {
        if self.name != "system:anonymous" && !self.groups.iter().any(|group| group == AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }
}

/// The certificates and headers to trust.
#[derive(Clone, Default)]
pub struct Trust {
    /// Verifies the certificates of the front proxy.
    proxy: Option<Arc<dyn ClientCertVerifier>>,
    /// The common names of the front proxy. Without any, each is allowed.
    proxy_names: Vec<String>,
    /// Verifies the certificates of other clients.
    clients: Option<Arc<dyn ClientCertVerifier>>,
    name_headers: Vec<String>,
    uid_headers: Vec<String>,
    group_headers: Vec<String>,
    extra_prefixes: Vec<String>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("proxy_names", &self.proxy_names).finish_non_exhaustive()
    }
}

impl Trust {
    /// Reads the data of the ConfigMap `extension-apiserver-authentication`.
    ///
    /// # Errors
    ///
    /// If it cannot be parsed.
    pub fn of(data: &BTreeMap<String, String>) -> Result<Self> {
        let list = |key: &str| -> Result<Vec<String>> {
            data.get(key).map_or(Ok(Vec::new()), |text| serde_json::from_str(text).with_context(|| key.to_owned()))
        };
        let authority = |key: &str| -> Result<Option<Arc<dyn ClientCertVerifier>>> {
            data.get(key).map(|pem| verifier(pem).with_context(|| key.to_owned())).transpose()
        };
        Ok(Self {
            proxy: authority("requestheader-client-ca-file")?,
            proxy_names: list("requestheader-allowed-names")?,
            clients: authority("client-ca-file")?,
            name_headers: list("requestheader-username-headers")?,
            uid_headers: list("requestheader-uid-headers")?,
            group_headers: list("requestheader-group-headers")?,
            extra_prefixes: list("requestheader-extra-headers-prefix")?,
        })
    }

    /// Returns the user of a request by the certificates of its connection, the one of the client first. Returns `None`
    /// without certificates.
    ///
    /// # Errors
    ///
    /// If the certificate is not to be trusted.
    pub fn user(&self, chain: &[CertificateDer<'_>], headers: &HeaderMap, now: UnixTime) -> Result<Option<User>> {
        let Some((certificate, others)) = chain.split_first() else { return Ok(None) };
        let is_valid = |verifier: &Option<Arc<dyn ClientCertVerifier>>| {
            verifier.as_ref().is_some_and(|verifier| verifier.verify_client_cert(certificate, others, now).is_ok())
        };
        let (_, parsed) = X509Certificate::from_der(certificate).context("not a certificate")?;
        let subject = parsed.subject();
        let name = subject.iter_common_name().find_map(|name| name.as_str().ok()).unwrap_or_default().to_owned();
        if is_valid(&self.proxy)
            && (self.proxy_names.is_empty() || self.proxy_names.contains(&name))
            && let Some(user) = self.forwarded(headers)
        {
            return Ok(Some(user.authenticated()));
        }
        if is_valid(&self.clients) && !name.is_empty() {
            let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned);
            return Ok(Some(User { name, groups: groups.collect(), ..User::default() }.authenticated()));
        }
        anyhow::bail!("the certificate is not one of a client that this server trusts")
    }

    /// Returns the user that the front proxy names.
    fn forwarded(&self, headers: &HeaderMap) -> Option<User> {
        let first = |names: &[String]| {
            names.iter().filter_map(|name| headers.get(name.as_str())?.to_str().ok()).find(|value| !value.is_empty())
        };
        let all = |names: &[String]| {
            let values = names.iter().flat_map(|name| headers.get_all(name.as_str()));
            values.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect::<Vec<_>>()
        };
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (header, value) in headers {
            let key =
                self.extra_prefixes.iter().find_map(|prefix| header.as_str().strip_prefix(&prefix.to_lowercase()));
            if let (Some(key), Ok(value)) = (key, value.to_str()) {
                let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
                extra.entry(key).or_default().push(value.to_owned());
            }
        }
        Some(User {
            name: first(&self.name_headers)?.to_owned(),
            uid: first(&self.uid_headers).map(str::to_owned),
            groups: all(&self.group_headers),
            extra,
        })
    }
}

fn verifier(pem: &str) -> Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(ring::default_provider());
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?)
}

#[cfg(test)]
mod tests;
