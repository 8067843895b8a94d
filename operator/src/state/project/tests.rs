use serde_json::{Value, json};
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskReservation};

use super::*;

fn view<T: Project + serde::de::DeserializeOwned>(mut body: Value) -> T::View {
    for (field, value) in [("uid", "u1"), ("resourceVersion", "7"), ("namespace", "ns"), ("name", "x-3")] {
        if body["metadata"].get(field).is_none() {
            body["metadata"][field] = json!(value);
        }
    }
    let object: T = serde_json::from_value(body).expect("decodes");
    object.project().expect("has name, UID and version")
}

#[test]
fn a_mask_without_spec_wants_any_provider() {
    for body in [json!({"spec": null}), json!({})] {
        let mask = view::<Mask>(body);
        assert_eq!((mask.tags, mask.priority), (None, 0));
        assert!(view::<MaskConsumer>(json!({"spec": null})).mask.is_none());
    }
}

#[test]
fn a_mask_with_an_empty_list_of_tags_wants_none() {
    let mask = view::<Mask>(json!({"spec": {"providers": []}}));
    assert!(mask.tags.is_some_and(|tags| tags.is_empty()));
}

#[test]
fn an_object_without_version_has_no_view() {
    let mask: Mask = serde_json::from_value(json!({"metadata": {"name": "x", "uid": "u"}})).expect("decodes");
    assert!(mask.project().is_none());
}

#[test]
fn the_name_of_a_reservation_contains_its_slot() {
    let spec = json!({"name": "m", "namespace": "ns", "uid": "c1"});
    let reservation = view::<MaskReservation>(json!({"spec": spec}));
    assert_eq!(reservation.slot, Some((Arc::from("x"), 3)));
    assert_eq!(reservation.provider_uid, None);
    let other = view::<MaskReservation>(json!({"metadata": {"name": "x-03"}, "spec": spec}));
    assert_eq!(other.slot, None);
}

#[test]
fn owners_of_other_groups_do_not_count() {
    let owner = |group: &str| json!([{"apiVersion": group, "kind": "Mask", "name": "m", "uid": "m1"}]);
    let of = |group| view::<MaskConsumer>(json!({"metadata": {"ownerReferences": owner(group)}})).owner;
    assert_eq!(of("vpn.beebs.dev/v1"), Some(Uid::from("m1")));
    assert_eq!(of("example.com/v1"), None);
}

#[test]
fn timestamps_alone_do_not_change_the_fingerprint_of_a_status() {
    let status = |message: &str, at: &str| {
        let condition = json!({
            "type": "Ready", "status": "True", "reason": "Assigned", "message": message, "lastTransitionTime": at,
        });
        let status = json!({"phase": "Active", "message": message, "lastUpdated": at, "conditions": [condition]});
        view::<Mask>(json!({"status": status})).status.fingerprint
    };
    assert_eq!(status("one", "2030-01-01T00:00:00Z"), status("one", "2031-01-01T00:00:00Z"));
    assert_ne!(status("one", "2030-01-01T00:00:00Z"), status("two", "2030-01-01T00:00:00Z"));
}

#[test]
fn an_invalid_duration_is_reported() {
    let spec = json!({"secret": "s", "maxSlots": 1, "release": {"delay": "soon"}});
    let provider = view::<MaskProvider>(json!({"spec": spec}));
    assert!(provider.invalid.is_some_and(|why| why.contains("release.delay")));
}
