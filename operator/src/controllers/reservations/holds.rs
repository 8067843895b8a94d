//! What the reservations controller remembers of holds.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};

use crate::model::Uid;

/// What is remembered of holds, by UID of the reservation. All times are monotonic.
pub type Holds = HashMap<Uid, Hold>;

/// A hold as this process knows it: whoever sets the wall clock neither ends nor prolongs one that is under way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hold {
    /// Since when the reservation is without its consumer, never having been committed.
    pub uncommitted_since: Option<Duration>,
    /// Since when the consumer has been giving the slot back.
    pub releasing_since: Option<Duration>,
    /// The deadline that was read, and when that is.
    pub deadline: Option<(DateTime<Utc>, Duration)>,
}
