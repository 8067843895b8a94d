//! Writes in flight by object, and the requests that wait for them.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::model::{Kind, ObjectKey, ReconcileRequest, RequestPriority};

/// The writes in flight.
#[derive(Clone, Default)]
pub struct WritesInFlight(HashMap<(Kind, ObjectKey), Writes>);

#[derive(Clone, Default)]
struct Writes {
    in_flight: SmallVec<[RequestPriority; 1]>,
    /// To reconcile again when one of the writes has ended.
    deferred: Vec<ReconcileRequest>,
}

impl WritesInFlight {
    /// Records that a write was sent.
    pub fn started(&mut self, (kind, key): (Kind, &ObjectKey), priority: RequestPriority) {
        self.0.entry((kind, key.clone())).or_default().in_flight.push(priority);
    }

    /// Records the end of a write. Returns the requests that waited for it.
    pub fn ended(&mut self, (kind, key): (Kind, &ObjectKey), priority: RequestPriority) -> Vec<ReconcileRequest> {
        let id = (kind, key.clone());
        let Some(writes) = self.0.get_mut(&id) else { return Vec::new() };
        if let Some(at) = writes.in_flight.iter().position(|other| *other == priority) {
            writes.in_flight.swap_remove(at);
        }
        let deferred = std::mem::take(&mut writes.deferred);
        if writes.in_flight.is_empty() {
            self.0.remove(&id);
        }
        deferred
    }

    /// Whether a write has to wait for another. If so, [`Self::ended`] of that one returns `request`.
    pub fn defer(
        &mut self,
        (kind, key): (Kind, &ObjectKey),
        priority: RequestPriority,
        request: &ReconcileRequest,
    ) -> bool {
        let Some(writes) = self.0.get_mut(&(kind, key.clone())) else { return false };
        let waits = writes.in_flight.iter().any(|other| priority.waits_for(*other));
        if waits && !writes.deferred.contains(request) {
            writes.deferred.push(request.clone());
        }
        waits
    }
}
