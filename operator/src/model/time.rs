//! The time as a decision sees it.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// The time. Stored deadlines and timestamps are wall clock; everything that only this process waits for is monotonic,
/// so a clock that is set back or forth changes no wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Wall clock.
    pub wall: DateTime<Utc>,
    /// Time since the process started.
    pub monotonic: Duration,
}
