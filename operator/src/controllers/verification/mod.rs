//! Verification: tests a provider's credentials with a real gluetun Pod, on a slot of the provider.
//!
//! The providers controller creates a Mask for the slot. Once the MaskConsumer is assigned, the controller creates the
//! Pod, follows gluetun's log, and writes the result to the provider's status. Only when the result is stored does it
//! delete the Mask; the ordinary release then removes Pod and slot.
//!
//! Invariants: a result applies to exactly the Secret and overrides that were tested (the Mask names them). An attempt
//! whose result is stored (by the Mask's UID) is never evaluated again; one whose result is not stored is evaluated
//! again after a restart.

mod attempt;
mod evaluate;
mod log;
mod pod;
mod redact;
mod report;
mod secrets_in_files;
mod settings;
mod verification_state;

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use vpn_types::{Mask, MaskProvider, MaskSpec, Reason, VERIFIES_ANNOTATION, VERIFY_LABEL};

pub use attempt::{Attempt, Attempts, Logs, key_of, provider_of};
use attempt::{StageStart, is_ours};
pub use evaluate::{Log, VerificationResult};
pub use report::{Report, Verified, report, unchanged};
pub use settings::{CURL_IMAGE, IP_SERVICES, Settings, VPN_IMAGE};
pub use verification_state::{VerificationState, admits_users, verification_state};

use crate::{
    gluetun::{CONTAINER, missing_login},
    model::{
        Backoff, Effect, EventRecord, Kind, NewObject, Now, ObjectKey, Operation, Propagation, Step, beginning, delete,
        object_reference,
    },
    state::{
        ClusterState, ConsumerView, CredentialsState, CredentialsView, MaskView, ProviderView, VerificationPod,
        VerifySpecView,
    },
};

/// The input of a decision.
pub struct VerificationContext<'a> {
    /// The cached state of the cluster.
    pub state: &'a ClusterState,
    /// Verifications in progress.
    pub attempts: &'a mut Attempts,
    /// Logs that are or were followed.
    pub logs: &'a mut Logs,
    /// Effects to carry out: logs to follow.
    pub effects: &'a mut Vec<Effect>,
    /// The last backoff.
    pub backoff: Option<&'a Backoff>,
    /// Settings of this installation.
    pub settings: &'a Settings,
    /// The current time.
    pub now: Now,
}

/// Returns the provider that a consumer verifies. The masks controller copies the label only from a Mask that the
/// provider itself created.
pub fn verified_by<'a>(state: &'a ClusterState, consumer: &ConsumerView) -> Option<&'a ProviderView> {
    let uid = consumer.verifies.as_ref()?;
    let provider = state.providers.get(&provider_of(&consumer.meta.key)?)?;
    (provider.meta.uid == *uid && consumer.owner.is_some()).then_some(provider)
}

/// Whether and when to verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Never,
    At(DateTime<Utc>),
    /// Now, before slots can be assigned.
    First,
    /// When no Mask waits for a slot.
    Again,
}

fn due(state: &ClusterState, provider: &ProviderView, now: DateTime<Utc>) -> Due {
    let CredentialsState::Present(source) = &state.account_credentials(provider) else { return Due::Never };
    let usable = provider.invalid.is_none() && provider.max_slots > 0 && provider.meta.finalizer.is_some();
    if provider.meta.deleting || !usable {
        return Due::Never;
    }
    match verification_state(provider, source) {
        VerificationState::Skipped | VerificationState::Passed(None) => Due::Never,
        VerificationState::Unverified => Due::First,
        VerificationState::Passed(Some(at)) if at <= now => Due::Again,
        VerificationState::Failed(at) if at <= now => Due::First,
        VerificationState::Passed(Some(at)) | VerificationState::Failed(at) => Due::At(at),
    }
}

/// Returns the next step for the verification of the provider of that name.
pub fn decide(ctx: &mut VerificationContext<'_>, key: &ObjectKey) -> Step {
    let state = ctx.state;
    let Some(provider) = state.providers.get(key) else { return Step::Idle };
    let due = due(state, provider, ctx.now.wall);
    match state.masks.get(&key_of(key)) {
        None => {
            ctx.attempts.remove(&provider.meta.uid);
            start_attempt(ctx, provider, due)
        }
        Some(mask) if !is_ours(mask, provider) || mask.meta.deleting => Step::Idle,
        Some(mask) => continue_attempt(ctx, provider, mask, due),
    }
}

fn start_attempt(ctx: &VerificationContext<'_>, provider: &ProviderView, due: Due) -> Step {
    let again = match due {
        Due::Never => return Step::Idle,
        Due::At(at) => return wait_until(at, ctx.now),
        Due::First => false,
        Due::Again => true,
    };
    if let Some(backoff) = ctx.backoff.filter(|backoff| backoff.is_active(ctx.now)) {
        return Step::WaitUntil(backoff.until);
    }
    let (Some(verify), CredentialsState::Present(source)) =
        (&provider.verify, &ctx.state.account_credentials(provider))
    else {
        return Step::Idle;
    };
    Step::send(create_mask(provider, verify, source, again))
}

