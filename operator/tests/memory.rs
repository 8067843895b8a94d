//! A Mask with all its objects takes at most 3 KiB of memory.

use std::time::Duration;

use chrono::{DateTime, Utc};
use k8s_openapi::api::core::v1::Secret;
use peak_alloc::PeakAlloc;
use serde_json::{Value, json};
use vpn_operator::{
    controllers::table,
    engine::{Engine, Input},
    model::{Effect, Kind, Now, ObjectKey},
    state::{CredentialsView, Object, Project, WatchEvent},
};
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskReservation};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const MASKS: usize = 10_000;
const LIMIT: usize = 3 * 1024;

fn decode<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a valid object")
}

fn metadata(kind: &str, name: &str, number: usize, owner: Option<(&str, &str, String)>) -> Value {
    let mut metadata = json!({
        "name": name,
        "namespace": "a-namespace-of-usual-length",
        "uid": uid(kind, number),
        "resourceVersion": (1000 + number).to_string(),
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": ["vpn.beebs.dev/finalizer"],
        "labels": {"vpn.beebs.dev/owner": uid("provider", 0)},
    });
    if let Some((kind, name, uid)) = owner {
        metadata["ownerReferences"] =
            json!([{"apiVersion": "vpn.beebs.dev/v1", "kind": kind, "name": name, "uid": uid, "controller": true}]);
    }
    metadata
}

fn uid(kind: &str, number: usize) -> String {
    format!(
        "{:08x}-0000-4000-8000-{number:012x}",
        kind.bytes().fold(7u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)))
    )
}

fn status(phase: &str, reason: &str, message: &str) -> Value {
    json!({
        "phase": phase, "message": message, "lastUpdated": "2026-01-01T00:00:00Z", "observedGeneration": 1,
        "conditions": [{
            "type": "Ready", "status": "True", "reason": reason, "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
        }],
    })
}

fn objects(number: usize) -> Vec<Object> {
    let name = format!("downloader-of-usual-length-{number}");
    let assigned = json!({
        "name": "my-vpn", "namespace": "a-namespace-of-usual-length", "uid": uid("provider", 0), "slot": number,
        "reservation": uid("reservation", number), "secret": format!("{name}-{}", uid("provider", 0)),
    });
    let message = format!("Assigned slot {number} of MaskProvider a-namespace-of-usual-length/my-vpn");
    let mut active = status("Active", "Assigned", &message);
    active["provider"] = assigned;
    let mut mask = metadata("mask", &name, number, None);
    mask["finalizers"] = json!([]);
    let mask: Mask = decode(
        json!({"apiVersion": "vpn.beebs.dev/v1", "kind": "Mask", "metadata": mask, "spec": {"providers": ["preferred"]}, "status": active}),
    );
    let consumer: MaskConsumer = decode(json!({
        "apiVersion": "vpn.beebs.dev/v1", "kind": "MaskConsumer",
        "metadata": metadata("consumer", &name, number, Some(("Mask", &name, uid("mask", number)))),
        "spec": {"providers": ["preferred"], "mask": {"uid": uid("mask", number), "creationTimestamp": "2026-01-01T00:00:00Z"}},
        "status": active,
    }));
    let reservation: MaskReservation = decode(json!({
        "apiVersion": "vpn.beebs.dev/v1", "kind": "MaskReservation",
        "metadata": metadata("reservation", &format!("my-vpn-{number}"), number, Some(("MaskProvider", "my-vpn", uid("provider", 0)))),
        "spec": {"name": name, "namespace": "a-namespace-of-usual-length", "uid": uid("consumer", number)},
        "status": status("Active", "SlotInUse", &format!("Held by MaskConsumer a-namespace-of-usual-length/{name}")),
    }));
    let mut copy = metadata(
        "copy",
        &format!("{name}-{}", uid("provider", 0)),
        number,
        Some(("MaskConsumer", &name, uid("consumer", number))),
    );
    copy["annotations"] = json!({"vpn.beebs.dev/reservation": uid("reservation", number), "vpn.beebs.dev/source-hash": "0123456789abcdef"});
    let copy: Secret = decode(json!({"metadata": copy}));
    let all = [
        mask.project().map(Object::Mask),
        consumer.project().map(Object::Consumer),
        reservation.project().map(Object::Reservation),
        copy.project().map(Object::Copy),
    ];
    all.into_iter().map(|object| object.expect("complete metadata")).collect()
}

fn provider() -> Object {
    let mut status = status("Active", "Available", &format!("{MASKS} of {MASKS} slots are taken"));
    status["activeSlots"] = json!(MASKS);
    status["selector"] = json!(format!("vpn.beebs.dev/owner={}", uid("provider", 0)));
    let provider: MaskProvider = decode(json!({
        "apiVersion": "vpn.beebs.dev/v1", "kind": "MaskProvider", "metadata": metadata("provider", "my-vpn", 0, None),
        "spec": {"secret": "credentials", "maxSlots": MASKS, "tags": ["preferred"], "verify": {"skip": true}},
        "status": status,
    }));
    Object::Provider(Box::new(provider.project().expect("complete metadata")))
}

#[test]
fn a_mask_takes_little_memory_and_a_restart_writes_nothing() {
    let now = Now { wall: DateTime::<Utc>::UNIX_EPOCH, monotonic: Duration::ZERO };
    let mut engine = Engine::new(table::all());
    let mut sent = 0;
    let mut feed = |engine: &mut Engine, input| {
        for effect in engine.handle([input], now) {
            match effect {
                Effect::Send(request) => {
                    sent += 1;
                    assert!(sent < 1, "the restart sent {request:?}");
                }
                Effect::RecordEvent(event) => panic!("the restart published {event:?}"),
                _ => {}
            }
        }
    };
    let data = std::sync::Arc::default();
    let source =
        CredentialsView { data, hash: "0123456789abcdef".into(), version: "u/1".into(), data_since: "u/1".into() };
    let before = ALLOCATOR.current_usage();
    for kind in table::all().watches().into_keys() {
        feed(&mut engine, Input::Watch(WatchEvent::Init(kind)));
    }
    feed(&mut engine, Input::Watch(WatchEvent::InitApply(provider())));
    for number in 0..MASKS {
        for object in objects(number) {
            feed(&mut engine, Input::Watch(WatchEvent::InitApply(object)));
        }
    }
    for kind in [Kind::Provider, Kind::Secret, Kind::Reservation, Kind::Consumer, Kind::Mask] {
        feed(&mut engine, Input::Watch(WatchEvent::InitDone(kind)));
    }
    feed(&mut engine, Input::Secret(ObjectKey::new("a-namespace-of-usual-length", "credentials"), Some(source)));
    assert_eq!(engine.state().consumers.len(), MASKS);
    let each = (ALLOCATOR.current_usage() - before) / MASKS;
    println!("{each} bytes per Mask with its consumer, reservation and copied Secret");
    assert!(each <= LIMIT, "{each} bytes per Mask");
}
