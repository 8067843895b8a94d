//! Verification: tries out a provider's credentials with a real gluetun Pod, on a slot of its own.
//!
//! The providers controller makes a Mask for the slot; once its consumer has one, it makes the Pod, follows gluetun's
//! log, and writes the verdict into the provider's status. Only when that is stored does the Mask go, and with it, by
//! the ordinary release, Pod and slot.
//!
//! Invariants: a verdict is about the very Secret and overrides that were tried (the Mask says which); an attempt whose
//! verdict is stored (by the Mask's UID) is never judged again, one whose verdict is not is judged anew after a restart.

mod gluetun;
mod log;
mod overrides;
mod pod;
mod redact;
mod report;
mod secrets_in_files;
mod settings;
mod stand;
mod verdict;
mod view;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use vpn_types::{Mask, MaskProvider, MaskSpec, Reason, VERIFIES_ANNOTATION, VERIFY_LABEL, verify_name};

pub use overrides::{VPN, check_overrides};
pub use report::{Report, Verified, report, unchanged};
pub use settings::{CURL_IMAGE, IP_SERVICES, Settings, VPN_IMAGE};
pub use stand::{Stand, admits_users, stand};
pub use verdict::{Log, Verdict};
pub use view::VerificationPod;

use crate::{
    engine::{Effect, NewObject, Note, Now, Op, Propagation, Step, Trouble, delete, target},
    world::{
        ConsumerView, Kind, MaskView, ObjectKey, ProviderView, Source, SourceView, Uid, VerifyInputs, VerifyView, World,
    },
};

/// What has to be remembered of a verification under way. All of it can be lost: it is found out again.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// UID of its Mask.
    pub mask: Uid,
    /// What it tries out.
    pub inputs: Option<VerifyInputs>,
    /// The Pod was seen: if it is gone, somebody ended it.
    pub pod: Option<Uid>,
    /// The verdict, until it is stored.
    pub verdict: Option<Verdict>,
}

/// Verifications under way, by UID of the provider.
pub type Attempts = HashMap<Uid, Attempt>;

/// Gluetun's logs, by UID of the Pod, each with the run of the container that it is of.
pub type Logs = HashMap<Uid, (i32, Log)>;

/// What a decision works with.
pub struct Scene<'a> {
    /// All that is known.
    pub world: &'a World,
    /// Verifications under way.
    pub attempts: &'a mut Attempts,
    /// Logs that are followed, or were.
    pub logs: &'a mut Logs,
    /// Logs to begin to follow.
    pub effects: &'a mut Vec<Effect>,
    /// What went wrong last.
    pub trouble: Option<&'a Trouble>,
    /// Settings of this installation.
    pub settings: &'a Settings,
    /// The time.
    pub now: Now,
}

/// Name of the Mask, the MaskConsumer and the Pod.
pub fn key_of(provider: &ObjectKey) -> ObjectKey {
    ObjectKey { namespace: provider.namespace.clone(), name: verify_name(&provider.name).into() }
}

/// The provider that a Mask, MaskConsumer or Pod of that name would verify.
pub fn provider_of(key: &ObjectKey) -> Option<ObjectKey> {
    let name = key.name.strip_suffix("-verify")?;
    Some(ObjectKey { namespace: key.namespace.clone(), name: name.into() })
}

/// The provider that a consumer verifies. The masks controller hands the label on only from a Mask that the provider
/// itself made.
pub fn verified_by<'a>(world: &'a World, consumer: &ConsumerView) -> Option<&'a ProviderView> {
    let uid = consumer.verifies.as_ref()?;
    let provider = world.providers.get(&provider_of(&consumer.meta.key)?)?;
    (provider.meta.uid == *uid && consumer.owner.is_some()).then_some(provider)
}

/// Whether and when to verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Never,
    At(DateTime<Utc>),
    /// Before users may be assigned.
    First,
    /// When nobody waits.
    Again,
}

fn want(world: &World, provider: &ProviderView, now: DateTime<Utc>) -> Want {
    let Source::Present(source) = &world.account(provider) else { return Want::Never };
    let usable = provider.invalid.is_none() && provider.max_slots > 0 && provider.meta.finalizer.is_some();
    if provider.meta.deleting || !usable {
        return Want::Never;
    }
    match stand(provider, source) {
        Stand::Skipped | Stand::Passed(None) => Want::Never,
        Stand::Untried => Want::First,
        Stand::Passed(Some(at)) if at <= now => Want::Again,
        Stand::Failed(at) if at <= now => Want::First,
        Stand::Passed(Some(at)) | Stand::Failed(at) => Want::At(at),
    }
}

