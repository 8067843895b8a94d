//! Takes in how requests ended.

use vpn_types::Reason;

use super::{Engine, InFlight};
use crate::{
    controllers::{Answer, Failure},
    model::{
        Backoff, Effect, EventRecord, Kind, ObjectKey, Operation, ReconcileRequest, RequestPriority, Uid,
        object_reference,
    },
    state::{Acknowledged, Epoch, Object, Outcome},
};

impl Engine {
    /// A request ended.
    pub(super) fn answered(&mut self, id: u64, outcome: Outcome) {
        let Some(request) = self.in_flight.remove(&id) else { return };
        self.in_progress.remove(&request.reconcile);
        let deferred = request.operation.written().map(|target| self.writes_in_flight.ended(target, request.priority));
        if deferred.is_some() {
            self.limits.ended(request.priority);
        }
        for deferred in deferred.into_iter().flatten() {
            self.enqueue(deferred);
        }
        if matches!(request.reconcile, ReconcileRequest::Unreadable(..)) {
            // The answer cannot be read either. Carried out or not, an Event says it.
            self.record(request.events);
            return;
        }
        if let Some(controller) = self.controllers.handler(&request.reconcile) {
            let answer = Answer {
                request: &request.reconcile,
                operation: &request.operation,
                outcome: &outcome,
                owner: request.owner.as_ref(),
            };
            (controller.answered)(&mut self.ctx, &answer);
            self.take_work();
        }
        if self.apply(&request, outcome) {
            self.succeeded(&request);
            self.record(request.events);
        }
        self.enqueue(request.reconcile);
    }

    fn record(&mut self, events: Vec<EventRecord>) {
        self.ctx.effects.extend(events.into_iter().map(Effect::RecordEvent));
    }

    /// Applies an outcome to the stores, or sets a backoff. True when the request did what it was to do.
    fn apply(&mut self, request: &InFlight, outcome: Outcome) -> bool {
        let InFlight { reconcile, operation, seen, .. } = request;
        let is_read = operation.is_read();
        match outcome {
            Outcome::Gone | Outcome::NotFound | Outcome::Conflict if is_about_pod(operation) => {
                self.unknown.remove(reconcile);
                true
            }
            Outcome::Object(object) if !is_read && object.is_last_sight() => {
                self.removed(object.kind(), &object.meta().key, &object.meta().uid);
                true
            }
            Outcome::Object(object) => {
                self.unknown.remove(reconcile);
                self.acknowledge(*object, request.epoch);
                true
            }
            Outcome::Gone => {
                self.gone(operation, seen.as_ref());
                true
            }
            Outcome::Pods(_) => true,
            Outcome::NotFound if matches!(operation, Operation::Create(..)) => {
                // The namespace itself is gone.
                self.refused(request, Reason::NamespaceTerminating, "the namespace does not exist");
                false
            }
            Outcome::NotFound => {
                self.unknown.remove(reconcile);
                self.gone(operation, seen.as_ref());
                is_read
            }
            Outcome::AlreadyExists => {
                self.read_back(request);
                false
            }
            Outcome::Conflict => {
                let target = operation.target().map(|(kind, key)| self.ctx.state.seen(kind, key).1);
                if target.as_ref() == Some(seen) {
                    self.read_back(request);
                }
                false
            }
            Outcome::Refused { reason, message } => {
                self.refused(request, reason, &message);
                false
            }
            Outcome::Unknown { message } => {
                self.unanswered(request, message);
                false
            }
        }
    }

    /// Success ends a backoff, unless it is that of a first step only.
    fn succeeded(&mut self, request: &InFlight) {
        let InFlight { reconcile, operation, priority, settles, .. } = request;
        let is_read = operation.is_read();
        if *settles && (!is_read || matches!(reconcile, ReconcileRequest::Read(..))) {
            self.ctx.backoffs.remove(reconcile, *priority);
        } else if let Some(backoff) = self.ctx.backoffs.get_mut(reconcile, *priority).filter(|_| is_read) {
            // The outcome is known again: whatever is next need not wait.
            if backoff.failures < Backoff::TOO_MANY_UNKNOWN {
                backoff.until = backoff.until.min(self.ctx.now.monotonic);
            }
        }
    }

    fn read_back(&mut self, request: &InFlight) {
        if let Some((kind, key)) = request.operation.target() {
            self.unknown.insert(request.reconcile.clone(), (kind, key.clone()));
        }
    }

