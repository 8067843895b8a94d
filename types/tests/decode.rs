//! Objects that this version or another one stored can be decoded.

#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::{Value, json};
use vpn_types::*;

fn object(spec: Value) -> Value {
    json!({"apiVersion": "vpn.beebs.dev/v1", "kind": "Any", "metadata": {"name": "x"}, "spec": spec})
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_mask_needs_no_spec() {
    let mut absent = object(Value::Null);
    absent.as_object_mut().unwrap().remove("spec");
    for value in [absent, object(Value::Null), object(json!({})), object(json!({"providers": null}))] {
        assert_eq!(read::<Mask>(value.clone()).spec, MaskSpec::default(), "{value}");
        assert_eq!(read::<MaskConsumer>(value.clone()).spec, MaskConsumerSpec::default(), "{value}");
    }
    let mask: Mask = read(object(json!({"providers": ["a"], "priority": -3, "later": 1})));
    assert_eq!(mask.spec.providers.as_deref(), Some(&["a".to_owned()][..]));
    assert_eq!(mask.spec.priority, Some(-3));
    assert!(serde_json::from_value::<Mask>(object(json!({"providers": "a"}))).is_err());
}

#[test]
fn an_unknown_phase_is_absent() {
    let mut value = object(json!({"secret": "s", "maxSlots": 1}));
    value["status"] = json!({"phase": "Sleeping", "message": "zzz"});
    let status = read::<MaskProvider>(value.clone()).status.unwrap();
    assert_eq!((status.phase, status.message.as_deref()), (None, Some("zzz")));
    value["status"] = json!({"phase": null});
    assert_eq!(read::<MaskProvider>(value).status.unwrap().phase, None);

    let mut value = object(json!({"name": "n", "namespace": "ns", "uid": "u"}));
    value["status"] = json!({"phase": "Sleeping"});
    assert_eq!(read::<MaskReservation>(value).status.unwrap().phase, None);

    let mut value = object(json!({}));
    value["status"] = json!({"phase": "Sleeping"});
    assert_eq!(read::<Mask>(value.clone()).status.unwrap().phase, None);
    assert_eq!(read::<MaskConsumer>(value.clone()).status.unwrap().phase, None);
    value["status"] = json!({"phase": "ErrNoProviders"});
    assert_eq!(read::<Mask>(value).status.unwrap().phase, Some(MaskPhase::ErrNoProviders));
}

#[test]
fn phases_are_the_closed_sets() {
    fn words<T: std::fmt::Display>(all: &[T]) -> String {
        all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }
    let mask = "Pending Waiting Active Terminating ErrNoProviders";
    assert_eq!(words(MaskPhase::ALL), mask);
    assert_eq!(words(MaskConsumerPhase::ALL), mask);
    assert_eq!(words(MaskReservationPhase::ALL), "Pending Active Terminating");
    assert_eq!(
        words(MaskProviderPhase::ALL),
        "Pending Verifying Verified Ready Active Terminating ErrSecretNotFound ErrVerifyFailed"
    );
    for phase in MaskProviderPhase::ALL {
        assert_eq!(phase.as_str().parse(), Ok(*phase));
        assert_eq!(serde_json::to_value(phase).unwrap(), json!(phase.as_str()));
    }
}

/// Objects as version 1.0.1 wrote them.
#[test]
fn objects_of_1_0_1() {
    let provider: MaskProvider = read(json!({
        "apiVersion": "vpn.beebs.dev/v1", "kind": "MaskProvider",
        "metadata": {"name": "my-vpn", "namespace": "default"},
        "spec": {
            "secret": "my-vpn-credentials", "maxSlots": 5, "tags": ["default"], "namespaces": null,
            "verify": {"skip": false, "timeout": "1m30s", "interval": "24h", "overrides": {
                "pod": {"metadata": {"labels": {"a": "b"}}},
                "containers": {"init": {"image": "i"}, "vpn": null, "probe": {"image": "p"}},
            }},
        },
        "status": {"phase": "Active", "message": "in use", "lastUpdated": "2023-03-14T00:00:00+00:00",
            "lastVerified": null, "activeSlots": 2},
    }));
    let verify = provider.spec.verify.clone().unwrap();
    assert_eq!(verify.timeout().unwrap().as_secs(), 90);
    assert_eq!(verify.interval().unwrap().unwrap().as_secs(), 86_400);
    let containers = verify.overrides.unwrap().containers.unwrap();
    assert_eq!(containers.init, Some(json!({"image": "i"})));
    assert_eq!(containers.vpn, None);
    assert_eq!(provider.spec.release_delay().unwrap().as_secs(), 0);
    assert_eq!(provider.spec.release_unclean_delay().unwrap().as_secs(), 300);
    assert_eq!(provider.status.unwrap().active_slots, Some(2));

    let consumer: MaskConsumer = read(json!({
        "apiVersion": "vpn.beebs.dev/v1", "kind": "MaskConsumer", "metadata": {"name": "m"},
        "spec": {"providers": null},
        "status": {"phase": "Active", "provider": {"name": "my-vpn", "namespace": "default", "uid": "p",
            "slot": 4, "reservation": "r", "secret": "m-p"}},
    }));
    assert_eq!(consumer.status.unwrap().provider.unwrap().slot, 4);
}

#[test]
fn what_is_absent_is_not_written() {
    assert_eq!(serde_json::to_value(MaskSpec::default()).unwrap(), json!({}));
    assert_eq!(serde_json::to_value(MaskConsumerStatus::default()).unwrap(), json!({}));
    let spec = MaskProviderSpec { secret: "s".into(), max_slots: 1, ..Default::default() };
    assert_eq!(serde_json::to_value(spec).unwrap(), json!({"secret": "s", "maxSlots": 1}));
}

#[test]
fn a_place_in_the_queue_survives() {
    let text = "2024-05-06T07:08:09Z";
    let value = object(json!({"mask": {"uid": "m", "creationTimestamp": text}}));
    let consumer: MaskConsumer = read(value.clone());
    assert_eq!(serde_json::to_value(&consumer).unwrap()["spec"], value["spec"]);
}
