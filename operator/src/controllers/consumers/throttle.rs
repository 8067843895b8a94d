//! Limits how often the statuses of waiting consumers are written.

use std::time::Duration;

use crate::model::Now;

/// A rate limiter: allows one rewrite of a waiting status in each `INTERVAL`. The Mask follows its consumer, which
/// doubles the writes.
#[derive(Clone, Debug)]
pub struct Throttle {
    next: Duration,
}

impl Throttle {
    const INTERVAL: Duration = Duration::from_millis(450);

    /// Returns a limiter that allows a rewrite at once.
    pub fn new() -> Self {
        Self { next: Duration::ZERO }
    }

    /// Allows a rewrite, or returns the time of the next one.
    pub fn take(&mut self, now: Now) -> Result<(), Duration> {
        if now.monotonic < self.next {
            return Err(self.next);
        }
        self.next = now.monotonic + Self::INTERVAL;
        Ok(())
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}
