//! Counters for metrics.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

/// What one call of the engine counted.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    reconciliations: HashMap<&'static str, u64>,
    /// The creation times of the MaskConsumers whose slot was just assigned.
    pub assigned: Vec<DateTime<Utc>>,
}

impl Counters {
    /// Counts a reconciliation.
    pub fn reconciled(&mut self, controller: &'static str) {
        *self.reconciliations.entry(controller).or_default() += 1;
    }

    /// The number of reconciliations of a controller.
    pub fn reconciliations(&self, controller: &str) -> u64 {
        self.reconciliations.get(controller).copied().unwrap_or(0)
    }
}
