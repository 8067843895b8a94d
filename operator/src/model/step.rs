//! The result of a reconciliation.

use std::time::Duration;

use super::{EventRecord, Operation, RequestPriority};

/// The result of a reconciliation: the next request, if any.
#[derive(Debug)]
pub enum Step {
    /// Nothing to do until a change requeues the object.
    Idle,
    /// Nothing to do until a change requeues the object, or until this time (monotonic).
    WaitUntil(Duration),
    /// Send a request.
    Send(Box<Send>),
}

/// A request, and what depends on its success.
#[derive(Debug)]
pub struct Send {
    /// The request.
    pub operation: Operation,
    /// The priority.
    pub priority: RequestPriority,
    /// The Events to publish when it succeeds.
    pub events: Vec<EventRecord>,
    /// Whether its success clears a backoff. It does not for the first of several steps if a later one failed before.
    pub clears_backoff: bool,
    /// When to decide again (monotonic) if the request is not sent before.
    pub wake: Option<Duration>,
}

impl Step {
    /// Sends a request that is part of an assignment or a release.
    pub fn send(operation: Operation) -> Self {
        Self::with(RequestPriority::Slots, operation)
    }

    /// Sends a request that updates an object nobody waits for.
    pub fn maintain(operation: Operation) -> Self {
        Self::with(RequestPriority::Maintenance, operation)
    }

    /// Sends a request that informs users.
    pub fn status(operation: Operation) -> Self {
        Self::with(RequestPriority::Status, operation)
    }

    fn with(priority: RequestPriority, operation: Operation) -> Self {
        Step::Send(Box::new(Send { operation, priority, events: Vec::new(), clears_backoff: true, wake: None }))
    }

    /// Publishes Events when the request succeeds.
    pub fn with_event(mut self, events: impl IntoIterator<Item = EventRecord>) -> Self {
        if let Step::Send(send) = &mut self {
            send.events.extend(events);
        }
        self
    }

    /// Keeps a backoff when the request succeeds.
    pub fn provisional(mut self) -> Self {
        if let Step::Send(send) = &mut self {
            send.clears_backoff = false;
        }
        self
    }

    /// Decides again at this time (monotonic), even if this step is a request that cannot be sent before.
    pub fn and_wait_until(self, time: Duration) -> Self {
        match self {
            Step::Idle => Step::WaitUntil(time),
            Step::WaitUntil(earlier) => Step::WaitUntil(earlier.min(time)),
            Step::Send(mut send) => {
                send.wake = Some(send.wake.map_or(time, |earlier| earlier.min(time)));
                Step::Send(send)
            }
        }
    }

    /// Returns this step if it is a request. Otherwise returns the other one, with a wait no longer than that of this one.
    pub fn or_sooner(self, other: impl FnOnce() -> Step) -> Step {
        match (self, other) {
            (step @ Step::Send(_), _) => step,
            (Step::Idle, other) => other(),
            (Step::WaitUntil(time), other) => other().and_wait_until(time),
        }
    }

    /// Returns this step, or the other one if this one is idle.
    pub fn or_else(self, other: impl FnOnce() -> Step) -> Step {
        match self {
            Step::Idle => other(),
            step => step,
        }
    }
}
