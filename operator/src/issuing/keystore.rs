//! The files of a server whose certificates the user issues.
//!
//! Invariant: a keystore is usable: its key matches, its certificate is valid now, and OpenVPN can read the rest.

use std::fmt;

use time::OffsetDateTime;

use super::{Data, bytes, keys};
use crate::{openvpn::KeystoreFiles, pki};

/// Keys of the user's Secret, as in the chart `stable/openvpn`.
const SERVER_KEY: &str = "server.key";
const SERVER_CERTIFICATE: &str = "server.crt";
/// Diffie-Hellman parameters.
const DH: &str = "dh.pem";
/// The key for `tls-auth`.
const TA: &str = "ta.key";

/// The files of a server whose certificates the user issues.
#[derive(Clone)]
pub struct Keystore {
    data: Data,
    /// The parts that can expire, and when, in seconds since 1970.
    pub ends: Vec<(&'static str, i64)>,
}

impl fmt::Debug for Keystore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Keystore").field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl Keystore {
    /// Reads the data of the user's Secret.
    ///
    /// # Errors
    /// Why it cannot be used, for users.
    pub fn read(data: &Data, now: OffsetDateTime) -> Result<Self, String> {
        let optional = |key: &str| match data.get(key) {
            None => Ok(None),
            Some(value) => {
                String::from_utf8(value.0.clone()).map(Some).map_err(|_| format!("{key} is not a text in PEM"))
            }
        };
        let required = |key: &str| optional(key)?.ok_or_else(|| format!("it has no key {key}"));
        let (key, certificate, ca) = (required(SERVER_KEY)?, required(SERVER_CERTIFICATE)?, required(keys::AUTHORITY)?);
        let (dh, crl, ta) = (optional(DH)?, optional(keys::CRL)?, optional(TA)?);
        let inspect = |key: &str, pem: &str| pki::inspect(pem).map_err(|why| format!("{key}: {why:#}"));
        let (own, authority) = (inspect(SERVER_CERTIFICATE, &certificate)?, inspect(keys::AUTHORITY, &ca)?);
        pki::trusted(&ca).map_err(|why| format!("{}: {why:#}", keys::AUTHORITY))?;
        if !pki::key_fits(&certificate, &key) {
            return Err(format!(
                "{SERVER_KEY} does not belong to {SERVER_CERTIFICATE}, or is not an unencrypted key in PEM that is ECDSA \
                 with P-256 or P-384, Ed25519, or RSA with 2048 to 4096 bits"
            ));
        }
        if own.not_before > now.unix_timestamp() {
            return Err(format!("{SERVER_CERTIFICATE} is not valid before {}", date(own.not_before)));
        }
        for (key, text, kind) in [(DH, &dh, "DH PARAMETERS-----"), (TA, &ta, "BEGIN OpenVPN Static key V1-----")] {
            if text.as_ref().is_some_and(|text| !text.contains(kind)) {
                return Err(format!("{key} has no line with {kind:?}"));
            }
        }
        let mut ends = vec![(SERVER_CERTIFICATE, own.not_after), (keys::AUTHORITY, authority.not_after)];
        if let Some(crl) = &crl {
            let end = pki::crl_end(crl).map_err(|why| format!("{}: {why:#}", keys::CRL))?;
            ends.extend(end.map(|end| (keys::CRL, end)));
        }
        if let Some((key, end)) = ends.iter().find(|(_, end)| *end <= now.unix_timestamp()) {
            let effect = if *key == keys::CRL { ", so OpenVPN refuses all clients" } else { "" };
            return Err(format!("{key} expired on {}{effect}", date(*end)));
        }
        let all = [
            (keys::AUTHORITY, Some(ca)),
            (keys::CERTIFICATE, Some(certificate)),
            (keys::KEY, Some(key)),
            (DH, dh),
            (keys::CRL, crl),
            (TA, ta),
        ];
        let data = all.into_iter().filter_map(|(key, text)| Some((key.to_owned(), bytes(&text?)))).collect();
        Ok(Self { data, ends })
    }

    /// Returns the data of the Secret that the replicas mount.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Returns which optional files exist.
    pub fn files(&self) -> KeystoreFiles {
        let has = |key: &str| self.data.contains_key(key);
        KeystoreFiles { dh: has(DH), crl: has(keys::CRL), ta: has(TA) }
    }

