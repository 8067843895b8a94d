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

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::model::ObjectKey;

    fn request(number: usize) -> ReconcileRequest {
        ReconcileRequest::Mask(ObjectKey::new("ns", format!("m{number}")))
    }

    #[test]
    fn a_full_priority_does_not_hold_up_another() {
        let mut limits = InFlightLimits::new([1, 1, 1]);
        limits.sent(RequestPriority::Maintenance);
        assert!(limits.defer(RequestPriority::Maintenance, &request(0)));
        assert!(!limits.defer(RequestPriority::Slots, &request(0)));
        assert_eq!(limits.take_ready(), []);
        limits.ended(RequestPriority::Maintenance);
        assert_eq!(limits.take_ready(), [request(0)]);
    }

    proptest! {
        /// The requests in flight never exceed the limit, and each waiting request becomes ready once and in order.
        #[test]
        fn what_waits_becomes_ready_in_order(steps in vec((any::<bool>(), 0..5usize), 0..60)) {
            const LIMIT: usize = 2;
            let mut limits = InFlightLimits::new([LIMIT; 3]);
            let (mut in_flight, mut waiting) = (0, VecDeque::new());
            for (sends, number) in steps {
                let candidates = if sends {
                    vec![request(number)]
                } else {
                    if in_flight > 0 {
                        limits.ended(RequestPriority::Status);
                        in_flight -= 1;
                    }
                    let ready = limits.take_ready();
                    let expected: Vec<_> = waiting.drain(..waiting.len().min(LIMIT - in_flight)).collect();
                    prop_assert_eq!(&ready, &expected);
                    ready
                };
                for request in candidates {
                    if !limits.defer(RequestPriority::Status, &request) {
                        limits.sent(RequestPriority::Status);
                        in_flight += 1;
                    } else if !waiting.contains(&request) {
                        waiting.push_back(request);
                    }
                    prop_assert!(in_flight <= LIMIT);
                }
            }
        }
    }
}
