//! Writes under way, by the object that they change, and what waits for them to end.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::model::{Kind, ObjectKey};
use crate::model::{ReconcileRequest, RequestPriority};

/// The writes under way.
#[derive(Clone, Default)]
pub struct WritesInFlight(HashMap<(Kind, ObjectKey), Writes>);

#[derive(Clone, Default)]
struct Writes {
    under_way: SmallVec<[RequestPriority; 1]>,
    /// To be decided anew once one has ended.
    deferred: Vec<ReconcileRequest>,
}

impl WritesInFlight {
    /// A write was sent.
    pub fn began(&mut self, (kind, key): (Kind, &ObjectKey), lane: RequestPriority) {
        self.0.entry((kind, key.clone())).or_default().under_way.push(lane);
    }

    /// It has ended. What waited for it is to be decided anew.
    pub fn ended(&mut self, (kind, key): (Kind, &ObjectKey), lane: RequestPriority) -> Vec<ReconcileRequest> {
        let id = (kind, key.clone());
        let Some(writes) = self.0.get_mut(&id) else { return Vec::new() };
        if let Some(at) = writes.under_way.iter().position(|other| *other == lane) {
            writes.under_way.swap_remove(at);
        }
        let deferred = std::mem::take(&mut writes.deferred);
        if writes.under_way.is_empty() {
            self.0.remove(&id);
        }
        deferred
    }

    /// Whether a write has to wait; `work` is then decided anew when it need not any more.
    pub fn defer(&mut self, (kind, key): (Kind, &ObjectKey), lane: RequestPriority, work: &ReconcileRequest) -> bool {
        let Some(writes) = self.0.get_mut(&(kind, key.clone())) else { return false };
        let waits = writes.under_way.iter().any(|other| lane.waits_for(*other));
        if waits && !writes.deferred.contains(work) {
            writes.deferred.push(work.clone());
        }
        waits
    }
}