/// The next step for the verification of the provider of that name.
pub fn decide(scene: &mut Scene<'_>, key: &ObjectKey) -> Step {
    let world = scene.world;
    let Some(provider) = world.providers.get(key) else { return Step::Idle };
    let want = want(world, provider, scene.now.wall);
    match world.masks.get(&key_of(key)) {
        None => {
            scene.attempts.remove(&provider.meta.uid);
            begin(scene, provider, want)
        }
        Some(mask) if !is_ours(mask, provider) || mask.meta.deleting => Step::Idle,
        Some(mask) => go_on(scene, provider, mask, want),
    }
}

fn is_ours(mask: &MaskView, provider: &ProviderView) -> bool {
    mask.verifies.as_ref().is_some_and(|verifies| verifies.provider == provider.meta.uid)
}

fn begin(scene: &Scene<'_>, provider: &ProviderView, want: Want) -> Step {
    let again = match want {
        Want::Never => return Step::Idle,
        Want::At(at) => return wait_until(at, scene.now),
        Want::First => false,
        Want::Again => true,
    };
    if let Some(trouble) = scene.trouble.filter(|trouble| trouble.is_active(scene.now)) {
        return Step::WaitUntil(trouble.until);
    }
    let (Some(verify), Source::Present(source)) = (&provider.verify, &scene.world.account(provider)) else {
        return Step::Idle;
    };
    Step::send(ask_for_slot(provider, verify, source, again))
}

/// The Mask of a verification. The first one goes before users, who could not be assigned anyway; a later one after all
/// of them.
fn ask_for_slot(provider: &ProviderView, verify: &VerifyView, source: &SourceView, again: bool) -> Op {
    let key = key_of(&provider.meta.key);
    let priority = if again { i32::MIN } else { i32::MAX };
    let mut mask = Mask::new(&key.name, MaskSpec { providers: None, priority: Some(priority) });
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
    Op::Create(key, NewObject::Mask(Box::new(mask)))
}

/// While the Mask exists.
fn go_on(scene: &mut Scene<'_>, provider: &ProviderView, mask: &MaskView, want: Want) -> Step {
    let world = scene.world;
    let is_judged = provider.verified.status.attempt.as_deref() == Some(mask.meta.uid.as_str());
    let account = world.account(provider);
    let (verify, source) = match (&provider.verify, &account) {
        // Not read yet, as after a start: nothing is known to have changed.
        (Some(_), Source::Unknown | Source::Unreadable(_)) if !provider.meta.deleting && !is_judged => {
            return Step::Idle;
        }
        (Some(verify), Source::Present(source)) if matches!(want, Want::First | Want::Again) => (verify, source),
        _ => return give_back(mask),
    };
    let inputs = mask.verifies.as_ref().and_then(|verifies| verifies.inputs.as_ref());
    if is_judged || !stand::is_current(inputs, provider, source) {
        return give_back(mask);
    }
    let consumer = world
        .consumers
        .get(&mask.meta.key)
        .filter(|consumer| consumer.owner.as_ref() == Some(&mask.meta.uid) && !consumer.meta.deleting);
    let Some((consumer, assigned)) = consumer.and_then(|consumer| Some((consumer, consumer.assigned.as_ref()?))) else {
        return Step::Idle;
    };
    let attempt = scene.attempts.entry(provider.meta.uid.clone()).or_insert_with(|| Attempt::of(mask));
    if attempt.mask != mask.meta.uid {
        *attempt = Attempt::of(mask);
    }
    if attempt.verdict.is_some() {
        return Step::Idle;
    }
    match world.verification_pods.get(&mask.meta.key) {
        Some(pod) if pod.consumer.as_ref() == Some(&consumer.meta.uid) => {
            attempt.pod = Some(pod.meta.uid.clone());
            if pod.meta.deleting {
                attempt.verdict = Some(interrupted());
                return Step::Idle;
            }
            follow(scene, provider, verify, pod, assigned.slot)
        }
        // That of the previous attempt is going.
        Some(_) => Step::Idle,
        None if attempt.pod.is_some() => {
            attempt.verdict = Some(interrupted());
            Step::Idle
        }
        None => {
            if let Some(trouble) = scene.trouble.filter(|trouble| trouble.is_active(scene.now)) {
                return Step::WaitUntil(trouble.until);
            }
            let Source::Present(credentials) = world.credentials(provider, assigned.slot) else { return Step::Idle };
            match pod::build(provider, verify, consumer, &assigned.secret, &credentials.data, scene.settings) {
                Ok(pod) => {
                    let create = Op::Create(mask.meta.key.clone(), NewObject::Pod(Box::new(pod)));
                    Step::send(create).with_note(ignored_keys(provider, &credentials))
                }
                Err(why) => {
                    let why = format!("spec.verify.overrides.{why}");
                    attempt.verdict = Some(Verdict::failed(Reason::InvalidSpec, why));
                    Step::Idle
                }
            }
        }
    }
}

