//! The work queue: deduplicates requests, and adds delayed requests when they are due.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use crate::model::ReconcileRequest;

/// The capacity of an empty queue. Without this limit it would keep the memory for all objects after a start.
const IDLE_CAPACITY: usize = 256;

/// The work queue.
#[derive(Clone, Default)]
pub struct WorkQueue {
    ready: VecDeque<ReconcileRequest>,
    is_ready: HashSet<ReconcileRequest>,
    timers: BTreeSet<(Duration, ReconcileRequest)>,
    timer_of: HashMap<ReconcileRequest, Duration>,
}

impl WorkQueue {
    /// Adds a request.
    pub fn push(&mut self, request: ReconcileRequest) {
        if self.is_ready.insert(request.clone()) {
            self.ready.push_back(request);
        }
    }

    /// Removes and returns the next request.
    pub fn pop(&mut self) -> Option<ReconcileRequest> {
        let request = self.ready.pop_front()?;
        self.is_ready.remove(&request);
        Some(request)
    }

    /// Whether there is no request, apart from delayed ones.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Frees memory.
    pub fn shrink(&mut self) {
        self.ready.shrink_to(IDLE_CAPACITY);
        self.is_ready.shrink_to(IDLE_CAPACITY);
    }

    /// Adds a request at this time (monotonic); `Duration::MAX`: never.
    pub fn push_at(&mut self, request: ReconcileRequest, at: Duration) {
        if at != Duration::MAX {
            self.timers.insert((at, request.clone()));
            self.timer_of.insert(request, at);
        }
    }

    /// Removes the timer of a delayed request.
    pub fn clear_timer(&mut self, request: &ReconcileRequest) {
        if let Some(at) = self.timer_of.remove(request) {
            self.timers.remove(&(at, request.clone()));
        }
    }

    /// Adds the delayed requests that are due.
    pub fn advance(&mut self, now: Duration) {
        while let Some((at, request)) = self.timers.first().cloned() {
            if at > now {
                return;
            }
            self.clear_timer(&request);
            self.push(request);
        }
    }

    /// Returns the time (monotonic) at which the next delayed request is due.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }
}
