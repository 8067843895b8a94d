#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::time::Duration;

use serde_json::from_value;
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskReservation};

use super::*;
use crate::{
    controllers::table,
    engine::{Engine, Input},
    model::{Effect, ReconcileRequest, Request},
    state::{Object, Outcome, Project, WatchEvent, unreadable_reservation},
};

struct Test {
    engine: Engine,
    now: Now,
    requests: Vec<Request>,
    events: Vec<EventRecord>,
}

impl Test {
    /// An engine with an empty cache that sends so many requests about a status at once.
    fn new(limit: usize) -> Self {
        let engine = Engine::new(table::all()).with_limits([64, 64, limit]);
        let mut test = Self { engine, now: Now::default(), requests: Vec::new(), events: Vec::new() };
        for kind in test.engine.unsynced() {
            test.feed(Input::Watch(WatchEvent::Init(kind)));
            test.feed(Input::Watch(WatchEvent::InitDone(kind)));
        }
        test
    }

    fn feed(&mut self, input: Input) {
        for effect in self.engine.handle([input], self.now) {
            match effect {
                Effect::Send(request) => self.requests.push(request),
                Effect::RecordEvent(event) => self.events.push(event),
                _ => {}
            }
        }
    }

    fn is_undecodable(&mut self, kind: Kind, name: &str, version: u64, error: &str) {
        let target = object_reference(kind, &ObjectKey::new("a", name), &Uid::from("u"));
        self.feed(Input::Undecodable { target, version, error: error.to_owned() });
    }

    fn is_decodable(&mut self, name: &str, version: u64) {
        let metadata = json!({"namespace": "a", "name": name, "uid": "u", "resourceVersion": version.to_string()});
        let mask: Mask = from_value(json!({"metadata": metadata, "spec": {}})).unwrap();
        self.feed(Input::Watch(WatchEvent::Apply(Object::Mask(mask.project().unwrap()))));
    }

    /// Answers the only request in flight that reports an object, and returns the message of its condition.
    fn answer(&mut self, outcome: Outcome) -> String {
        let is_report = |request: &Request| matches!(request.reconcile, ReconcileRequest::Unreadable(..));
        let reports: Vec<_> = self.requests.extract_if(.., |request| is_report(request)).collect();
        let [Request { id, operation: Operation::PatchStatus(_, _, patch), .. }] = &reports[..] else {
            panic!("one report is expected: {reports:?}")
        };
        let message = patch["status"]["conditions"][0]["message"].as_str().unwrap().to_owned();
        self.feed(Input::Answer(*id, outcome));
        message
    }

    fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.feed(Input::Tick);
    }

    fn reports(&self) -> usize {
        let of_unreadable = |request: &&Request| matches!(request.reconcile, ReconcileRequest::Unreadable(..));
        self.requests.iter().filter(of_unreadable).count()
    }
}

fn accepted() -> Outcome {
    Outcome::Undecodable { message: "the same error".to_owned() }
}

fn refused() -> Outcome {
    Outcome::Refused { reason: Reason::RequestFailed, message: "quota".to_owned() }
}

#[test]
fn a_report_that_had_to_wait_is_sent_later() {
    let mut test = Test::new(1);
    test.is_undecodable(Kind::Mask, "first", 1, "x");
    test.is_undecodable(Kind::Mask, "second", 2, "x");
    test.answer(accepted());
    test.answer(accepted());
    let about: Vec<_> = test.events.iter().map(|event| &*event.regarding.key.name).collect();
    assert_eq!((about, test.reports()), (vec!["first", "second"], 0));
}

#[test]
fn a_status_that_is_not_written_is_written_later_without_another_event() {
    let unknown = Outcome::Unknown { message: "timeout".to_owned() };
    for failure in [refused(), unknown, Outcome::Conflict] {
        let mut test = Test::new(1);
        test.is_undecodable(Kind::Provider, "p", 1, "x");
        test.answer(failure);
        assert_eq!((test.events.len(), test.reports()), (1, 0));
        test.pass(Duration::from_secs(1));
        test.answer(accepted());
        test.pass(Duration::from_secs(600));
        assert_eq!((test.events.len(), test.reports()), (1, 0));
    }
}