    /// The API server showed an object: as the answer to a write, or to a read.
    fn acknowledge(&mut self, object: Object, sent: Epoch) {
        let is_watched = match &object {
            // Without the masks controller the watch selects by label: of any other Mask it would never say that it is
            // gone.
            Object::Mask(view) => view.verifies.is_some() || self.controllers.own_status(Kind::Mask),
            // The watch selects copies by label.
            Object::Copy(view) => view.labelled,
            Object::Pod(pod) => {
                if let Some(pods) = self.ctx.state.pods.get_mut(&pod.meta.key.namespace) {
                    pods.merge(std::slice::from_ref(pod));
                }
                false
            }
            _ => true,
        };
        if !is_watched {
            return;
        }
        let (kind, key) = (object.kind(), object.meta().key.clone());
        let (how, change) = self.ctx.state.acknowledge(object, sent);
        if let Some(change) = change {
            self.changed(change);
        }
        if how == Acknowledged::Doubtful {
            self.read_doubtful(kind, key);
        }
    }

    /// The target of a request is gone, and so is what the store holds of it, if it is still what it held then.
    fn gone(&mut self, operation: &Operation, seen: Option<&(Uid, u64)>) {
        if let (Some((kind, key)), Some((uid, _))) = (operation.target(), seen) {
            self.removed(kind, key, uid);
        }
    }

    fn removed(&mut self, kind: Kind, key: &ObjectKey, uid: &Uid) {
        if let Some(change) = self.ctx.state.remove(kind, key, uid) {
            self.changed(change);
        }
    }

    /// Nobody knows whether it was carried out.
    fn unanswered(&mut self, request: &InFlight, message: String) {
        let InFlight { reconcile, operation, priority, .. } = request;
        let is_read = operation.is_read();
        if !is_read {
            self.read_back(request);
        }
        let previous = self.ctx.backoffs.get(reconcile, RequestPriority::Slots);
        let mut backoff = Backoff::after(previous, Reason::RequestFailed, message, self.ctx.now);
        if !is_read && *priority == RequestPriority::Slots && backoff.failures >= Backoff::TOO_MANY_UNKNOWN {
            backoff.message = format!("{}: {}", describe(operation), backoff.message);
            self.failed(request, RequestPriority::Slots, None, backoff);
        } else {
            self.ctx.backoffs.insert(reconcile, RequestPriority::Slots, backoff);
        }
    }

    fn refused(&mut self, request: &InFlight, reason: Reason, message: &str) {
        let InFlight { reconcile, operation, priority, .. } = request;
        let previous = self.ctx.backoffs.get(reconcile, *priority);
        let full = format!("{}: {message}", describe(operation));
        let backoff = Backoff::after(previous, reason, full, self.ctx.now);
        if backoff.failures == 1 {
            self.report_in_event(operation, &backoff);
        }
        self.failed(request, *priority, Some(message), backoff);
    }

    /// What cannot be said in the status is said in an Event.
    fn report_in_event(&mut self, operation: &Operation, backoff: &Backoff) {
        let Operation::PatchStatus(kind, key, _) = operation else { return };
        let (_, Some((uid, _))) = self.ctx.state.seen(*kind, key) else { return };
        let consumer = self.ctx.state.consumers.get(key).filter(|_| *kind == Kind::Consumer);
        let regarding = consumer.map_or_else(|| object_reference(*kind, key, &uid), |one| one.event_object());
        self.ctx.record(EventRecord {
            regarding,
            related: None,
            warning: true,
            reason: backoff.reason,
            action: "Report",
            message: backoff.message.clone(),
        });
    }

    /// Has the controller look at a failure on the way to or from a slot, and sets the backoff that follows.
    fn failed(&mut self, request: &InFlight, priority: RequestPriority, refusal: Option<&str>, backoff: Backoff) {
        let InFlight { reconcile, operation, .. } = request;
        let handler = self.controllers.handler(reconcile).filter(|_| priority == RequestPriority::Slots);
        let backoff = match handler {
            Some(controller) => {
                let failure = Failure { request: reconcile, operation, refusal };
                (controller.failed)(&mut self.ctx, &failure, backoff)
            }
            None => Some(backoff),
        };
        self.take_work();
        if let Some(backoff) = backoff {
            self.ctx.backoffs.insert(reconcile, priority, backoff);
        }
    }
}

fn is_about_pod(operation: &Operation) -> bool {
    operation.target().is_some_and(|(kind, _)| kind == Kind::Pod)
}

fn describe(operation: &Operation) -> String {
    match operation.target() {
        Some((kind, key)) => format!("{} {} {key}", operation.verb(), kind.as_str()),
        None => operation.verb().to_owned(),
    }
}
