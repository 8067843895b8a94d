#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use proptest::prelude::*;
use time::{Duration, OffsetDateTime};

use super::*;
use crate::pki::{Authority, Issued, Request, Usage, issue};

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn authority() -> Authority {
    Authority::new("home", now(), Duration::days(3650)).unwrap()
}

fn server(authority: &Authority) -> Issued {
    let names = ["vpn.example.org", "203.0.113.7", "2001:db8::1"].map(str::to_owned).to_vec();
    let (usage, serial) = (Usage::Server(names), Serial::derive(&["1"]));
    let request = Request { common_name: "home".to_owned(), usage, serial, lifetime: Duration::days(1) };
    issue(authority, &request, now()).unwrap()
}

#[test]
fn a_certificate_says_what_was_asked_for() {
    let authority = authority();
    let info = inspect(&server(&authority).certificate).unwrap();
    assert_eq!(info.serial, Serial::derive(&["1"]));
    assert_eq!(info.common_name, "home");
    assert_eq!(info.not_before, now().unix_timestamp() - 300);
    assert_eq!(info.not_after, now().unix_timestamp() + 86400);
    assert!(!info.is_ca);
    assert_eq!(info.names, ["vpn.example.org", "203.0.113.7", "2001:db8::1"]);
    let ca = inspect(authority.certificate()).unwrap();
    assert!(ca.is_ca);
    assert_ne!(ca.public_key, info.public_key);
}

#[test]
fn a_certificate_is_found_among_other_things() {
    let issued = server(&authority());
    let text = format!("Certificate:\n  Data: x\n{}{}", issued.key, issued.certificate.replace('\n', "\r\n"));
    assert_eq!(inspect(&text).unwrap(), inspect(&issued.certificate).unwrap());
    assert!(inspect(&issued.key).is_err());
    assert!(inspect("").is_err());
}

#[test]
fn only_the_ca_that_signed_a_certificate_signed_it() {
    // Both have the same name.
    let (ours, other) = (authority(), authority());
    let issued = server(&ours);
    assert!(is_signed_by(&issued.certificate, ours.certificate()));
    assert!(is_signed_by(ours.certificate(), ours.certificate()));
    assert!(!is_signed_by(&issued.certificate, other.certificate()));
    assert!(!is_signed_by(&issued.certificate, &issued.certificate));
    assert!(!is_signed_by("junk", ours.certificate()));
}

#[test]
fn only_the_key_of_a_certificate_fits() {
    let authority = authority();
    let (one, other) = (server(&authority), server(&authority));
    assert!(key_fits(&one.certificate, &one.key));
    assert!(!key_fits(&one.certificate, &other.key));
    assert!(!key_fits(&one.certificate, "junk"));
    assert!(!key_fits("junk", &one.key));
}

proptest! {
    #[test]
    fn a_damaged_certificate_does_no_harm(position: prop::sample::Index, byte: u8) {
        let authority = authority();
        let mut bytes = server(&authority).certificate.into_bytes();
        let position = position.index(bytes.len());
        bytes[position] = byte;
        let text = String::from_utf8_lossy(&bytes);
        let _ = (inspect(&text), is_signed_by(&text, authority.certificate()));
    }
}
