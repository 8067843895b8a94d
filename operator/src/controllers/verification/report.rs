//! The verification in a provider's status, computed from the stored status and the attempt in progress.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use vpn_types::{MaskProviderPhase, MaskProviderVerificationStatus, Reason};

use super::{
    attempt::{Attempt, is_ours, key_of},
    evaluate::VerificationResult,
    redact::redact,
    verification_state::{VerificationState, delay, is_current, is_data_of, revokes_pass, verification_state},
};
use crate::{
    controllers::ready::ReadyCondition,
    model::{Backoff, ObjectKey},
    state::{ClusterState, CredentialsView, ProviderView},
};

/// The verification part of a provider's status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The `Verified` condition; absent if verification is disabled.
    pub condition: Option<Verified>,
    /// `status.verification`.
    pub status: MaskProviderVerificationStatus,
    /// `status.lastVerified`.
    pub last_verified: Option<DateTime<Utc>>,
    /// Why slots cannot be assigned.
    pub gate: Option<ReadyCondition<MaskProviderPhase>>,
    /// A new result to record as an Event: whether it is a failure, its reason and its message.
    pub new_result: Option<(bool, Reason, String)>,
}

/// The `Verified` condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// `True`, `False`, or `Unknown` as `None`.
    pub passed: Option<bool>,
    /// Its reason.
    pub reason: Reason,
    /// Its message.
    pub message: String,
}

/// Returns the stored verification, for a Secret that cannot be read.
pub fn unchanged(provider: &ProviderView) -> Report {
    let stored = provider.verified.condition.as_ref().filter(|_| provider.verify.is_some());
    Report {
        condition: stored.map(|stored| Verified {
            passed: stored.passed,
            reason: stored.reason,
            message: stored.message.to_string(),
        }),
        status: provider.verified.status.clone(),
        last_verified: provider.verified.last_verified,
        gate: None,
        new_result: None,
    }
}

/// Returns the verification of a provider whose Secret exists.
pub fn report(
    state: &ClusterState,
    provider: &ProviderView,
    source: &CredentialsView,
    attempt: Option<&Attempt>,
    backoff: Option<&Backoff>,
    now: DateTime<Utc>,
) -> Report {
    let stored = unchanged(provider);
    let verification = verification_state(provider, source);
    if verification == VerificationState::Skipped {
        return stored;
    }
    // A result for an earlier Secret or earlier overrides does not apply.
    let unwritten = attempt.filter(|attempt| {
        stored.status.attempt.as_deref() != Some(attempt.mask.as_str())
            && is_current(attempt.inputs.as_ref(), provider, source)
    });
    if let Some(Attempt { mask, result: Some(result), .. }) = unwritten {
        return with_new_result(stored, provider, source, verification, mask.as_str(), result, now);
    }
    let mut report = without_new_result(stored, state, provider, source, backoff, now);
    // The same data with a new version: no verification is needed, but the version has to be known after a restart.
    if let Some(version) = &mut report.status.secret_version
        && verification != VerificationState::Unverified
        && is_data_of(source, version)
    {
        *version = source.version.to_string();
    }
    report
}

/// Returns the report with a new result.
fn with_new_result(
    mut report: Report,
    provider: &ProviderView,
    source: &CredentialsView,
    verification: VerificationState,
    mask: &str,
    result: &VerificationResult,
    now: DateTime<Utc>,
) -> Report {
    let status = &mut report.status;
    status.attempt = Some(mask.to_owned());
    status.secret_version = Some(source.version.to_string());
    status.overrides = provider.verify.as_ref().map(|verify| verify.overrides_hash.to_string());
    match result {
        VerificationResult::Passed(address) => {
            status.exit_address = Some(address.to_string());
            (status.failures, status.retry_at) = (None, None);
            let message = passed_message(Some(&address.to_string()));
            report.last_verified = Some(now);
            report.new_result = Some((false, Reason::Passed, message.clone()));
            report.condition = Some(Verified { passed: Some(true), reason: Reason::Passed, message });
        }
        VerificationResult::Failed { reason, message } => {
            let failures = match verification {
                VerificationState::Unverified => 1,
                _ => status.failures.unwrap_or(0).saturating_add(1),
            };
            let retry_at = now + TimeDelta::from_std(delay(failures)).unwrap_or_default();
            (status.failures, status.retry_at) = (Some(failures), DateTime::from_timestamp(retry_at.timestamp(), 0));
            let message =
                format!("{message}; will be tried again at {}", retry_at.to_rfc3339_opts(SecondsFormat::Secs, true));
            report.new_result = Some((true, *reason, message.clone()));
            let passed = match verification {
                VerificationState::Passed(_) if !revokes_pass(*reason) => Some(true),
                _ if *reason == Reason::DeviceLimit => None,
                _ => Some(false),
            };
            if passed != Some(true) {
                status.exit_address = None;
                report.gate = Some(gate(passed, *reason, &message));
            }
            report.condition = Some(Verified { passed, reason: *reason, message });
        }
    }
    report
}

