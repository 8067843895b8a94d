#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::sync::LazyLock;

use proptest::prelude::*;
use rcgen::CustomExtension;

use super::*;
use crate::pki::{inspect, is_signed_by, key_fits};

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::new("home", at(0), Duration::days(3650)).unwrap());

fn at(days: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap() + Duration::days(days)
}

fn request(name: &str, lifetime: Duration) -> Request {
    Request { common_name: name.to_owned(), usage: Usage::Client, serial: Serial::derive(&[name]), lifetime }
}

fn csr(params: &CertificateParams, key: &KeyPair) -> String {
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn sign(csr: &str) -> Result<String, CsrProblem> {
    sign_csr(&AUTHORITY, csr, &request("laptop", Duration::days(365)), at(0))
}

#[test]
fn an_issued_certificate_is_signed_and_has_its_key() {
    let issued = issue(&AUTHORITY, &request("laptop", Duration::days(365)), at(0)).unwrap();
    assert!(is_signed_by(&issued.certificate, AUTHORITY.certificate()));
    assert!(key_fits(&issued.certificate, &issued.key));
    assert!(!format!("{issued:?}").contains("PRIVATE"));
}

#[test]
fn a_certificate_ends_no_later_than_its_ca() {
    for lifetime in [Duration::days(365), Duration::MAX] {
        let issued = issue(&AUTHORITY, &request("laptop", lifetime), at(3600)).unwrap();
        assert_eq!(inspect(&issued.certificate).unwrap().not_after, AUTHORITY.not_after().unix_timestamp());
    }
    assert!(issue(&AUTHORITY, &request("laptop", Duration::days(1)), at(3650)).is_err());
}

#[test]
fn a_request_has_to_make_sense() {
    let issue = |name: &str| issue(&AUTHORITY, &request(name, Duration::days(1)), at(0));
    assert!(issue(&"x".repeat(64)).is_ok());
    for name in ["", "a\nb", "a\0", &"x".repeat(65)] {
        assert!(issue(name).is_err(), "{name:?}");
    }
    assert!(super::issue(&AUTHORITY, &request("x", Duration::ZERO), at(0)).is_err());
    let usage = Usage::Server(vec!["ü".to_owned()]);
    assert!(super::issue(&AUTHORITY, &Request { usage, ..request("x", Duration::days(1)) }, at(0)).is_err());
}

#[test]
fn only_the_key_of_a_signing_request_counts() {
    let mut params = CertificateParams::new(["evil.example.org".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "admin");
    params.distinguished_name.push(DnType::OrganizationName, "evil");
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0])];
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = sign(&csr(&params, &key)).unwrap();
        let info = inspect(&certificate).unwrap();
        assert_eq!(info.common_name, "laptop");
        assert_eq!(info.public_key, key.subject_public_key_info());
        assert_eq!(info.serial, Serial::derive(&["laptop"]));
        assert!(!info.is_ca && info.names.is_empty());
        assert!(is_signed_by(&certificate, AUTHORITY.certificate()));
        let der = crate::pki::inspect::der(&certificate).unwrap();
        let parsed = crate::pki::inspect::parse(&der).unwrap();
        assert_eq!(parsed.subject().to_string(), "CN=laptop");
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert!(!parsed.key_usage().unwrap().unwrap().value.key_cert_sign());
        assert!(!parsed.iter_extensions().any(|one| one.oid.to_id_string() == "1.2.3.4"));
    }
}

#[test]
fn a_signing_request_needs_the_private_key() {
    let (ours, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let params = CertificateParams::default();
    let good = params.serialize_request(&ours).unwrap();
    // The request of one with the key of the other.
    let (from, to) = (ours.public_key_raw(), other.public_key_raw());
    let position = good.der().windows(from.len()).position(|bytes| bytes == from).unwrap();
    let mut stolen = good.der().to_vec();
    stolen[position..position + to.len()].copy_from_slice(to);
    assert!(matches!(sign(&pem(&stolen)), Err(CsrProblem::WrongSignature)));
    assert!(sign(&pem(good.der())).is_ok());
}

#[test]
fn what_is_no_signing_request_is_refused() {
    let key = KeyPair::generate().unwrap();
    let good = csr(&CertificateParams::default(), &key);
    assert!(sign(&good.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")).is_ok());
    for text in ["", "junk", AUTHORITY.certificate(), &key.serialize_pem()] {
        assert!(matches!(sign(text), Err(CsrProblem::NotARequest)), "{text}");
    }
    let der = CertificateSigningRequestDer::from_pem_slice(good.as_bytes()).unwrap();
    assert!(matches!(sign(&pem(&[&der[..], &[0]].concat())), Err(CsrProblem::NotARequest)));
}

fn pem(der: &[u8]) -> String {
    let base64: String = base64(der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{base64}\n-----END CERTIFICATE REQUEST-----\n")
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let encode = |chunk: &[u8]| {
        let mut all = [0; 4];
        all[1..=chunk.len()].copy_from_slice(chunk);
        let number = u32::from_be_bytes(all);
        let char = |index: usize| match index <= chunk.len() {
            true => char::from(ALPHABET[(number >> (18 - 6 * index)) as usize & 63]),
            false => '=',
        };
        [char(0), char(1), char(2), char(3)]
    };
    bytes.chunks(3).flat_map(encode).collect()
}

static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut params = CertificateParams::new(["a.example.org".to_owned(), "10.0.0.1".to_owned()]).unwrap();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_damaged_signing_request_is_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut der = GOOD.clone();
        for (position, byte) in changes {
            let position = position.index(der.len());
            der[position] = byte;
        }
        if let Some(cut) = cut {
            der.truncate(cut.index(der.len()));
        }
        // A signature is over all of the request but itself and how it is encoded.
        if let Ok(certificate) = sign(&pem(&der)) {
            prop_assert!(der == *GOOD || is_signed_by(&certificate, AUTHORITY.certificate()));
            prop_assert_eq!(inspect(&certificate).unwrap().common_name, "laptop");
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, text: String) {
        prop_assert!(sign(&pem(&bytes)).is_err());
        prop_assert!(sign(&text).is_err());
    }
}

/// Measures how long it takes: `cargo test --release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn a_thousand_certificates_are_issued() {
    let begin = std::time::Instant::now();
    for number in 0..1000 {
        let name = format!("client-{number}");
        issue(&AUTHORITY, &request(&name, Duration::days(365)), at(0)).unwrap();
    }
    println!("1000 client certificates: {:?}", begin.elapsed());
}