#[test]
fn an_object_is_reported_again_if_its_error_changes() {
    let mut test = Test::new(1);
    test.is_undecodable(Kind::Mask, "m", 1, "x");
    test.is_undecodable(Kind::Mask, "m", 2, "y");
    assert!(test.answer(accepted()).ends_with(": x"));
    assert!(test.answer(accepted()).ends_with(": y"));
    test.is_undecodable(Kind::Mask, "m", 3, "y");
    assert_eq!((test.events.len(), test.reports()), (2, 0));
}

#[test]
fn an_object_that_can_be_decoded_again_is_not_reported() {
    let mut test = Test::new(1);
    test.is_undecodable(Kind::Mask, "first", 1, "x");
    test.is_undecodable(Kind::Mask, "second", 2, "x");
    test.is_decodable("second", 3);
    test.answer(accepted());
    assert_eq!((test.events.len(), test.reports()), (1, 0));
}

#[test]
fn an_object_is_reported_again_if_it_was_decodable_in_between() {
    let mut test = Test::new(1);
    test.is_undecodable(Kind::Mask, "m", 1, "x");
    test.answer(accepted());
    test.is_decodable("m", 2);
    test.is_undecodable(Kind::Mask, "m", 3, "x");
    test.answer(accepted());
    assert_eq!(test.events.len(), 2);
}

#[test]
fn the_deletion_of_an_undecodable_object_is_noticed() {
    let mut test = Test::new(0);
    test.is_decodable("m", 1);
    test.is_undecodable(Kind::Mask, "m", 2, "x");
    assert_eq!(test.engine.state().masks.len(), 1);
    test.feed(Input::Watch(WatchEvent::Lost(Kind::Mask, ObjectKey::new("a", "m"), Uid::from("u"))));
    assert_eq!((test.engine.state().masks.len(), test.engine.unreadable.0.len()), (0, 0));
}

/// An undecodable lock has a view too, of the same version.
#[test]
fn a_lock_that_cannot_be_decoded_is_reported() {
    let mut test = Test::new(0);
    let metadata = json!({"namespace": "a", "name": "p-0", "uid": "u", "resourceVersion": "2"});
    let lock: MaskReservation =
        from_value(json!({"metadata": metadata, "spec": {"name": "", "namespace": "", "uid": ""}})).unwrap();
    test.is_undecodable(Kind::Reservation, "p-0", 2, "x");
    let view = unreadable_reservation(&lock.metadata).unwrap();
    test.feed(Input::Watch(WatchEvent::Apply(Object::Reservation(view))));
    assert_eq!(test.engine.unreadable.0.len(), 1);
}

/// The consumer whose slot it locks is found all the same.
#[test]
fn a_consumer_with_an_undecodable_lock_is_evicted_if_its_slot_is_gone() {
    let mut test = Test::new(64);
    let metadata = |name: &str, version: usize| {
        json!({"namespace": "a", "name": name, "uid": name, "resourceVersion": version.to_string(), "generation": version,
            "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["vpn.beebs.dev/finalizer"]})
    };
    let provider = |slots: usize| -> MaskProvider {
        let spec = json!({"secret": "s", "maxSlots": slots, "verify": {"skip": true}});
        from_value(json!({"metadata": metadata("p", 10 - slots), "spec": spec})).unwrap()
    };
    let assigned = json!({"name": "p", "namespace": "a", "uid": "p", "slot": 1, "reservation": "p-1", "secret": "s"});
    let consumer: MaskConsumer = from_value(json!({
        "metadata": metadata("c", 1), "spec": {}, "status": {"phase": "Active", "provider": assigned},
    }))
    .unwrap();
    let lock: MaskReservation =
        from_value(json!({"metadata": metadata("p-1", 2), "spec": {"name": "", "namespace": "", "uid": ""}})).unwrap();
    let lock = unreadable_reservation(&lock.metadata).unwrap();
    let provider = |slots: usize| Object::Provider(Box::new(provider(slots).project().unwrap()));
    for object in [provider(2), Object::Reservation(lock), Object::Consumer(consumer.project().unwrap())] {
        test.feed(Input::Watch(WatchEvent::Apply(object)));
    }
    let evicts = |request: &Request| matches!(request.operation, Operation::Delete { kind: Kind::Consumer, .. });
    assert!(!test.requests.iter().any(evicts));
    test.feed(Input::Watch(WatchEvent::Apply(provider(1))));
    assert!(test.requests.iter().any(evicts), "{:?}", test.requests);
}
