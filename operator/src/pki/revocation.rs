//! The list of revoked certificates. Its copy of record is a text, with one line for each certificate:
//!
//! ```text
//! SERIAL NOT_AFTER COMMON_NAME
//! ```
//!
//! Invariant: an entry is lost only when its certificate has ended: not by merging, and a text with
//! a damaged line is an error instead of a shorter list.

use std::{collections::BTreeMap, fmt, str::FromStr};

use anyhow::{Context, Result};
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams};
use time::{Duration, OffsetDateTime};

use super::{Authority, SKEW, Serial};

/// For how long an entry is kept after its certificate has ended, because clocks differ.
const KEPT: Duration = Duration::days(1);
/// How long a CRL is valid. OpenVPN refuses everybody when one has expired, so the servers do not use it.
const CRL_LIFETIME: Duration = Duration::days(3650);

/// What is known of a revoked certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// When it would have ended, in seconds since 1970.
    pub not_after: i64,
    /// Whose sessions are to end. Without control characters.
    pub common_name: String,
}

/// The revoked certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked(BTreeMap<Serial, Entry>);

impl Revoked {
    /// Adds a certificate. Returns whether that changed the list.
    pub fn insert(&mut self, serial: Serial, common_name: &str, not_after: i64) -> bool {
        // OpenVPN shows such names in the same way.
        let common_name = common_name.replace(char::is_control, "_");
        self.add(serial, Entry { not_after, common_name })
    }

    /// Adds all of another list. Returns whether that changed this one.
    pub fn merge(&mut self, other: &Self) -> bool {
        let mut changed = false;
        for (serial, entry) in &other.0 {
            changed |= self.add(*serial, entry.clone());
        }
        changed
    }

    /// Forgets certificates that have ended anyway. Returns whether there were any.
    pub fn drop_ended(&mut self, now: OffsetDateTime) -> bool {
        let before = self.0.len();
        self.0.retain(|_, entry| entry.not_after.saturating_add(KEPT.whole_seconds()) >= now.unix_timestamp());
        self.0.len() < before
    }

    /// Whether a certificate is on the list.
    pub fn contains(&self, serial: Serial) -> bool {
        self.0.contains_key(&serial)
    }

    /// Returns all entries, by serial.
    pub fn iter(&self) -> impl Iterator<Item = (Serial, &Entry)> {
        self.0.iter().map(|(serial, entry)| (*serial, entry))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of two entries for a serial, the later end is kept, in whichever order they come.
    fn add(&mut self, serial: Serial, entry: Entry) -> bool {
        match self.0.get(&serial) {
            Some(known) if *known >= entry => false,
            _ => {
                self.0.insert(serial, entry);
                true
            }
        }
    }
}

impl fmt::Display for Revoked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (serial, Entry { not_after, common_name }) in &self.0 {
            writeln!(formatter, "{serial} {not_after} {common_name}")?;
        }
        Ok(())
    }
}

impl FromStr for Revoked {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut revoked = Self::default();
        let lines = text.split_terminator('\n').enumerate();
        for (index, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let number = index + 1;
            let mut fields = line.splitn(3, ' ');
            let mut next = || fields.next().with_context(|| format!("line {number} is cut off"));
            let (serial, not_after, common_name) = (next()?, next()?, next()?);
            let serial = serial.parse().with_context(|| format!("line {number}"))?;
            let not_after = not_after.parse().with_context(|| format!("line {number} has no date"))?;
            revoked.insert(serial, common_name, not_after);
        }
        Ok(revoked)
    }
}

/// Returns the list as a CRL in PEM, for other programs. `number` has to grow.
///
/// # Errors
///
/// If the CA may not sign CRLs.
pub fn crl(authority: &Authority, revoked: &Revoked, number: u64, now: OffsetDateTime) -> Result<String> {
    let (this_update, next_update) = (now - SKEW, now.checked_add(CRL_LIFETIME).context("too far in the future")?);
    let revoked_certs = revoked.iter().map(|(serial, _)| RevokedCertParams {
        serial_number: serial.into(),
        revocation_time: this_update,
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update,
        next_update,
        crl_number: number.into(),
        issuing_distribution_point: None,
        revoked_certs: revoked_certs.collect(),
        // OpenSSL ignores a CRL whose key identifier is not that of the CA.
        key_identifier_method: match authority.key_identifier() {
            Some(identifier) => KeyIdMethod::PreSpecified(identifier.to_vec()),
            None => KeyIdMethod::Sha256,
        },
    };
    Ok(params.signed_by(authority.issuer()).context("the CRL cannot be signed")?.pem()?)
}

#[cfg(test)]
mod tests;
