//! The current time.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// The current time. Stored deadlines and timestamps use the wall clock. Delays inside this process use the monotonic
/// clock, so a change of the wall clock does not affect them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The wall clock.
    pub wall: DateTime<Utc>,
    /// The time since the process started.
    pub monotonic: Duration,
}
