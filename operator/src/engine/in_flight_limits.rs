//! How many requests of each priority may be in flight at once. Further ones are not even computed: what is to be
//! reconciled waits here by its key, which costs little, and is reconciled anew when there is room. Of a thousand statuses
//! that change again meanwhile, only the last one is written.

use std::collections::{HashSet, VecDeque};

use crate::model::{ReconcileRequest, RequestPriority};

/// Requests in flight, and what waits for room.
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
    /// With these limits, in the order of [`RequestPriority::ALL`].
    pub fn new(limits: [usize; RequestPriority::ALL.len()]) -> Self {
        Self { priorities: limits.map(|limit| Priority { limit, ..Priority::default() }) }
    }

    /// A request was sent.
    pub fn sent(&mut self, priority: RequestPriority) {
        self.priorities[priority as usize].in_flight += 1;
    }

    /// It has ended.
    pub fn ended(&mut self, priority: RequestPriority) {
        let priority = &mut self.priorities[priority as usize];
        priority.in_flight = priority.in_flight.saturating_sub(1);
    }

    /// Whether a request has to wait for room. It is then among those that [`Self::take_ready`] returns some time.
    pub fn defer(&mut self, priority: RequestPriority, request: &ReconcileRequest) -> bool {
        let priority = &mut self.priorities[priority as usize];
        let is_full = priority.in_flight >= priority.limit;
        if is_full && priority.is_waiting.insert(request.clone()) {
            priority.waiting.push_back(request.clone());
        }
        is_full
    }

    /// What there is room for now, the most urgent first. Some of it may have nothing to send any more, so it is to be asked
    /// again once all of this is reconciled.
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
