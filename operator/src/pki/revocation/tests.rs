#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use proptest::prelude::*;

use super::*;

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap()
}

fn lists() -> impl Strategy<Value = Revoked> {
    let entry = (0_u8..20, any::<String>(), prop_oneof![0_i64..1_000_000, any::<i64>()]);
    prop::collection::vec(entry, 0..12).prop_map(|entries| {
        let mut revoked = Revoked::default();
        for (serial, common_name, not_after) in entries {
            revoked.insert(Serial::derive(&[&serial.to_string()]), &common_name, not_after);
        }
        revoked
    })
}

#[test]
fn the_text_has_a_line_for_each_certificate() {
    let mut revoked = Revoked::default();
    assert!(revoked.insert("12".parse().unwrap(), "laptop", 1_800_000_000));
    assert!(revoked.insert("7".parse().unwrap(), "of two\nlines", 1_900_000_000));
    assert!(!revoked.insert("12".parse().unwrap(), "laptop", 1_800_000_000));
    assert_eq!(revoked.to_string(), "7 1900000000 of two_lines\n12 1800000000 laptop\n");
}

#[test]
fn a_damaged_text_is_no_shorter_list() {
    assert_eq!("\n7 1 a\n\n".parse::<Revoked>().unwrap().len(), 1);
    assert_eq!("7 1 ".parse::<Revoked>().unwrap().len(), 1);
    for text in ["7", "7 1", "7 a b", "a 1 b", "07 1 b", "7 1 a\n8 1", "7  1 a"] {
        assert!(text.parse::<Revoked>().is_err(), "{text}");
    }
}

#[test]
fn an_entry_goes_a_day_after_its_certificate_has_ended() {
    let mut revoked = Revoked::default();
    revoked.insert("7".parse().unwrap(), "laptop", 1_000_000);
    assert!(!revoked.drop_ended(at(1_086_400)) && revoked.contains("7".parse().unwrap()));
    assert!(revoked.drop_ended(at(1_086_401)) && revoked.is_empty());
}

proptest! {
    #[test]
    fn a_list_survives_as_text(revoked in lists()) {
        prop_assert_eq!(revoked.to_string().parse::<Revoked>().unwrap(), revoked);
    }

    #[test]
    fn a_text_that_was_cut_off_never_names_another_certificate(revoked in lists(), cut: prop::sample::Index) {
        let text = revoked.to_string();
        let cut = (0..=cut.index(text.len() + 1)).rev().find(|cut| text.is_char_boundary(*cut)).unwrap();
        if let Ok(some) = text[..cut].parse::<Revoked>() {
            prop_assert!(some.iter().all(|(serial, _)| revoked.contains(serial)));
        }
    }

    #[test]
    fn no_entry_is_lost_by_merging(a in lists(), b in lists()) {
        let mut both = a.clone();
        let changed = both.merge(&b);
        prop_assert_eq!(changed, both != a);
        for (serial, entry) in a.iter().chain(b.iter()) {
            let merged = both.iter().find(|(found, _)| *found == serial).unwrap().1;
            prop_assert!(merged.not_after >= entry.not_after);
        }
        prop_assert!(both.iter().all(|(serial, _)| a.contains(serial) || b.contains(serial)));
        let mut other = b.clone();
        other.merge(&a);
        prop_assert_eq!(&both, &other);
        prop_assert!(!both.merge(&a) && !both.merge(&b));
    }

    #[test]
    fn no_entry_of_a_valid_certificate_is_dropped(revoked in lists(), now in 0_i64..2_000_000) {
        let mut rest = revoked.clone();
        let dropped = rest.drop_ended(at(now));
        prop_assert_eq!(dropped, rest != revoked);
        prop_assert!(revoked.iter().all(|(serial, entry)| entry.not_after < now || rest.contains(serial)));
    }

    #[test]
    fn no_text_makes_it_panic(text: String) {
        let _ = text.parse::<Revoked>();
    }
}
