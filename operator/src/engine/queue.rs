//! The work queue: what is to be reconciled, once each, now or when its time has come.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use crate::model::ReconcileRequest;

/// Room that the queue keeps when it is empty: after a start with thousands of objects it would stay as large as all of
/// them.
const SPARE_ROOM: usize = 256;

/// The work queue.
#[derive(Clone, Default)]
pub struct WorkQueue {
    ready: VecDeque<ReconcileRequest>,
    is_ready: HashSet<ReconcileRequest>,
    timers: BTreeSet<(Duration, ReconcileRequest)>,
    timer_of: HashMap<ReconcileRequest, Duration>,
}

impl WorkQueue {
    /// To be reconciled as soon as possible.
    pub fn push(&mut self, request: ReconcileRequest) {
        if self.is_ready.insert(request.clone()) {
            self.ready.push_back(request);
        }
    }

    /// The next one.
    pub fn pop(&mut self) -> Option<ReconcileRequest> {
        let request = self.ready.pop_front()?;
        self.is_ready.remove(&request);
        Some(request)
    }

    /// Whether nothing is to be reconciled now.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Gives back memory.
    pub fn shrink(&mut self) {
        self.ready.shrink_to(SPARE_ROOM);
        self.is_ready.shrink_to(SPARE_ROOM);
    }

    /// To be reconciled at that time (monotonic); `Duration::MAX`: never.
    pub fn push_at(&mut self, request: ReconcileRequest, at: Duration) {
        if at != Duration::MAX {
            self.timers.insert((at, request.clone()));
            self.timer_of.insert(request, at);
        }
    }

    /// Forgets the time at which a request was to be reconciled.
    pub fn clear_timer(&mut self, request: &ReconcileRequest) {
        if let Some(at) = self.timer_of.remove(request) {
            self.timers.remove(&(at, request.clone()));
        }
    }

    /// Makes ready what is due.
    pub fn advance(&mut self, now: Duration) {
        while let Some((at, request)) = self.timers.first().cloned() {
            if at > now {
                return;
            }
            self.clear_timer(&request);
            self.push(request);
        }
    }

    /// When the next one is due (monotonic).
    pub fn next_deadline(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }
}
