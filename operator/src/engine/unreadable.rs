//! Objects that cannot be decoded: the operator skips them, and reports that in their status and in an Event.
//!
//! Invariant: each is reported once, until its status is written, or until it can be decoded again.

use std::collections::HashMap;

use chrono::SecondsFormat;
use serde_json::json;
use vpn_types::{READY, Reason};

use crate::model::{EventRecord, Kind, Now, ObjectKey, ObjectReference, Operation, Step, Uid, object_reference};

/// The objects that cannot be decoded.
#[derive(Clone, Debug, Default)]
pub struct UnreadableObjects(HashMap<(Kind, ObjectKey), Unreadable>);

#[derive(Clone, Debug)]
struct Unreadable {
    /// The UID.
    uid: Uid,
    /// `metadata.resourceVersion`.
    version: u64,
    /// The error of the decoder.
    error: String,
    /// What has been reported. After a restart it is reported again.
    reported: Reported,
    /// Whether the last request that was decided is about this error.
    is_requested: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reported {
    Nothing,
    /// Only an Event was recorded, because the status was refused or its outcome is not known.
    Event,
    Status,
}

impl Unreadable {
    fn report(&self, kind: Kind, key: &ObjectKey, now: Now) -> Step {
        let message = format!("this object cannot be read, and nothing is done for it: {}", self.error);
        let event = EventRecord {
            regarding: object_reference(kind, key, &self.uid),
            related: None,
            warning: true,
            reason: Reason::InvalidSpec,
            action: "Read",
            message: message.clone(),
        };
        let condition = json!({
            "type": READY, "status": "False", "reason": Reason::InvalidSpec.as_str(), "message": message,
            "lastTransitionTime": now.wall.to_rfc3339_opts(SecondsFormat::Secs, true),
        });
        // The phase stays as it is, because others may depend on it.
        let patch = json!({"status": {"message": message, "conditions": [condition]}});
        let event = (self.reported == Reported::Nothing).then_some(event);
        Step::status(Operation::PatchStatus(kind, key.clone(), patch)).with_event(event)
    }
}

impl UnreadableObjects {
    /// Adds an object. Returns true if it has to be reported.
    pub fn add(&mut self, object: &ObjectReference, version: u64, error: String) -> bool {
        let id = (object.kind, object.key.clone());
        if let Some(known) = self.0.get_mut(&id).filter(|known| known.uid == object.uid && known.error == error) {
            known.version = version;
            return false;
        }
        let (uid, reported) = (object.uid.clone(), Reported::Nothing);
        self.0.insert(id, Unreadable { uid, version, error, reported, is_requested: false });
        true
    }

    /// Forgets an object if this view of it is newer. Returns true if it did.
    pub fn forget(&mut self, kind: Kind, key: &ObjectKey, (uid, version): &(Uid, u64)) -> bool {
        let id = (kind, key.clone());
        // A response may be older than what the watch has delivered. An undecodable lock has a view too.
        let is_older = |known: &Unreadable| known.uid != *uid || known.version < *version;
        self.0.get(&id).is_some_and(is_older) && self.0.remove(&id).is_some()
    }

    /// Returns the step that reports an object.
    pub fn report(&mut self, kind: Kind, key: &ObjectKey, now: Now) -> Step {
        match self.0.get_mut(&(kind, key.clone())) {
            Some(unreadable) if unreadable.reported != Reported::Status => {
                unreadable.is_requested = true;
                unreadable.report(kind, key, now)
            }
            _ => Step::Idle,
        }
    }

    /// Records whether the status was written. Whatever the outcome, the Event is recorded.
    pub fn answered(&mut self, kind: Kind, key: &ObjectKey, is_written: bool) {
        if let Some(unreadable) = self.0.get_mut(&(kind, key.clone())).filter(|one| one.is_requested) {
            unreadable.reported = if is_written { Reported::Status } else { Reported::Event };
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use std::time::Duration;

    use serde_json::from_value;
    use vpn_types::{Mask, MaskReservation};

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
}
