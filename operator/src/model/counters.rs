//! What happened, for metrics.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

/// What one call of the engine did.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    reconciliations: HashMap<&'static str, u64>,
    /// Creation times of the MaskConsumers that turned out to have their slot now.
    pub assigned: Vec<DateTime<Utc>>,
}

impl Counters {
    /// A controller looked at an object.
    pub fn reconciled(&mut self, controller: &'static str) {
        *self.reconciliations.entry(controller).or_default() += 1;
    }

    /// How often a controller looked at an object.
    pub fn reconciliations(&self, controller: &str) -> u64 {
        self.reconciliations.get(controller).copied().unwrap_or(0)
    }
}
