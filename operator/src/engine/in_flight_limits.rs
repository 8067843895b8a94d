//! Limits the requests in flight, by priority. Beyond the limit the engine does not even compute requests: the items
//! of the work queue wait here by their key, and are reconciled again when there is room. So if a status changes many
//! times meanwhile, only the last one is written.

use std::collections::{HashSet, VecDeque};

use crate::model::{ReconcileRequest, RequestPriority};

/// The numbers of requests in flight, and the items that wait.
#[derive(Clone)]
pub struct InFlightLimits {
    /// In the order of [`RequestPriority::ALL`].
    priorities: [Priority; RequestPriority::ALL.len()],
}

#[derive(Clone, Default)]
struct Priority {
    limit: usize,
    in_flight: usize,
    waiting: VecDeque<ReconcileRequest>,
    is_waiting: HashSet<ReconcileRequest>,
}

impl InFlightLimits {
    /// Sets the limits, in the order of [`RequestPriority::ALL`].
    pub fn new(limits: [usize; RequestPriority::ALL.len()]) -> Self {
        Self { priorities: limits.map(|limit| Priority { limit, ..Priority::default() }) }
    }

    /// Records that a request was sent.
    pub fn sent(&mut self, priority: RequestPriority) {
        self.priorities[priority as usize].in_flight += 1;
    }

    /// Records the end of a request.
    pub fn ended(&mut self, priority: RequestPriority) {
        let priority = &mut self.priorities[priority as usize];
        priority.in_flight = priority.in_flight.saturating_sub(1);
    }

    /// Whether a request has to wait. If so, [`Self::take_ready`] returns it later.
    pub fn defer(&mut self, priority: RequestPriority, request: &ReconcileRequest) -> bool {
        let priority = &mut self.priorities[priority as usize];
        let is_full = priority.in_flight >= priority.limit;
        if is_full && priority.is_waiting.insert(request.clone()) {
            priority.waiting.push_back(request.clone());
        }
        is_full
    }

    /// Returns the requests that there is room for, by priority. Some of them may have nothing to send any more, so
    /// call it again after they are reconciled.
    pub fn take_ready(&mut self) -> Vec<ReconcileRequest> {
        let mut ready = Vec::new();
        for Priority { limit, in_flight, waiting, is_waiting } in &mut self.priorities {
            for _ in *in_flight..*limit {
                let Some(request) = waiting.pop_front() else { break };
                is_waiting.remove(&request);
                ready.push(request);
            }
        }
        ready
    }
}
