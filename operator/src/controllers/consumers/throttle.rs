//! Limits how often what waiting consumers say is rewritten.

use std::time::Duration;

use crate::model::Now;

/// A token bucket: at most `RATE` rewrites of waiting statuses a second. The Mask follows its consumer, which doubles
/// them.
#[derive(Clone, Debug)]
pub struct Throttle {
    next: Duration,
}

impl Throttle {
    const INTERVAL: Duration = Duration::from_millis(450);

    /// No token taken yet.
    pub fn new() -> Self {
        Self { next: Duration::ZERO }
    }

    /// Takes the token for a rewrite, or says when there is one.
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
