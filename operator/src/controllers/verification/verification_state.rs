//! Where a provider stands with its verification, from what is stored alone.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use vpn_types::Reason;

use crate::state::{ClusterState, CredentialsState, CredentialsView, ProviderView, VerifyInputs};

/// First delay after a failure; it doubles each time. Failing logins get accounts banned.
pub const FIRST_DELAY: Duration = Duration::from_secs(30);
/// The longest delay.
pub const LONGEST_DELAY: Duration = Duration::from_secs(3600);

/// Where a provider stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerificationState {
    /// It does not want to be verified.
    Skipped,
    /// These credentials have not been tried, or came to no result.
    Unverified,
    /// They passed. When they are to be tried again, if ever.
    Passed(Option<DateTime<Utc>>),
    /// They failed. When they are to be tried again.
    Failed(DateTime<Utc>),
}

/// Where a provider stands with these credentials.
pub fn verification_state(provider: &ProviderView, source: &CredentialsView) -> VerificationState {
    let Some(verify) = &provider.verify else { return VerificationState::Skipped };
    let (stored, now_if_absent) = (&provider.verified.status, DateTime::<Utc>::MIN_UTC);
    if !stored.secret_version.as_deref().is_some_and(|version| is_data_of(source, version)) {
        return VerificationState::Unverified;
    }
    let same_overrides = stored.overrides.as_deref() == Some(&*verify.overrides_hash);
    let passed = provider.verified.condition.as_ref().map(|condition| condition.passed);
    match passed {
        None => VerificationState::Unverified,
        Some(Some(true)) if !same_overrides => VerificationState::Passed(Some(now_if_absent)),
        Some(Some(true)) => VerificationState::Passed(stored.retry_at.or_else(|| {
            let interval = TimeDelta::from_std(verify.interval?).ok()?;
            provider.verified.last_verified.unwrap_or(now_if_absent).checked_add_signed(interval)
        })),
        Some(Some(false) | None) if !same_overrides => VerificationState::Unverified,
        Some(Some(false) | None) => VerificationState::Failed(stored.retry_at.unwrap_or(now_if_absent)),
    }
}

/// Whether that version of the Secret had the data that it has now.
pub fn is_data_of(source: &CredentialsView, version: &str) -> bool {
    *source.version == *version || *source.data_since == *version
}

/// Whether users may be assigned, as far as verification goes.
pub fn admits_users(state: &ClusterState, provider: &ProviderView) -> bool {
    match &state.account_credentials(provider) {
        CredentialsState::Present(source) => {
            matches!(verification_state(provider, source), VerificationState::Skipped | VerificationState::Passed(_))
        }
        _ => false,
    }
}

/// Whether a Mask's verification is about what there is now.
pub fn is_current(inputs: Option<&VerifyInputs>, provider: &ProviderView, source: &CredentialsView) -> bool {
    let Some(verify) = &provider.verify else { return false };
    inputs.is_some_and(|inputs| is_data_of(source, &inputs.secret_version) && inputs.overrides == verify.overrides_hash)
}

/// How long to wait after so many failures in a row.
pub fn delay(failures: i32) -> Duration {
    FIRST_DELAY.saturating_mul(1 << failures.saturating_sub(1).clamp(0, 16)).min(LONGEST_DELAY)
}

/// Whether a failure says that the account cannot be used, so that one that was good before is good no longer.
pub fn condemns(reason: Reason) -> bool {
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
