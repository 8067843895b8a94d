//! The desired `Ready` condition of an object.

use vpn_types::Reason;

/// Phase, message and `Ready` condition of a status.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadyCondition<P> {
    /// Phase.
    pub phase: P,
    /// Status of the `Ready` condition.
    pub ready: bool,
    /// Reason of the condition.
    pub reason: Reason,
    /// Message of the condition and of the status.
    pub message: String,
}

impl<P> ReadyCondition<P> {
    /// Returns a condition with the status `True`.
    pub fn ready(phase: P, reason: Reason, message: impl Into<String>) -> Self {
        Self { phase, ready: true, reason, message: message.into() }
    }

    /// Returns a condition with the status `False`.
    pub fn not_ready(phase: P, reason: Reason, message: impl Into<String>) -> Self {
        Self { phase, ready: false, reason, message: message.into() }
    }
}
