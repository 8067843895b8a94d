//! Exponential backoff of requests that failed.

use std::time::Duration;

use vpn_types::Reason;

use super::Now;

/// Why requests for an object are delayed, and until when.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    /// The reason, from the closed set.
    pub reason: Reason,
    /// The message for users.
    pub message: String,
    /// The time of the next attempt (monotonic).
    pub until: Duration,
    /// The number of consecutive failures.
    pub failures: u32,
    /// Whether every request for this object has to wait. If not, the controller decides which of them wait.
    pub gate: bool,
}

impl Backoff {
    /// The delay after the first failure. Each further failure doubles it.
    const FIRST_DELAY: Duration = Duration::from_millis(500);
    /// This many consecutive requests without a response count as a rejection.
    pub const TOO_MANY_UNKNOWN: u32 = 2;
    /// The maximum delay.
    const LONGEST_DELAY: Duration = Duration::from_secs(60);

    /// The backoff after one more failure.
    pub fn after(previous: Option<&Backoff>, reason: Reason, message: String, now: Now) -> Self {
        let failures = previous.map_or(0, |backoff| backoff.failures).saturating_add(1);
        let delay = Self::FIRST_DELAY.saturating_mul(1 << (failures - 1).min(16)).min(Self::LONGEST_DELAY);
        Self { reason, message, until: now.monotonic + delay, failures, gate: true }
    }

    /// Leaves it to the controller which requests wait.
    pub fn without_gate(mut self) -> Self {
        self.gate = false;
        self
    }

    /// Whether users should see it. A single request without a response usually resolves itself.
    pub fn should_be_reported(&self) -> bool {
        self.reason != Reason::RequestFailed || self.failures >= Self::TOO_MANY_UNKNOWN
    }

    /// Whether the time of the next attempt has not come yet.
    pub fn is_active(&self, now: Now) -> bool {
        self.until > now.monotonic
    }
}
