//! The verification state of a provider, from its status alone.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use vpn_types::Reason;

use crate::state::{ClusterState, CredentialsState, CredentialsView, ProviderView, VerifyInputs};

/// The first delay after a failure. It doubles each time, because failed logins can get an account banned.
pub const FIRST_DELAY: Duration = Duration::from_secs(30);
/// The maximum delay.
pub const LONGEST_DELAY: Duration = Duration::from_secs(3600);

/// The verification state of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerificationState {
    /// Verification is disabled.
    Skipped,
    /// These credentials have not been verified.
    Unverified,
    /// The credentials passed. The time is when to verify again, if ever.
    Passed(Option<DateTime<Utc>>),
    /// The credentials failed. The time is when to retry.
    Failed(DateTime<Utc>),
}

/// Returns the verification state of a provider with these credentials.
pub fn verification_state(provider: &ProviderView, source: &CredentialsView) -> VerificationState {
    let Some(verify) = &provider.verify else { return VerificationState::Skipped };
    let (status, now_if_absent) = (&provider.verified.status, DateTime::<Utc>::MIN_UTC);
    if !status.secret_version.as_deref().is_some_and(|version| is_data_of(source, version)) {
        return VerificationState::Unverified;
    }
    let same_overrides = status.overrides.as_deref() == Some(&*verify.overrides_hash);
    let passed = provider.verified.condition.as_ref().map(|condition| condition.passed);
    match passed {
        None => VerificationState::Unverified,
        Some(Some(true)) if !same_overrides => VerificationState::Passed(Some(now_if_absent)),
        Some(Some(true)) => VerificationState::Passed(status.retry_at.or_else(|| {
            let interval = TimeDelta::from_std(verify.interval?).ok()?;
            provider.verified.last_verified.unwrap_or(now_if_absent).checked_add_signed(interval)
        })),
        Some(Some(false) | None) if !same_overrides => VerificationState::Unverified,
        Some(Some(false) | None) => VerificationState::Failed(status.retry_at.unwrap_or(now_if_absent)),
    }
}

/// Whether that version of the Secret had the current data.
pub fn is_data_of(source: &CredentialsView, version: &str) -> bool {
    *source.version == *version || *source.data_since == *version
}

/// Whether verification permits the assignment of slots.
pub fn admits_users(state: &ClusterState, provider: &ProviderView) -> bool {
    match &state.account_credentials(provider) {
        CredentialsState::Present(source) => {
            matches!(verification_state(provider, source), VerificationState::Skipped | VerificationState::Passed(_))
        }
        _ => false,
    }
}

/// Whether a verification applies to the current Secret and overrides.
pub fn is_current(inputs: Option<&VerifyInputs>, provider: &ProviderView, source: &CredentialsView) -> bool {
    let Some(verify) = &provider.verify else { return false };
    inputs.is_some_and(|inputs| is_data_of(source, &inputs.secret_version) && inputs.overrides == verify.overrides_hash)
}

/// Returns the delay after this number of consecutive failures.
pub fn delay(failures: i32) -> Duration {
    FIRST_DELAY.saturating_mul(1 << failures.saturating_sub(1).clamp(0, 16)).min(LONGEST_DELAY)
}

/// Whether a failure proves that the account cannot be used, and so revokes an earlier pass.
pub fn revokes_pass(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::CredentialsRejected
            | Reason::NoServer
            | Reason::ConfigInvalid
            | Reason::NoHandshake
            | Reason::TunUnavailable
            | Reason::SameAddress
            | Reason::Timeout
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_an_hour() {
        let delays: Vec<_> = (1..=9).map(|failures| delay(failures).as_secs()).collect();
        assert_eq!(delays, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert_eq!(delay(i32::MAX), LONGEST_DELAY);
    }
}
