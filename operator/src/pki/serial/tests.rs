#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use proptest::prelude::*;

use super::*;

#[test]
fn a_serial_is_the_same_for_the_same_parts_only() {
    let serial = Serial::derive(&["uid", "1"]);
    assert_eq!(serial, Serial::derive(&["uid", "1"]));
    for other in [&["uid", "2"][..], &["uid1"], &["uid1", ""], &["ui", "d1"], &["uid", "1", ""], &["1", "uid"], &[]] {
        assert_ne!(serial, Serial::derive(other), "{other:?}");
    }
}

/// Serials that were issued have to stay what they are.
#[test]
fn a_serial_is_the_same_in_each_version() {
    let text = "646583408797710228085752525494950503664236841507";
    assert_eq!(Serial::derive(&["b7e1f9f4-6c1e-4a30-9e7f-0d3f6c0f6f5e", "7"]).to_string(), text);
}

#[test]
fn what_has_another_spelling_is_no_serial() {
    let too_large = "1461501637330902918203684832716283019655932542976"; // 2^160
    let largest = "1461501637330902918203684832716283019655932542975";
    assert_eq!(largest.parse::<Serial>().unwrap().to_bytes(), [0xff; 20]);
    for text in ["", "01", "00", "-1", "+1", " 1", "1 ", "1_0", "0x1", "a", "crl.pem", "..data", "\u{661}", too_large] {
        assert_eq!(text.parse::<Serial>(), Err(NotASerial), "{text}");
    }
    assert_eq!(Serial::from_bytes(&[1; 21]), Err(NotASerial));
}

proptest! {
    #[test]
    fn a_small_serial_is_written_as_a_number(number: u128) {
        let serial: Serial = number.to_string().parse().unwrap();
        prop_assert_eq!(serial.to_string(), number.to_string());
        prop_assert_eq!(serial, Serial::from_bytes(&number.to_be_bytes()).unwrap());
    }

    #[test]
    fn a_serial_survives_as_text_and_as_bytes(bytes: [u8; 20], zeros in 0_usize..4) {
        let serial = Serial::from_bytes(&[vec![0; zeros], bytes.to_vec()].concat()).unwrap();
        prop_assert_eq!(serial.to_string().parse(), Ok(serial));
        prop_assert_eq!(Serial::from_bytes(&serial.to_bytes()), Ok(serial));
    }

    #[test]
    fn a_derived_serial_is_positive_and_fits(parts: Vec<String>) {
        let parts: Vec<_> = parts.iter().map(String::as_str).collect();
        let bytes = Serial::derive(&parts).to_bytes();
        prop_assert!(bytes.len() < 20 || (bytes.len() == 20 && bytes[0] < 0x80));
        prop_assert_ne!(bytes, vec![0]);
    }

    #[test]
    fn no_text_makes_it_panic(text: String) {
        if let Ok(serial) = text.parse::<Serial>() {
            prop_assert_eq!(serial.to_string(), text);
        }
    }
}
