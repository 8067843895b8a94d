#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use http::{HeaderName, HeaderValue};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::json;

use super::*;

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let pem = params.self_signed(&key).unwrap().pem();
    Authority { issuer: Issuer::from_ca_cert_pem(&pem, key).unwrap(), pem }
}

impl Authority {
    fn client(&self, name: &str, group: Option<&str>) -> Vec<CertificateDer<'static>> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        vec![params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().der().clone()]
    }
}

fn trust(proxy: &Authority, clients: &Authority) -> Trust {
    let list = |items: &[&str]| json!(items).to_string();
    Trust::of(&BTreeMap::from([
        ("requestheader-client-ca-file".to_owned(), proxy.pem.clone()),
        ("client-ca-file".to_owned(), clients.pem.clone()),
        ("requestheader-allowed-names".to_owned(), list(&["front-proxy"])),
        ("requestheader-username-headers".to_owned(), list(&["X-Remote-User"])),
        ("requestheader-group-headers".to_owned(), list(&["X-Remote-Group"])),
        ("requestheader-extra-headers-prefix".to_owned(), list(&["X-Remote-Extra-"])),
    ]))
    .unwrap()
}

fn headers(all: &[(&str, &str)]) -> HeaderMap {
    let header =
        |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap());
    all.iter().map(header).collect()
}

const JANE: [(&str, &str); 4] = [
    ("X-Remote-User", "jane"),
    ("X-Remote-Group", "team"),
    ("X-Remote-Group", "others"),
    ("X-Remote-Extra-example.com%2fscope", "a"),
];

#[test]
fn the_front_proxy_names_the_user() {
    let (proxy, clients) = (authority(), authority());
    let chain = proxy.client("front-proxy", None);
    let mut all = headers(&JANE);
    all.append("x-remote-group", "system:authenticated".parse().unwrap());
    let user = trust(&proxy, &clients).user(&chain, &all, UnixTime::now()).unwrap().unwrap();
    assert_eq!(user.name, "jane");
    assert_eq!(user.groups.last().unwrap(), "system:authenticated");
    assert_eq!(user.extra["example.com/scope"], ["a"]);
}

#[test]
fn nobody_else_does() {
    let (proxy, clients) = (authority(), authority());
    let trust = trust(&proxy, &clients);
    let now = UnixTime::now();
    let all = headers(&JANE);
    assert_eq!(trust.user(&[], &all, now).unwrap(), None, "without a certificate");
    let user = trust.user(&clients.client("mallory", Some("team-b")), &all, now).unwrap().unwrap();
    assert_eq!((&*user.name, &*user.groups), ("mallory", &["team-b".to_owned(), AUTHENTICATED.to_owned()][..]));
    let user = trust.user(&clients.client("front-proxy", None), &all, now).unwrap().unwrap();
    assert_eq!(user.name, "front-proxy", "the name of the front proxy, but from another CA");
    assert!(trust.user(&proxy.client("other", None), &all, now).is_err(), "a name that is not allowed");
    assert!(trust.user(&authority().client("front-proxy", None), &all, now).is_err(), "an unknown CA");
    assert!(trust.user(&[CertificateDer::from(b"junk".to_vec())], &all, now).is_err());
}

#[test]
fn an_expired_certificate_is_not_trusted() {
    let (proxy, clients) = (authority(), authority());
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "front-proxy");
    params.not_after = time::OffsetDateTime::now_utc() - time::Duration::days(1);
    let chain = [params.signed_by(&KeyPair::generate().unwrap(), &proxy.issuer).unwrap().der().clone()];
    assert!(trust(&proxy, &clients).user(&chain, &headers(&JANE), UnixTime::now()).is_err());
}

#[test]
fn a_new_authority_replaces_the_old_one() {
    let (old, new, clients) = (authority(), authority(), authority());
    let chain = new.client("front-proxy", None);
    assert!(trust(&old, &clients).user(&chain, &headers(&JANE), UnixTime::now()).is_err());
    assert!(trust(&new, &clients).user(&chain, &headers(&JANE), UnixTime::now()).is_ok());
}

#[test]
fn a_config_map_that_cannot_be_used_is_an_error() {
    for (key, value) in [("client-ca-file", "junk"), ("requestheader-allowed-names", "front-proxy")] {
        let data = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let error = Trust::of(&data).unwrap_err();
        assert!(format!("{error:#}").contains(key), "{error:#}");
    }
    assert!(Trust::of(&BTreeMap::new()).is_ok(), "a cluster without a front proxy");
}