impl Attempt {
    fn of(mask: &MaskView) -> Self {
        let inputs = mask.verifies.as_ref().and_then(|verifies| verifies.inputs.clone());
        Self { mask: mask.meta.uid.clone(), inputs, pod: None, verdict: None }
    }
}

fn interrupted() -> Verdict {
    Verdict::failed(Reason::Interrupted, "the verification Pod was deleted before it came to an end")
}

/// Reads the log of each run of gluetun, and judges.
fn follow(
    scene: &mut Scene<'_>,
    provider: &ProviderView,
    verify: &VerifyView,
    pod: &VerificationPod,
    slot: u32,
) -> Step {
    let uid = &pod.meta.uid;
    if pod.has_log() && scene.logs.get(uid).is_none_or(|(run, log)| *run != pod.vpn_restarts && log.ended) {
        let before = scene.logs.remove(uid).map(|(_, log)| log.digest).unwrap_or_default();
        let missing = match scene.world.credentials(provider, slot) {
            Source::Present(credentials) => gluetun::missing_login(&credentials.data),
            _ => Vec::new(),
        };
        let log = Log { digest: before, missing, ..Log::default() };
        scene.logs.insert(uid.clone(), (pod.vpn_restarts, log));
        scene.effects.push(Effect::FollowLog { key: pod.meta.key.clone(), uid: uid.clone(), container: VPN });
    }
    let nothing = Log::default();
    let log = scene.logs.get(uid).map_or(&nothing, |(_, log)| log);
    let timeout = verify.timeout.unwrap_or(scene.settings.timeout);
    match verdict::judge(pod, log, timeout, scene.settings, scene.now.wall) {
        verdict::Progress::Going(until) => wait_until(until, scene.now),
        verdict::Progress::Done(verdict) => {
            let verdict = with_log(scene.world, provider, slot, verdict, log);
            if let Some(attempt) = scene.attempts.get_mut(&provider.meta.uid) {
                attempt.verdict = Some(verdict);
            }
            Step::Idle
        }
    }
}

/// Longest message of a verdict, in bytes.
const LONGEST_MESSAGE: usize = 1024;

/// The verdict with the last warnings and errors of gluetun, without any value of the Secret.
fn with_log(world: &World, provider: &ProviderView, slot: u32, verdict: Verdict, log: &Log) -> Verdict {
    let Verdict::Failed { reason, message } = verdict else { return verdict };
    let mut text = message;
    if let Some(secret) = provider.slot_secret(slot) {
        text = format!("slot {slot}, with Secret {secret}: {text}");
    }
    let said: Vec<_> = log.digest.complaints().collect();
    if !said.is_empty() {
        text = format!("{text}; gluetun: {}", said.join(" | "));
    }
    if let Source::Present(credentials) = world.credentials(provider, slot) {
        text = redact::redact(&text, &credentials.data);
    }
    let mut end = text.len().min(LONGEST_MESSAGE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    Verdict::Failed { reason, message: text }
}

/// The verdict when the Pod was refused.
pub fn refused(reason: Reason, message: &str) -> Verdict {
    let reason = match reason {
        Reason::RequestFailed if message.contains("is invalid") => Reason::InvalidSpec,
        reason => reason,
    };
    let is_about_resources = reason == Reason::LimitRangeExceeded || message.contains("must specify");
    let hint = if is_about_resources {
        "; set requests and limits of the containers for all verifications with the chart's value verify.resources, or \
         for this MaskProvider in spec.verify.overrides.containers"
    } else {
        ""
    };
    Verdict::failed(reason, format!("the verification Pod was refused: {message}{hint}"))
}

/// Tells of keys of the Secret that the Pod does not get.
fn ignored_keys(provider: &ProviderView, source: &SourceView) -> Option<Note> {
    let keys = pod::skipped_keys(&source.data)?;
    Some(Note {
        regarding: target(Kind::Provider, &provider.meta.key, &provider.meta.uid),
        related: None,
        warning: true,
        reason: Reason::SecretKeysIgnored,
        action: "Verify",
        message: format!("the verification ignores these keys of Secret {}: {keys}", provider.secret),
    })
}

fn give_back(mask: &MaskView) -> Step {
    Step::send(delete(Kind::Mask, &mask.meta, Some(Propagation::Background)))
}

fn wait_until(at: DateTime<Utc>, now: Now) -> Step {
    Step::WaitUntil(now.monotonic + (at - now.wall).to_std().unwrap_or_default())
}
