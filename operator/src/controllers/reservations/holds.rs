//! State of the reservations controller about holds.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};

use crate::model::Uid;

/// Holds by UID of the reservation. All times are monotonic.
pub type Holds = HashMap<Uid, Hold>;

/// A hold as this process knows it. Setting the wall clock neither ends nor extends a hold in progress.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hold {
    /// Since when the consumer of the reservation, which was never committed, is gone.
    pub uncommitted_since: Option<Duration>,
    /// Since when the consumer has been releasing the slot.
    pub releasing_since: Option<Duration>,
    /// The stored deadline, and its monotonic time.
    pub deadline: Option<(DateTime<Utc>, Duration)>,
}
