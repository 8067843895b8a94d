//! Which certificate authority issues what, while one follows another.
//!
//! Invariant: whoever has a valid certificate is accepted by the server, and accepts it. Devices outside have profiles
//! that trust the oldest authority only, so that one issues the certificate of the server as long as anybody may have such
//! a profile. The newest one issues the certificates of clients, as soon as the replicas trust it.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    issuing::Issuer,
    state::{AuthorityView, PreviousAuthority},
};

/// How long before its end an authority stops to issue the certificate of the server, so that the replicas have time to
/// restart.
const BEFORE_END: TimeDelta = TimeDelta::days(1);

/// An authority that issues certificates.
#[derive(Clone, Copy)]
pub struct Signer<'a> {
    /// The certificate in PEM.
    pub certificate: &'a str,
    /// The private key in PEM.
    pub key: &'a str,
    /// A hash of the certificate.
    pub fingerprint: &'a str,
    /// When it ends.
    pub not_after: DateTime<Utc>,
}

impl PreviousAuthority {
    /// Whether certificates of this authority are accepted.
    pub fn is_trusted(&self, now: DateTime<Utc>) -> bool {
        self.retires.unwrap_or(self.not_after).min(self.not_after) > now
    }

    /// Returns when the next authority takes over the certificate of the server.
    pub fn hands_over(&self) -> DateTime<Utc> {
        self.retires.unwrap_or(self.not_after).min(self.not_after - BEFORE_END)
    }

    fn signer(&self) -> Signer<'_> {
        Signer {
            certificate: &self.certificate,
            key: &self.key,
            fingerprint: &self.fingerprint,
            not_after: self.not_after,
        }
    }
}

impl AuthorityView {
    fn signer(&self) -> Signer<'_> {
        Signer {
            certificate: &self.certificate,
            key: &self.key,
            fingerprint: &self.fingerprint,
            not_after: self.not_after,
        }
    }

    /// Returns the authority before, while it issues the certificates of clients because not all replicas trust the
    /// present one yet.
    pub fn outgoing(&self, now: DateTime<Utc>) -> Option<&PreviousAuthority> {
        self.previous.last().filter(|last| last.retires.is_none() && last.is_trusted(now))
    }

    /// Returns who issues the certificates of clients.
    pub fn for_clients(&self, now: DateTime<Utc>) -> Signer<'_> {
        self.outgoing(now).map_or_else(|| self.signer(), PreviousAuthority::signer)
    }

    /// Returns who issues the certificate of the server.
    pub fn for_server(&self, now: DateTime<Utc>) -> Signer<'_> {
        let oldest = self.previous.iter().find(|previous| previous.hands_over() > now);
        oldest.map_or_else(|| self.signer(), PreviousAuthority::signer)
    }

    /// Returns the certificates of all authorities that are trusted, the newest first.
    pub fn trusted(&self, now: DateTime<Utc>) -> String {
        let previous = self.previous.iter().rev().filter(|previous| previous.is_trusted(now));
        let all = [&*self.certificate].into_iter().chain(previous.map(|previous| &*previous.certificate));
        all.map(|certificate| format!("{}\n", certificate.trim_end())).collect()
    }

    /// Returns the certificates of all authorities that are trusted, unless this is the only one.
    pub fn others_trusted(&self, signer: &Signer<'_>, now: DateTime<Utc>) -> Option<String> {
        let is_only = self.previous.iter().all(|previous| !previous.is_trusted(now));
        (!is_only || signer.fingerprint != &*self.fingerprint).then(|| self.trusted(now))
    }

    /// Returns what is needed to issue certificates.
    pub fn issuer(&self, signer: &Signer<'_>, now: DateTime<Utc>) -> Issuer {
        let trusted = match self.others_trusted(signer, now) {
            Some(trusted) => trusted.into(),
            None => self.certificate.clone(),
        };
        let (certificate, key) = (signer.certificate.into(), signer.key.into());
        Issuer { certificate, key, tls_crypt: self.tls_crypt.clone(), trusted }
    }

    /// Returns what is needed to sign with the present authority.
    pub fn newest(&self, now: DateTime<Utc>) -> Issuer {
        self.issuer(&self.signer(), now)
    }
}
