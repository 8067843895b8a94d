//! Which certificate authority issues which certificates during a rollover.
//!
//! Invariant: the server accepts every client with a valid certificate, and these clients accept the server. The
//! profiles of devices trust only the oldest authority, so it issues the certificate of the server as long as such a
//! profile may exist. The newest authority issues the certificates of clients as soon as the replicas trust it.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    issuing::Issuer,
    state::{AuthorityView, PreviousAuthority, Signer},
};

/// How long before its end an authority stops issuing the certificate of the server, so that the replicas have time to
/// restart.
const BEFORE_END: TimeDelta = TimeDelta::days(1);

impl PreviousAuthority {
    /// Returns until when its certificates are accepted.
    pub fn trusted_until(&self) -> DateTime<Utc> {
        self.retires.unwrap_or(self.signer.not_after)
    }

    /// Whether its certificates are accepted.
    pub fn is_trusted(&self, now: DateTime<Utc>) -> bool {
        self.trusted_until() > now
    }

    /// Returns when the next authority takes over the certificate of the server.
    pub fn hands_over(&self) -> DateTime<Utc> {
        self.trusted_until().min(self.signer.not_after - BEFORE_END)
    }
}

impl AuthorityView {
    /// Returns the previous authority while it issues the certificates of clients, because not all replicas trust the
    /// current one yet.
    pub fn outgoing(&self, now: DateTime<Utc>) -> Option<&PreviousAuthority> {
        self.previous.last().filter(|last| last.retires.is_none() && last.is_trusted(now))
    }

    /// Returns the authority that issues the certificates of clients.
    pub fn for_clients(&self, now: DateTime<Utc>) -> &Signer {
        self.outgoing(now).map_or(&self.signer, |previous| &previous.signer)
    }

    /// Returns the authority that issues the certificate of the server.
    pub fn for_server(&self, now: DateTime<Utc>) -> &Signer {
        let oldest = self.previous.iter().find(|previous| previous.hands_over() > now);
        oldest.map_or(&self.signer, |previous| &previous.signer)
    }

    /// Returns the certificates of all authorities that are trusted, the newest first, if there are several.
    pub fn bundle(&self, now: DateTime<Utc>) -> Option<String> {
        let previous = self.previous.iter().rev().filter(|previous| previous.is_trusted(now));
        let mut previous = previous.map(|previous| &previous.signer).peekable();
        previous.peek()?;
        let all = std::iter::once(&self.signer).chain(previous);
        Some(all.map(|signer| format!("{}\n", signer.certificate.trim_end())).collect())
    }

    /// Returns what is needed to issue certificates.
    pub fn issuer(&self, signer: &Signer, now: DateTime<Utc>) -> Issuer {
        Issuer {
            certificate: signer.certificate.clone(),
            key: signer.key.clone(),
            tls_crypt: self.tls_crypt.clone(),
            trusted: self.bundle(now).map_or_else(|| self.signer.certificate.clone(), Into::into),
        }
    }
}