    /// Returns what OpenVPN reads only when it starts, without the key: that changes with its certificate.
    pub fn at_start(&self) -> impl Iterator<Item = String> {
        let values = [keys::AUTHORITY, keys::CERTIFICATE, DH, TA].into_iter().map(|key| self.data.get(key));
        values.map(|value| value.map(|value| String::from_utf8_lossy(&value.0).into_owned()).unwrap_or_default())
    }
}

fn date(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds).map(|time| time.date().to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use time::Duration;

    use super::*;
    use crate::pki::{Authority, Request, Revoked, Serial, Usage, crl, issue};

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    fn keystore() -> (Data, Authority) {
        let authority = Authority::new("ca", now(), Duration::days(1000)).unwrap();
        let request = Request {
            common_name: "server".into(),
            usage: Usage::Server(Vec::new()),
            serial: Serial::derive(&["1"]),
            lifetime: Duration::days(100),
        };
        let issued = issue(&authority, &request, now()).unwrap();
        let all =
            [("server.key", &*issued.key), ("server.crt", &issued.certificate), ("ca.crt", authority.certificate())];
        (all.into_iter().map(|(key, text)| (key.to_owned(), bytes(text))).collect(), authority)
    }

    fn problem(data: &Data, at: OffsetDateTime) -> String {
        Keystore::read(data, at).unwrap_err()
    }

    #[test]
    fn three_files_are_enough_and_the_others_are_optional() {
        let (mut data, _) = keystore();
        data.insert("other".into(), bytes("x"));
        let few = Keystore::read(&data, now()).unwrap();
        assert_eq!(few.data().keys().collect::<Vec<_>>(), ["ca.crt", "tls.crt", "tls.key"]);
        assert_eq!(few.files(), KeystoreFiles { dh: false, crl: false, ta: false });
        data.insert("dh.pem".into(), bytes("-----BEGIN DH PARAMETERS-----\n"));
        data.insert("ta.key".into(), bytes(&pki::new_tls_crypt_key().unwrap()));
        let more = Keystore::read(&data, now()).unwrap();
        assert_eq!(more.files(), KeystoreFiles { dh: true, crl: false, ta: true });
        assert!(few.at_start().ne(more.at_start()));
        assert!(!format!("{more:?}").contains("PRIVATE"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let (data, _) = keystore();
        let with = |key: &str, text: &str| {
            let mut data = data.clone();
            data.insert(key.to_owned(), bytes(text));
            problem(&data, now())
        };
        for key in ["server.key", "server.crt", "ca.crt"] {
            let mut data = data.clone();
            data.remove(key);
            assert_eq!(problem(&data, now()), format!("it has no key {key}"));
        }
        assert_eq!(with("server.crt", "x"), "server.crt: no certificate in PEM");
        assert_eq!(with("ca.crt", "x"), "ca.crt: no certificate in PEM");
        let other = String::from_utf8(keystore().0["server.key"].0.clone()).unwrap();
        assert!(with("server.key", &other).starts_with("server.key does not belong to server.crt"));
        assert!(with("dh.pem", "x").starts_with("dh.pem has no line"));
        assert!(with("ta.key", "x").starts_with("ta.key has no line"));
        assert_eq!(with("crl.pem", "x"), "crl.pem: no list of revoked certificates in PEM");
        assert!(problem(&data, now() - Duration::days(1)).contains("server.crt is not valid before 2027-01-15"));
        assert!(problem(&data, now() + Duration::days(100)).starts_with("server.crt expired on 2027-04-25"));
    }

    #[test]
    fn a_list_of_revoked_certificates_that_ended_locks_everybody_out() {
        let (mut data, authority) = keystore();
        let list = |at| crl(&authority, &Revoked::default(), 1, at).unwrap();
        let lifetime = Duration::seconds(pki::crl_end(&list(now())).unwrap().unwrap() - now().unix_timestamp());
        let mut with_end = |end: OffsetDateTime| {
            data.insert("crl.pem".into(), bytes(&list(end - lifetime)));
            Keystore::read(&data, now())
        };
        let keystore = with_end(now() + Duration::days(1)).unwrap();
        assert!(keystore.files().crl);
        let end = (now() + Duration::days(1)).unix_timestamp();
        assert!(keystore.ends.contains(&("crl.pem", end)), "{keystore:?}");
        let ended = with_end(now()).unwrap_err();
        assert_eq!(ended, "crl.pem expired on 2027-01-15, so OpenVPN refuses all clients");
    }
}
