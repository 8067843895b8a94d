#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeSet;

use super::*;

fn names() -> Vec<String> {
    ["webhook.vpn.svc".to_owned(), "127.0.0.1".to_owned()].into()
}

fn at(days: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap() + Duration::days(days)
}

fn fresh() -> Data {
    renew(&Data::new(), &names(), at(0)).unwrap().unwrap()
}

#[test]
fn a_new_certificate_is_good_until_a_month_before_its_end() {
    let data = fresh();
    assert_eq!(renew(&data, &names(), at(0)).unwrap(), None);
    assert_eq!(renew(&data, &names(), at(59)).unwrap(), None);
    let renewed = renew(&data, &names(), at(61)).unwrap().unwrap();
    assert_eq!(renewed[CA_CERTIFICATE], data[CA_CERTIFICATE], "the CA stays");
    assert_ne!(renewed[CERTIFICATE], data[CERTIFICATE]);
    assert_eq!(renewal_time(&load(&data).unwrap()), at(60).unix_timestamp());
}

/// A replica and kube-apiserver may notice each change at any time.
#[test]
fn nobody_distrusts_a_certificate_while_the_ca_is_replaced() {
    let is_trusted = |served: &Data, known: &Data| {
        let (served, known) = (load(served).unwrap(), load(known).unwrap());
        pki::trusted(&known.ca).unwrap().iter().any(|ca| pki::is_signed_by(&served.certificate, ca))
    };
    let mut data = fresh();
    let (mut authorities, mut most_trusted) = (BTreeSet::from([data[CA_KEY].0.clone()]), 1);
    for day in (0..7300).step_by(20) {
        let Some(renewed) = renew(&data, &names(), at(day)).unwrap() else { continue };
        assert!(is_trusted(&data, &renewed) && is_trusted(&renewed, &data) && is_trusted(&renewed, &renewed), "{day}");
        let trusted = pki::trusted(&load(&renewed).unwrap().ca).unwrap();
        for ca in &trusted {
            assert!(
                pki::inspect(ca).unwrap().not_after > (at(day) + LIFETIME).unix_timestamp(),
                "day {day}: a CA that ends"
            );
        }
        most_trusted = most_trusted.max(trusted.len());
        authorities.insert(renewed[CA_KEY].0.clone());
        data = renewed;
    }
    assert_eq!((authorities.len(), most_trusted), (3, 2));
    assert_eq!(pki::trusted(&load(&data).unwrap().ca).unwrap().len(), 1, "the CA before it is forgotten");
}

#[test]
fn whatever_is_damaged_is_made_again() {
    let (good, other) = (fresh(), fresh());
    for key in [CERTIFICATE, KEY, CA_CERTIFICATE, CA_KEY] {
        for value in [None, Some(ByteString(b"junk".to_vec())), Some(other[key].clone())] {
            let mut data = good.clone();
            match value {
                None => drop(data.remove(key)),
                Some(value) => drop(data.insert(key.to_owned(), value)),
            }
            let mended = renew(&data, &names(), at(0)).unwrap().unwrap_or_else(|| panic!("{key} was accepted"));
            assert_eq!(renew(&mended, &names(), at(0)).unwrap(), None, "{key}");
            assert!(load(&mended).is_ok());
        }
    }
}

#[test]
fn another_name_needs_another_certificate() {
    let data = fresh();
    let more = [names(), vec!["other.svc".to_owned()]].concat();
    let renewed = renew(&data, &more, at(0)).unwrap().unwrap();
    assert_eq!(renewed[CA_CERTIFICATE], data[CA_CERTIFICATE]);
    assert_eq!(renew(&renewed, &names(), at(0)).unwrap(), None, "more names do no harm");
}

/// By default, cert-manager writes elliptic curve keys in the format SEC 1.
#[test]
fn a_key_in_another_format_is_read() {
    let mut data = fresh();
    let pkcs8 = KeyPair::from_pem(std::str::from_utf8(&data[KEY].0).unwrap()).unwrap().serialize_der();
    // In PKCS #8, it is the content of an OCTET STRING: a SEQUENCE that begins with version 1.
    let begin = pkcs8.windows(7).position(|bytes| matches!(bytes, [0x04, _, 0x30, _, 0x02, 0x01, 0x01])).unwrap();
    let length = usize::from(pkcs8[begin + 1]);
    let sec1 = ByteString(pkcs8[begin + 2..begin + 2 + length].to_vec());
    let base64 = serde_json::to_value(sec1).unwrap();
    let text = format!(
        "-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n",
        base64
            .as_str()
            .unwrap()
            .chars()
            .collect::<Vec<_>>()
            .chunks(64)
            .map(String::from_iter)
            .collect::<Vec<_>>()
            .join("\n")
    );
    data.insert(KEY.to_owned(), ByteString(text.into_bytes()));
    load(&data).unwrap();
    data.insert(CERTIFICATE.to_owned(), fresh()[CERTIFICATE].clone());
    assert!(load(&data).is_err(), "the key of another certificate");
}
