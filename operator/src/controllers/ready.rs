//! The `Ready` condition that an object should have.

use vpn_types::Reason;

/// What the `Ready` condition and the message say.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadyCondition<P> {
    /// Phase, from the closed set that clients know.
    pub phase: P,
    /// Status of the `Ready` condition.
    pub ready: bool,
    /// Reason of the condition.
    pub reason: Reason,
    /// Message, of the condition and of the status.
    pub message: String,
}

impl<P> ReadyCondition<P> {
    /// Ready.
    pub fn ready(phase: P, reason: Reason, message: impl Into<String>) -> Self {
        Self { phase, ready: true, reason, message: message.into() }
    }

    /// Not ready.
    pub fn not_ready(phase: P, reason: Reason, message: impl Into<String>) -> Self {
        Self { phase, ready: false, reason, message: message.into() }
    }
}
