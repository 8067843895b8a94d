//! The CEL rules in the CRDs, evaluated here (the API server evaluates them again).

use kube_cel::{Validator, compile_schema};
use serde_json::{Value, json};

fn schema(kind: &str) -> Value {
    let crd = vpn_types::crds()
        .into_iter()
        .find(|crd| crd.spec.names.kind == kind)
        .unwrap();
    serde_json::to_value(
        &crd.spec.versions[0]
            .schema
            .as_ref()
            .unwrap()
            .open_api_v3_schema,
    )
    .unwrap()
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
    for (kind, limit, spec) in [
        ("Mask", 216, json!({})),
        ("MaskConsumer", 216, json!({})),
        ("MaskProvider", 209, account),
    ] {
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
