//! What a controller answers when it is asked for its next step.

use std::time::Duration;

use super::{EventRecord, Operation, RequestPriority};

/// The next write (or read) of one controller for one object.
#[derive(Debug)]
pub enum Step {
    /// Nothing to do until something changes.
    Idle,
    /// Nothing to do until something changes or that time (monotonic) has come.
    WaitUntil(Duration),
    /// Send this.
    Send(Box<Send>),
}

/// A request and what goes with it.
#[derive(Debug)]
pub struct Send {
    /// The request.
    pub operation: Operation,
    /// How urgent.
    pub priority: RequestPriority,
    /// Events to publish once it succeeded.
    pub events: Vec<EventRecord>,
    /// Whether its success ends a backoff. Not so for the first steps of something that failed further on before.
    pub settles: bool,
}

impl Step {
    /// Sends `op` on the way to or from a slot.
    pub fn send(op: Operation) -> Self {
        Self::with(RequestPriority::Slots, op)
    }

    /// Sends `op`, which brings an object up to date that nobody waits for.
    pub fn maintain(op: Operation) -> Self {
        Self::with(RequestPriority::Maintenance, op)
    }

    /// Sends `op`, which tells people something.
    pub fn tell(op: Operation) -> Self {
        Self::with(RequestPriority::Status, op)
    }

    fn with(priority: RequestPriority, operation: Operation) -> Self {
        Step::Send(Box::new(Send { operation, priority, events: Vec::new(), settles: true }))
    }

    /// Publishes an Event, or several, when it succeeded.
    pub fn with_event(mut self, events: impl IntoIterator<Item = EventRecord>) -> Self {
        if let Step::Send(send) = &mut self {
            send.events.extend(events);
        }
        self
    }

    /// Success of this step alone does not end a backoff.
    pub fn provisional(mut self) -> Self {
        if let Step::Send(send) = &mut self {
            send.settles = false;
        }
        self
    }

    /// This step, or the other one if this one has nothing to do.
    pub fn or_else(self, other: impl FnOnce() -> Step) -> Step {
        match self {
            Step::Idle => other(),
            step => step,
        }
    }
}
