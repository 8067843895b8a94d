//! The desired statuses. A status is written only when something other than its timestamps changes.
//! `lastTransitionTime` moves only when the status of the condition changes.

pub mod openvpn;

use chrono::{DateTime, SecondsFormat, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::Serialize;
use serde_json::{Value, json};
use vpn_types::{
    AssignedProvider, MaskConsumerPhase, MaskConsumerStatus, MaskPhase, MaskProviderPhase, MaskProviderStatus,
    MaskProviderVerificationStatus, MaskReservationPhase, MaskReservationStatus, READY, Reason, SHARED_CREDENTIALS,
    VERIFIED,
};

use crate::{
    controllers::{
        ready::ReadyCondition,
        verification::{Report, Verified},
    },
    model::{Meta, Uid},
    state::{Assigned, ProviderView, StatusView, fingerprint},
};

fn conditions<P>(
    condition: &ReadyCondition<P>,
    current: &StatusView<P>,
    generation: i64,
    now: DateTime<Utc>,
) -> Vec<Condition> {
    let since = match current.ready {
        Some((ready, since)) if ready == condition.ready => since,
        _ => now,
    };
    vec![one_condition(READY, Some(condition.ready), (condition.reason, &condition.message), generation, since)]
}

/// Returns a condition. Its status is `Unknown` without a value.
fn one_condition(
    type_: &str,
    status: Option<bool>,
    (reason, message): (Reason, &str),
    generation: i64,
    since: DateTime<Utc>,
) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: match status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        }
        .to_owned(),
        reason: reason.as_str().to_owned(),
        message: message.to_owned(),
        observed_generation: Some(generation),
        last_transition_time: Time(k8s_openapi::jiff::Timestamp::from_second(since.timestamp()).unwrap_or_default()),
    }
}

