//! State of the reservations controller. All of it can be lost: after a restart, holds are read from the statuses.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};

use crate::{controllers::throttle::Throttle, model::Uid};

/// State of the reservations controller.
#[derive(Clone)]
pub struct Memory {
    /// Holds by UID of the reservation.
    pub holds: HashMap<Uid, Hold>,
    /// Limits how often a status reports a release that nobody has to act on.
    pub releases: Throttle,
}

impl Default for Memory {
    fn default() -> Self {
        Self { holds: HashMap::new(), releases: Throttle::new(Duration::from_millis(200)) }
    }
}

/// A hold as this process knows it. All times are monotonic, so setting the wall clock neither ends nor extends a hold in
/// progress.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hold {
    /// Since when the consumer of the reservation, which was never committed, is gone.
    pub uncommitted_since: Option<Duration>,
    /// Since when the consumer has been releasing the slot.
    pub releasing_since: Option<Duration>,
    /// The stored deadline, and its monotonic time.
    pub deadline: Option<(DateTime<Utc>, Duration)>,
}