fn passed_message(address: Option<&str>) -> String {
    format!("Connected; the public address of the VPN is {}", address.unwrap_or("unknown"))
}

fn gate(passed: Option<bool>, reason: Reason, message: &str) -> ReadyCondition<MaskProviderPhase> {
    let phase = if passed == Some(false) { MaskProviderPhase::ErrVerifyFailed } else { MaskProviderPhase::Verifying };
    ReadyCondition::not_ready(phase, reason, message)
}

/// Returns the report without a new result.
fn without_new_result(
    mut report: Report,
    state: &ClusterState,
    provider: &ProviderView,
    source: &CredentialsView,
    backoff: Option<&Backoff>,
    now: DateTime<Utc>,
) -> Report {
    let stored = provider.verified.condition.as_ref();
    let name = key_of(&provider.meta.key);
    let verification = verification_state(provider, source);
    let foreign = state.masks.get(&name).filter(|mask| !is_ours(mask, provider));
    let condition = match (verification, foreign, backoff) {
        (VerificationState::Skipped, _, _) => return report,
        (VerificationState::Passed(due), _, _) => {
            let failed_since = report.status.failures.is_some();
            let is_due = due.is_some_and(|at| at <= now);
            match stored {
                // The message of a failure that does not revoke the pass stays until the next result.
                Some(stored) if failed_since => {
                    Verified { passed: Some(true), reason: stored.reason, message: stored.message.to_string() }
                }
                _ if is_due => {
                    let message = "To be verified again when a slot is free and no Mask waits for it".to_owned();
                    Verified { passed: Some(true), reason: Reason::ReverificationPending, message }
                }
                _ => {
                    let message = passed_message(report.status.exit_address.as_deref());
                    Verified { passed: Some(true), reason: Reason::Passed, message }
                }
            }
        }
        (VerificationState::Unverified, Some(_), _) => {
            let message =
                format!("Mask {name} already exists and was not created by the operator; delete or rename it");
            Verified { passed: None, reason: Reason::VerificationNameTaken, message }
        }
        (VerificationState::Unverified, None, Some(backoff)) => {
            Verified { passed: None, reason: backoff.reason, message: backoff.message.clone() }
        }
        (VerificationState::Unverified, None, None) => {
            Verified { passed: None, reason: Reason::Verifying, message: progress_message(state, &name, source) }
        }
        (VerificationState::Failed(_), _, _) => match stored {
            Some(stored) => {
                Verified { passed: stored.passed, reason: stored.reason, message: stored.message.to_string() }
            }
            None => Verified { passed: Some(false), reason: Reason::NotVerified, message: String::new() },
        },
    };
    if !matches!(verification, VerificationState::Passed(_)) {
        report.gate = Some(gate(condition.passed, condition.reason, &condition.message));
    }
    report.condition = Some(condition);
    report
}

/// Returns the message for a first verification in progress. It changes only when something blocks the verification, so
/// that a successful one is reported once.
fn progress_message(state: &ClusterState, name: &ObjectKey, source: &CredentialsView) -> String {
    let pod = state.verification_pods.get(name);
    let blocked_by = pod.and_then(|pod| {
        let stuck = pod.stuck.as_ref().map(|stuck| format!("{}: {}", stuck.reason, stuck.message));
        stuck.or_else(|| pod.unscheduled.as_ref().map(|why| format!("not scheduled: {why}")))
    });
    if let Some(why) = blocked_by {
        return redact(&format!("Pod {} cannot verify the credentials yet: {why}", name.name), &source.data);
    }
    let condition = state.consumers.get(name).and_then(|consumer| consumer.ready_condition.as_ref());
    match condition.filter(|condition| !condition.ready) {
        Some(condition) => format!("Waiting for a slot to verify the credentials: {}", condition.message),
        None => format!("Pod {} is verifying the credentials", name.name),
    }
}