fn timestamp(now: DateTime<Utc>) -> String {
    now.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Returns the patch, or `None` if the status is up to date. `cleared` are fields to remove if they are absent from
/// `status`. With `guard`, the write fails if the object has changed since.
fn patch<S: Serialize, P>(
    status: &S,
    current: &StatusView<P>,
    cleared: &[&str],
    guard: Option<&Meta>,
) -> Option<Value> {
    if fingerprint(status) == current.fingerprint {
        return None;
    }
    let mut body = serde_json::to_value(status).unwrap_or_default();
    for field in cleared {
        if body.get(field).is_none() {
            body[*field] = Value::Null;
        }
    }
    Some(match guard {
        Some(meta) => json!({"metadata": {"resourceVersion": meta.version.to_string()}, "status": body}),
        None => json!({ "status": body }),
    })
}

fn provider_field(assigned: &Assigned) -> AssignedProvider {
    AssignedProvider {
        name: assigned.provider.name.to_string(),
        namespace: assigned.provider.namespace.to_string(),
        uid: assigned.provider_uid.to_string(),
        slot: assigned.slot as usize,
        reservation: assigned.reservation.to_string(),
        secret: assigned.secret.to_string(),
    }
}

/// Returns the patch for the status of a Mask.
pub fn mask(
    meta: &Meta,
    current: &StatusView<MaskPhase>,
    condition: &ReadyCondition<MaskPhase>,
    assigned: Option<&Assigned>,
    now: DateTime<Utc>,
) -> Option<Value> {
    let status = vpn_types::MaskStatus {
        phase: Some(condition.phase),
        message: Some(condition.message.clone()),
        last_updated: Some(timestamp(now)),
        provider: assigned.map(provider_field),
        observed_generation: Some(meta.generation),
        conditions: Some(conditions(condition, current, meta.generation, now)),
    };
    patch(&status, current, &["provider"], None)
}

/// Returns the patch for the status of a MaskConsumer. It is guarded by the resourceVersion, because it commits an
/// assignment.
pub fn consumer(
    meta: &Meta,
    current: &StatusView<MaskConsumerPhase>,
    condition: &ReadyCondition<MaskConsumerPhase>,
    assigned: Option<&Assigned>,
    now: DateTime<Utc>,
) -> Option<Value> {
    let status = MaskConsumerStatus {
        phase: Some(condition.phase),
        message: Some(condition.message.clone()),
        last_updated: Some(timestamp(now)),
        provider: assigned.map(provider_field),
        withdrawn_reservation: None,
        pod: None,
        observed_generation: Some(meta.generation),
        conditions: Some(conditions(condition, current, meta.generation, now)),
    };
    let cleared: &[_] = if assigned.is_some() { &["provider", "withdrawnReservation"] } else { &["provider"] };
    patch(&status, current, cleared, Some(meta))
}

/// Returns the status of a MaskConsumer that fences `withdrawn`: a commit to that reservation that is still in flight
/// fails. This write always changes the object, and so the resourceVersion that guards the commit.
pub fn fence(
    meta: &Meta,
    current: &StatusView<MaskConsumerPhase>,
    condition: &ReadyCondition<MaskConsumerPhase>,
    withdrawn: &Uid,
    now: DateTime<Utc>,
) -> Value {
    let status = MaskConsumerStatus {
        phase: Some(condition.phase),
        message: Some(condition.message.clone()),
        last_updated: Some(timestamp(now)),
        provider: None,
        withdrawn_reservation: Some(withdrawn.to_string()),
        pod: None,
        observed_generation: Some(meta.generation),
        conditions: Some(conditions(condition, current, meta.generation, now)),
    };
    json!({"metadata": {"resourceVersion": meta.version.to_string()}, "status": status})
}

/// Returns the patch for the status of a MaskReservation, without the fields that the consumers controller writes.
pub fn reservation(
    meta: &Meta,
    current: &StatusView<MaskReservationPhase>,
    condition: &ReadyCondition<MaskReservationPhase>,
    now: DateTime<Utc>,
) -> Option<Value> {
    let status = MaskReservationStatus {
        phase: Some(condition.phase),
        message: Some(condition.message.clone()),
        last_updated: Some(timestamp(now)),
        users: None,
        hold_until: None,
        observed_generation: Some(meta.generation),
        conditions: Some(conditions(condition, current, meta.generation, now)),
    };
    patch(&status, current, &[], Some(meta))
}

/// Returns the patch for the status of a MaskProvider. `observed` is the generation whose `maxSlots` is in force.
pub fn provider(
    provider: &ProviderView,
    condition: &ReadyCondition<MaskProviderPhase>,
    report: &Report,
    shared: Option<&str>,
    active_slots: usize,
    observed: Option<i64>,
    now: DateTime<Utc>,
) -> Option<Value> {
    let (meta, current) = (&provider.meta, &provider.status);
    let mut all = conditions(condition, current, meta.generation, now);
    all.extend(report.condition.as_ref().map(|condition| verified(condition, provider, now)));
    all.extend(shared.map(|message| shared_credentials(message, provider, now)));
    let status = MaskProviderStatus {
        phase: Some(condition.phase),
        message: Some(condition.message.clone()),
        last_updated: Some(timestamp(now)),
        last_verified: report.last_verified.map(timestamp),
        verification: (report.status != MaskProviderVerificationStatus::default()).then(|| report.status.clone()),
        active_slots: Some(active_slots),
        selector: Some(format!("{}={}", vpn_types::OWNER_LABEL, meta.uid)),
        observed_generation: observed,
        assignment_generation: None,
        conditions: Some(all),
    };
    let mut patch = patch(&status, current, &[], None)?;
    if let Some(fields) = patch.pointer_mut("/status/verification").and_then(Value::as_object_mut) {
        for field in ["exitAddress", "failures", "retryAt"] {
            fields.entry(field).or_insert(Value::Null);
        }
    }
    Some(patch)
}

fn verified(condition: &Verified, provider: &ProviderView, now: DateTime<Utc>) -> Condition {
    let before = provider.verified.condition.as_ref().filter(|before| before.passed == condition.passed);
    let since = before.map_or(now, |before| before.since);
    let said = (condition.reason, &*condition.message);
    one_condition(VERIFIED, condition.passed, said, provider.meta.generation, since)
}

fn shared_credentials(message: &str, provider: &ProviderView, now: DateTime<Utc>) -> Condition {
    let since = provider.shared.as_ref().map_or(now, |stored| stored.since);
    let said = (Reason::SharedCredentials, message);
    one_condition(SHARED_CREDENTIALS, Some(true), said, provider.meta.generation, since)
}

#[cfg(test)]
mod tests;
