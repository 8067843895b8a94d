//! Handles the outcomes of requests.

use vpn_types::Reason;

use super::{Engine, InFlight};
use crate::{
    controllers::{Answer, Failure},
    model::{
        Backoff, Effect, EventRecord, Kind, NewObject, ObjectKey, Operation, ReconcileRequest, RequestPriority, Uid,
        object_reference,
    },
    state::{Acknowledged, ConsumerView, Epoch, Object, Outcome},
};

impl Engine {
    /// Handles the outcome of a request.
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
        if let ReconcileRequest::Unreadable(kind, key) = &request.reconcile {
            self.report_answered((*kind, key), &request, outcome);
            self.record(request.events);
            self.enqueue(request.reconcile);
            return;
        }
        if let Some(controller) = self.controllers.handler(&request.reconcile) {
            let answer = Answer {
                request: &request.reconcile,
                operation: &request.operation,
                outcome: &outcome,
                expected: request.expected.as_ref(),
            };
            (controller.answered)(&mut self.ctx, &answer);
            self.apply_work_changes();
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

    /// Handles the outcome of the report of an object that cannot be decoded. The response to a success cannot be decoded
    /// either.
    fn report_answered(&mut self, (kind, key): (Kind, &ObjectKey), request: &InFlight, outcome: Outcome) {
        let is_gone = matches!(outcome, Outcome::Gone | Outcome::NotFound);
        let failure = match outcome {
            Outcome::Refused { reason, message } => Some((reason, message)),
            Outcome::Unknown { message } => Some((Reason::RequestFailed, message)),
            Outcome::Conflict => Some((Reason::RequestFailed, "the object has changed".to_owned())),
            _ => None,
        };
        let InFlight { reconcile, priority, .. } = request;
        if is_gone {
            self.unreadable.gone(kind, key);
        }
        self.unreadable.answered(kind, key, failure.is_none());
        let before = self.ctx.backoffs.remove(reconcile, *priority);
        if let Some((reason, message)) = failure {
            let backoff = Backoff::after(before.as_ref(), reason, message, self.ctx.now);
            self.ctx.backoffs.insert(reconcile, *priority, backoff);
        }
    }

    /// Applies an outcome to the stores, or sets a backoff. Returns true on success.
    fn apply(&mut self, request: &InFlight, outcome: Outcome) -> bool {
        let InFlight { reconcile, operation, target_version, .. } = request;
        let is_read = operation.is_read();
        match outcome {
            Outcome::Gone | Outcome::NotFound | Outcome::Conflict if is_about_pod(operation) => {
                self.to_read.remove(reconcile);
                true
            }
            Outcome::Object(object) if !is_read && object.is_final_state() => {
                self.removed(object.kind(), &object.meta().key, &object.meta().uid);
                true
            }
            Outcome::Object(object) => {
                self.to_read.remove(reconcile);
                self.acknowledge(*object, request.epoch);
                true
            }
            Outcome::Gone => {
                self.target_gone(operation, target_version.as_ref());
                true
            }
            Outcome::Pods(_) | Outcome::ReplicaSets(_) | Outcome::Clients(_) | Outcome::Evicted => true,
            Outcome::NotFound if matches!(operation, Operation::Create(..)) => {
                let why = match operation {
                    Operation::Create(_, NewObject::Secret(_) | NewObject::Pod(_)) => "the namespace does not exist",
                    _ => "the namespace, or the CustomResourceDefinition of this kind, does not exist",
                };
                self.refused(request, Reason::NamespaceTerminating, why);
                false
            }
            Outcome::NotFound => {
                self.to_read.remove(reconcile);
                self.target_gone(operation, target_version.as_ref());
                is_read
            }
            Outcome::AlreadyExists => {
                self.read_back(request);
                false
            }
            Outcome::Conflict => {
                let target = operation.target().map(|(kind, key)| self.ctx.state.cached_version(kind, key).1);
                // Otherwise a watch has already delivered the change that caused the conflict.
                if target.as_ref() == Some(target_version) {
                    self.read_back(request);
                }
                false
            }
            Outcome::Refused { reason, message } => {
                self.refused(request, reason, &message);
                false
            }
            Outcome::Undecodable { message } | Outcome::Unknown { message } => {
                self.unanswered(request, message);
                false
            }
        }
    }

    /// Clears the backoff after success, unless this was only a provisional step.
    fn succeeded(&mut self, request: &InFlight) {
        let InFlight { reconcile, operation, priority, clears_backoff, .. } = request;
        let is_read = operation.is_read();
        if *clears_backoff && (!is_read || matches!(reconcile, ReconcileRequest::Read(..))) {
            self.ctx.backoffs.remove(reconcile, *priority);
        } else if is_read {
            // The state of the object is known again, so the next request need not wait.
            for priority in RequestPriority::ALL {
                if let Some(backoff) = self.ctx.backoffs.get_mut(reconcile, priority)
                    && backoff.failures < Backoff::TOO_MANY_UNKNOWN
                {
                    backoff.until = backoff.until.min(self.ctx.now.monotonic);
                }
            }
        }
    }

    /// Reads the target of a request before the next decision about it.
    fn read_back(&mut self, request: &InFlight) {
        if let Some((kind, key)) = request.operation.target() {
            self.to_read.insert(request.reconcile.clone(), (kind, key.clone()));
        }
    }

    /// Applies the object in the response to a write or a read.
    fn acknowledge(&mut self, object: Object, sent: Epoch) {
        let is_watched = match &object {
            // A watch that selects Masks by label would never deliver the deletion of another Mask.
            Object::Mask(view) => view.verifies.is_some() || self.controllers.watch_all(Kind::Mask),
            // The watch selects copied Secrets by label.
            Object::Copy(view) => view.labeled,
            Object::InjectedPod(view) => view.labeled,
            Object::ServerSecret(view) => view.server.is_some() && view.role.is_some(),
            Object::ServerObject(view) => view.server.is_some(),
            Object::ServerPod(view) => view.server.is_some(),
            Object::Pod(pod) => {
                if let Some(pods) = self.ctx.state.pods.get_mut(&pod.meta.key.namespace) {
                    pods.merge(std::slice::from_ref(pod));
                }
                false
            }
            // The pods controller writes them without a watch.
            Object::Reservation(_) => self.controllers.watch_all(Kind::Reservation),
            _ => true,
        };
        if !is_watched {
            return;
        }
        let (kind, key) = (object.kind(), object.meta().key.clone());
        let (acknowledged, change) = self.ctx.state.acknowledge(object, sent);
        if let Some(change) = change {
            self.changed(change);
        }
        if acknowledged == Acknowledged::Unconfirmed {
            self.read_unconfirmed(kind, key);
        }
    }

    /// Removes the target of a request, which no longer exists, if it is still the object of that time.
    fn target_gone(&mut self, operation: &Operation, target_version: Option<&(Uid, u64)>) {
        if let (Some((kind, key)), Some((uid, _))) = (operation.target(), target_version) {
            self.removed(kind, key, uid);
        }
    }

    fn removed(&mut self, kind: Kind, key: &ObjectKey, uid: &Uid) {
        if let Some(change) = self.ctx.state.remove(kind, key, uid) {
            self.changed(change);
        }
    }

    /// Handles an unknown outcome: reads the object, and sets a backoff.
    fn unanswered(&mut self, request: &InFlight, message: String) {
        let InFlight { reconcile, operation, priority, .. } = request;
        let is_read = operation.is_read();
        if !is_read {
            self.read_back(request);
        }
        let previous = self.ctx.backoffs.get(reconcile, *priority);
        let mut backoff = Backoff::after(previous, Reason::RequestFailed, message, self.ctx.now);
        if !is_read {
            backoff.message = format!("{}: {}", describe(operation), backoff.message);
        }
        if !is_read && *priority == RequestPriority::Slots && backoff.failures >= Backoff::TOO_MANY_UNKNOWN {
            self.failed(request, RequestPriority::Slots, None, backoff);
        } else {
            self.ctx.backoffs.insert(reconcile, *priority, backoff);
        }
    }

    fn refused(&mut self, request: &InFlight, reason: Reason, message: &str) {
        let InFlight { reconcile, operation, priority, .. } = request;
        let previous = self.ctx.backoffs.get(reconcile, *priority);
        let full = format!("{}: {message}", describe(operation));
        let backoff = Backoff::after(previous, reason, full, self.ctx.now);
        if backoff.failures == 1 {
            self.report_in_event(reconcile, operation, &backoff);
        }
        self.failed(request, *priority, Some(message), backoff);
    }

    /// Records an Event if a status, or the Secret of an assigned slot, cannot be written.
    fn report_in_event(&mut self, reconcile: &ReconcileRequest, operation: &Operation, backoff: &Backoff) {
        let (kind, key) = match (operation, operation.target(), reconcile) {
            (Operation::PatchStatus(kind, key, _), ..) => (kind, key),
            (_, Some((Kind::Secret, _)), ReconcileRequest::Consumer(key))
                if self.ctx.state.consumers.get(key).is_some_and(ConsumerView::is_active) =>
            {
                (&Kind::Consumer, key)
            }
            _ => return,
        };
        let (_, Some((uid, _))) = self.ctx.state.cached_version(*kind, key) else { return };
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

    /// Sets a backoff. The controller may change it if the request is part of an assignment or a release.
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
        self.apply_work_changes();
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