/// Returns the operation that creates the Mask of a verification. A first verification comes before all Masks, which
/// could not be assigned anyway; a later one comes after all of them.
fn create_mask(provider: &ProviderView, verify: &VerifySpecView, source: &CredentialsView, again: bool) -> Operation {
    let key = key_of(&provider.meta.key);
    let priority = if again { i32::MIN } else { i32::MAX };
    let mut mask = Mask::new(&key.name, MaskSpec { priority: Some(priority), ..MaskSpec::default() });
    let meta = &mut mask.metadata;
    meta.namespace = Some(key.namespace.to_string());
    meta.labels = Some(
        [("app".to_owned(), "vpn-operator".to_owned()), (VERIFY_LABEL.to_owned(), provider.meta.uid.to_string())]
            .into(),
    );
    let inputs = format!("{} {}", source.version, verify.overrides_hash);
    meta.annotations = Some([(VERIFIES_ANNOTATION.to_owned(), inputs)].into());
    meta.owner_references = Some(vec![OwnerReference {
        api_version: MaskProvider::api_version(&()).into_owned(),
        kind: MaskProvider::kind(&()).into_owned(),
        name: provider.meta.key.name.to_string(),
        uid: provider.meta.uid.to_string(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }]);
    Operation::Create(key, NewObject::Mask(Box::new(mask)))
}

/// Returns the next step while the Mask exists.
fn continue_attempt(ctx: &mut VerificationContext<'_>, provider: &ProviderView, mask: &MaskView, due: Due) -> Step {
    let state = ctx.state;
    let is_stored = provider.verified.status.attempt.as_deref() == Some(mask.meta.uid.as_str());
    let account = state.account_credentials(provider);
    let (verify, source) = match (&provider.verify, &account) {
        // Not read yet, as after a start: no change is known.
        (Some(_), CredentialsState::Unknown | CredentialsState::Unreadable(_))
            if !provider.meta.deleting && !is_stored =>
        {
            return Step::Idle;
        }
        (Some(verify), CredentialsState::Present(source)) if matches!(due, Due::First | Due::Again) => (verify, source),
        _ => return delete_mask(mask),
    };
    let inputs = mask.verifies.as_ref().and_then(|verifies| verifies.inputs.as_ref());
    if is_stored || !verification_state::is_current(inputs, provider, source) {
        return delete_mask(mask);
    }
    let consumer = state
        .consumers
        .get(&mask.meta.key)
        .filter(|consumer| consumer.owner.as_ref() == Some(&mask.meta.uid) && !consumer.meta.deleting);
    let Some((consumer, assigned)) = consumer.and_then(|consumer| Some((consumer, consumer.assigned.as_ref()?))) else {
        return Step::Idle;
    };
    let attempt = ctx.attempts.entry(provider.meta.uid.clone()).or_insert_with(|| Attempt::of(mask));
    if attempt.mask != mask.meta.uid {
        *attempt = Attempt::of(mask);
    }
    if attempt.result.is_some() {
        return Step::Idle;
    }
    match state.verification_pods.get(&mask.meta.key) {
        Some(pod) if pod.consumer.as_ref() == Some(&consumer.meta.uid) => {
            attempt.pod = Some(pod.meta.uid.clone());
            if pod.meta.deleting {
                attempt.result = Some(interrupted());
                return Step::Idle;
            }
            follow_log(ctx, provider, verify, pod, assigned.slot)
        }
        // The Pod of the previous attempt is being deleted.
        Some(_) => Step::Idle,
        None if attempt.pod.is_some() => {
            attempt.result = Some(interrupted());
            Step::Idle
        }
        None => {
            if let Some(backoff) = ctx.backoff.filter(|backoff| backoff.is_active(ctx.now)) {
                return Step::WaitUntil(backoff.until);
            }
            let CredentialsState::Present(credentials) = state.slot_credentials(provider, assigned.slot) else {
                return Step::Idle;
            };
            match pod::build(provider, verify, consumer, &assigned.secret, &credentials.data, ctx.settings) {
                Ok(pod) => {
                    let create = Operation::Create(mask.meta.key.clone(), NewObject::Pod(Box::new(pod)));
                    Step::send(create).with_event(ignored_keys_event(provider, &credentials))
                }
                Err(why) => {
                    let why = format!("spec.verify.overrides.{why}");
                    attempt.result = Some(VerificationResult::failed(Reason::InvalidSpec, why));
                    Step::Idle
                }
            }
        }
    }
}

fn interrupted() -> VerificationResult {
    VerificationResult::failed(Reason::Interrupted, "The verification Pod was deleted before it finished")
}

/// Follows the log of each run of gluetun, and evaluates the attempt.
fn follow_log(
    ctx: &mut VerificationContext<'_>,
    provider: &ProviderView,
    verify: &VerifySpecView,
    pod: &VerificationPod,
    slot: u32,
) -> Step {
    let uid = &pod.meta.uid;
    if pod.has_log() && ctx.logs.get(uid).is_none_or(|(run, log)| *run != pod.vpn_restarts && log.ended) {
        let before = ctx.logs.remove(uid).map(|(_, log)| log.digest).unwrap_or_default();
        let missing = match ctx.state.slot_credentials(provider, slot) {
            CredentialsState::Present(credentials) => missing_login(&credentials.data),
            _ => Vec::new(),
        };
        let log = Log { digest: before, missing, ..Log::default() };
        ctx.logs.insert(uid.clone(), (pod.vpn_restarts, log));
        ctx.effects.push(Effect::FollowLog { key: pod.meta.key.clone(), uid: uid.clone(), container: CONTAINER });
    }
    let nothing = Log::default();
    let log = ctx.logs.get(uid).map_or(&nothing, |(_, log)| log);
    let timeout = verify.timeout.unwrap_or(ctx.settings.timeout);
    let attempt = ctx.attempts.get_mut(&provider.meta.uid);
    let known = attempt.as_ref().map_or(&[][..], |attempt| &attempt.stages);
    let stage = StageStart::of(known, evaluate::stage_start(pod), ctx.now);
    if let Some(attempt) = attempt.filter(|attempt| !attempt.stages.contains(&stage)) {
        attempt.stages.push(stage);
    }
    match evaluate::evaluate(pod, log, timeout, ctx.settings, stage.now(ctx.now)) {
        evaluate::Evaluation::InProgress(until) => Step::WaitUntil(stage.monotonic(until)),
        evaluate::Evaluation::Finished(result) => {
            let result = with_log(ctx.state, provider, slot, result, log);
            if let Some(attempt) = ctx.attempts.get_mut(&provider.meta.uid) {
                attempt.result = Some(result);
            }
            Step::Idle
        }
    }
}

/// The maximum length of a result message, in bytes.
const LONGEST_MESSAGE: usize = 1024;
/// The maximum length of a line of gluetun in it, in bytes.
const LONGEST_LINE: usize = 400;

/// Adds the last warnings and errors of gluetun to a result, without any value of the Secret.
fn with_log(
    state: &ClusterState,
    provider: &ProviderView,
    slot: u32,
    result: VerificationResult,
    log: &Log,
) -> VerificationResult {
    let VerificationResult::Failed { reason, message } = result else { return result };
    let mut text = message;
    if let Some(secret) = provider.slot_secret(slot) {
        text = format!("Slot {slot} with Secret {secret}: {text}");
    }
    // If the Secret is gone, nobody can tell what is secret in the log.
    if let CredentialsState::Present(credentials) = state.slot_credentials(provider, slot) {
        text = redact::redact(&text, &credentials.data);
        let redacted = |line| beginning(&redact::redact(line, &credentials.data), LONGEST_LINE).to_owned();
        let lines: Vec<_> = log.digest.problems().map(redacted).collect();
        if !lines.is_empty() {
            text = format!("{text}; gluetun: {}", lines.join(" | "));
        }
    }
    VerificationResult::Failed { reason, message: beginning(&text, LONGEST_MESSAGE).to_owned() }
}

/// Returns the result for a rejected Pod.
pub fn refused(reason: Reason, message: &str) -> VerificationResult {
    let reason = match reason {
        Reason::RequestFailed if message.contains("is invalid") => Reason::InvalidSpec,
        reason => reason,
    };
    let is_about_resources = reason == Reason::LimitRangeExceeded || message.contains("must specify");
    let hint = if is_about_resources {
        "; set requests and limits of the containers in the chart value verify.resources for all verifications, or in \
         spec.verify.overrides.containers for this MaskProvider"
    } else {
        ""
    };
    VerificationResult::failed(reason, format!("The verification Pod was rejected: {message}{hint}"))
}

/// Returns an Event about keys of the Secret that the Pod does not get.
fn ignored_keys_event(provider: &ProviderView, source: &CredentialsView) -> Option<EventRecord> {
    let keys = pod::skipped_keys(&source.data)?;
    Some(EventRecord {
        regarding: object_reference(Kind::Provider, &provider.meta.key, &provider.meta.uid),
        related: None,
        warning: true,
        reason: Reason::SecretKeysIgnored,
        action: "Verify",
        message: format!("The verification ignores these keys of Secret {}: {keys}", provider.secret),
    })
}

fn delete_mask(mask: &MaskView) -> Step {
    Step::send(delete(Kind::Mask, &mask.meta, Some(Propagation::Background)))
}

fn wait_until(at: DateTime<Utc>, now: Now) -> Step {
    Step::WaitUntil(now.monotonic + (at - now.wall).to_std().unwrap_or_default())
}
