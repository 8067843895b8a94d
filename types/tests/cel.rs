//! The CEL rules in the CRDs, evaluated without an API server.

#![allow(clippy::unwrap_used, reason = "a test")]

use kube_cel::{Validator, compile_schema};
use serde_json::{Value, json};

fn schema(kind: &str) -> Value {
    let crd = vpn_types::crds().into_iter().find(|crd| crd.spec.names.kind == kind).unwrap();
    serde_json::to_value(&crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema).unwrap()
}

fn accepts(kind: &str, object: &Value, old: Option<&Value>) -> bool {
    let schema = schema(kind);
    assert!(!compile_schema(&schema).has_errors(), "{kind}");
    Validator::new().validate(&schema, object, old).is_ok()
}

fn named(length: usize, spec: Value) -> Value {
    json!({"metadata": {"name": "n".repeat(length)}, "spec": spec})
}

#[test]
fn names_leave_room_for_names_made_from_them() {
    let account = json!({"secret": "s", "maxSlots": 1});
    for (kind, limit, spec) in
        [("Mask", 216, json!({})), ("MaskConsumer", 216, json!({})), ("MaskProvider", 209, account)]
    {
        assert!(accepts(kind, &named(limit, spec.clone()), None), "{kind}");
        assert!(!accepts(kind, &named(limit + 1, spec), None), "{kind}");
    }
}

#[test]
fn a_reservation_never_changes_hands() {
    let of = |uid: &str| named(3, json!({"name": "m", "namespace": "ns", "uid": uid}));
    assert!(accepts("MaskReservation", &of("u"), None));
    assert!(accepts("MaskReservation", &of("u"), Some(&of("u"))));
    assert!(!accepts("MaskReservation", &of("v"), Some(&of("u"))));
}

#[test]
fn nonsense_in_an_account_is_refused() {
    let account = |field: &str, value: Value| {
        let mut spec = json!({"secret": "s", "maxSlots": 1});
        match field.split_once('.') {
            None => spec[field] = value,
            Some((outer, inner)) => spec[outer] = json!({ inner: value }),
        }
        accepts("MaskProvider", &named(3, spec), None)
    };
    for good in ["s", "my-vpn", "a.b-c.d", "0"] {
        assert!(account("secret", json!(good)), "{good}");
    }
    for bad in ["", "My-Secret", "-a", "a-", "a..b", "a/b", "a_b"] {
        assert!(!account("secret", json!(bad)), "{bad}");
    }
    assert!(account("namespaces", json!(["default", "x-1"])));
    for bad in ["", "*", "a.b", "A"] {
        assert!(!account("namespaces", json!(["default", bad])), "{bad}");
    }
    for good in ["0", "0s", "500ms", "30s", "1m30s", "1.5h", "7d"] {
        assert!(account("release.delay", json!(good)), "{good}");
        assert!(vpn_types::parse_duration(good).is_ok(), "{good}");
    }
    for bad in ["", "5", "-5m", "5 m", "soon", "1e3s", "1M"] {
        assert!(!account("release.uncleanDelay", json!(bad)), "{bad}");
    }
}
