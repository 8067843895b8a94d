#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use super::*;
use crate::pki::{Request, Usage, inspect, is_signed_by, issue};

fn at(days: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap() + Duration::days(days)
}

fn authority() -> Authority {
    Authority::new("home", at(0), Duration::days(3650)).unwrap()
}

fn load(params: &CertificateParams, days: i64) -> Result<Authority, AuthorityProblem> {
    let key = KeyPair::generate().unwrap();
    Authority::load(&params.self_signed(&key).unwrap().pem(), &key.serialize_pem(), at(days))
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (at(0), at(10));
    params
}

#[test]
fn a_new_ca_can_be_loaded_again() {
    let one = authority();
    let again = Authority::load(one.certificate(), one.key(), at(1)).unwrap();
    assert_eq!(again.certificate(), one.certificate());
    assert_eq!(again.not_after(), at(3650));
    let info = inspect(one.certificate()).unwrap();
    assert!(info.is_ca && is_signed_by(one.certificate(), one.certificate()));
    assert_eq!(info.not_before, at(0).unix_timestamp() - 300);
    assert_ne!(info.serial, inspect(authority().certificate()).unwrap().serial);
}

#[test]
fn each_problem_of_a_ca_is_told_apart() {
    let (one, other) = (authority(), authority());
    let problem = |certificate: &str, key: &str| Authority::load(certificate, key, at(1)).unwrap_err();
    assert_eq!(problem("junk", one.key()), AuthorityProblem::NotACertificate);
    assert_eq!(problem(one.key(), one.key()), AuthorityProblem::NotACertificate);
    assert_eq!(problem(one.certificate(), "junk"), AuthorityProblem::NotAKey);
    assert_eq!(problem(one.certificate(), one.certificate()), AuthorityProblem::NotAKey);
    assert_eq!(problem(one.certificate(), other.key()), AuthorityProblem::KeyDoesNotFit);
    let (common_name, lifetime) = ("laptop".to_owned(), Duration::days(1));
    let request = Request { common_name, usage: Usage::Client, serial: Serial::derive(&[]), lifetime };
    let client = issue(&one, &request, at(0)).unwrap();
    assert_eq!(problem(&client.certificate, &client.key), AuthorityProblem::NotACertificateAuthority);
}

#[test]
fn the_dates_of_a_ca_matter() {
    assert!(load(&params(), 0).is_ok());
    assert_eq!(load(&params(), -1).unwrap_err(), AuthorityProblem::NotYetValid(at(0)));
    assert_eq!(load(&params(), 10).unwrap_err(), AuthorityProblem::Expired(at(10)));
    assert_eq!(AuthorityProblem::Expired(at(10)).to_string(), "the CA expired on 2027-01-25");
    assert!(Authority::new("home", at(0), Duration::ZERO).is_err());
    assert!(Authority::new("home", at(0), Duration::MAX).is_err());
}

#[test]
fn a_ca_has_to_be_allowed_to_sign() {
    let mut params = params();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    assert_eq!(load(&params, 0).unwrap_err(), AuthorityProblem::MayNotSign);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    assert!(load(&params, 0).is_ok());
}

#[test]
fn a_key_of_another_kind_is_read() {
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = params().self_signed(&key).unwrap().pem();
        Authority::load(&certificate, &key.serialize_pem(), at(0)).unwrap();
    }
}

#[test]
fn the_key_of_a_ca_is_not_shown() {
    let one = authority();
    let secret: Vec<_> = one.key().lines().filter(|line| !line.starts_with("--")).collect();
    let shown = format!("{one:?} {one:#?}");
    assert!(!secret.is_empty() && secret.iter().all(|line| !shown.contains(line)));
    assert!(!shown.contains("PRIVATE"));
}

#[test]
fn a_bundle_is_split_into_its_certificates() {
    let (one, other) = (authority(), authority());
    let text =
        format!("# old\r\n{}\n{}junk\n{}", one.certificate().replace('\n', "\r\n"), one.key(), other.certificate());
    assert_eq!(trusted(&text).unwrap(), [one.certificate(), other.certificate()]);
    assert!(trusted("").is_err());
    assert!(trusted(&text[..text.len() - 40]).is_err());
    let damaged = text.replace(&one.certificate().lines().nth(1).unwrap()[..4], "AAAA");
    assert!(trusted(&damaged).is_err());
}

/// OpenVPN refuses everybody if it does not know the root.
#[test]
fn a_ca_that_another_one_signed_needs_the_root() {
    let keys = [(); 3].map(|()| KeyPair::generate().unwrap());
    let named = |name: &str| {
        let mut params = params();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let root = named("root").self_signed(&keys[0]).unwrap().pem();
    let middle = named("middle").signed_by(&keys[1], &Issuer::new(named("root"), &keys[0])).unwrap().pem();
    let own = named("own").signed_by(&keys[2], &Issuer::new(named("middle"), &keys[1])).unwrap().pem();
    let load = |chain: &[&String]| {
        let chain: String = chain.iter().map(|pem| pem.as_str()).collect();
        Authority::load(&chain, &keys[2].serialize_pem(), at(0)).map(|_| ())
    };
    assert_eq!(load(&[&own, &middle, &root]), Ok(()));
    assert_eq!(load(&[&own, &root, &middle]), Ok(()));
    for chain in [&[&own][..], &[&own, &middle], &[&own, &root], &[&own, &own, &root]] {
        assert_eq!(load(chain), Err(AuthorityProblem::NoRoot));
    }
}
