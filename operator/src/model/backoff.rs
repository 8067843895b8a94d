//! Requests that failed are tried again with growing delays.

use std::time::Duration;

use vpn_types::Reason;

use super::Now;

/// Why work on an object is held back for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    /// From the closed set.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// When to try again (monotonic).
    pub until: Duration,
    /// How often in a row.
    pub failures: u32,
    /// Whether every request for this object has to wait, or just the assignment (which is undone meanwhile).
    pub gate: bool,
}

impl Backoff {
    /// First delay after a refusal; it doubles each time.
    const FIRST_DELAY: Duration = Duration::from_millis(500);
    /// From that many requests without an answer in a row on, it is taken for a refusal.
    pub const TOO_MANY_UNKNOWN: u32 = 2;
    /// The longest delay.
    const LONGEST_DELAY: Duration = Duration::from_secs(60);

    /// The backoff after one more failure.
    pub fn after(previous: Option<&Backoff>, reason: Reason, message: String, now: Now) -> Self {
        let failures = previous.map_or(0, |backoff| backoff.failures).saturating_add(1);
        let delay = Self::FIRST_DELAY.saturating_mul(1 << (failures - 1).min(16)).min(Self::LONGEST_DELAY);
        Self { reason, message, until: now.monotonic + delay, failures, gate: true }
    }

    /// Holds back the assignment only, not what undoes it.
    pub fn without_gate(mut self) -> Self {
        self.gate = false;
        self
    }

    /// Whether people should hear of it: a single request without an answer passes by itself.
    pub fn is_worth_telling(&self) -> bool {
        self.reason != Reason::RequestFailed || self.failures >= Self::TOO_MANY_UNKNOWN
    }

    /// Whether it is not yet time to try again.
    pub fn is_active(&self, now: Now) -> bool {
        self.until > now.monotonic
    }
}
