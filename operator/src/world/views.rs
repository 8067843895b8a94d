//! What is kept of each object: compact projections, made on arrival, so that a Mask with all its objects costs a few
//! hundred bytes rather than several kilobytes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use vpn_types::{
    MaskConsumerPhase, MaskPhase, MaskProviderPhase, MaskProviderVerificationStatus, MaskProviderVerifyOverridesSpec,
    MaskReservationPhase, Reason,
};

use super::{
    key::{ObjectKey, Uid},
    store::Versioned,
};

/// The tags of a Mask or a provider.
pub type Tags = Arc<[Arc<str>]>;

/// What every object has.
#[derive(Clone, Debug, PartialEq)]
pub struct Meta {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: Uid,
    /// `metadata.resourceVersion`.
    pub version: u64,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.creationTimestamp`.
    pub created: DateTime<Utc>,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Position of our finalizer in `metadata.finalizers`.
    pub finalizer: Option<u16>,
    /// Number of finalizers, ours among them.
    pub finalizers: u16,
    /// Whether the garbage collector's `foregroundDeletion` is among them.
    pub foreground: bool,
    /// Whether one is among them that is neither ours nor the garbage collector's.
    pub foreign: bool,
}

/// The `Ready` condition and a fingerprint of the rest, enough to know whether a status has to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusView<P> {
    /// `status.phase`.
    pub phase: Option<P>,
    /// Fingerprint of all that the operator writes there, timestamps apart.
    pub fingerprint: u64,
    /// `Ready` condition: its status, and since when.
    pub ready: Option<(bool, DateTime<Utc>)>,
    /// `status.observedGeneration`.
    pub observed_generation: Option<i64>,
}

/// A Mask.
#[derive(Clone, Debug)]
pub struct MaskView {
    /// Metadata.
    pub meta: Meta,
    /// `spec.providers`: any one of these tags; absent: any provider.
    pub tags: Option<Tags>,
    /// `spec.priority`.
    pub priority: i32,
    /// What it verifies, if it is a verification Mask that a provider made for itself.
    pub verifies: Option<Box<VerifiesView>>,
    /// Labels, which its consumer inherits.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
    /// Status.
    pub status: StatusView<MaskPhase>,
}

/// The marks of a Mask that verifies a provider: its name, its controlling owner and its label all say the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiesView {
    /// UID of the provider.
    pub provider: Uid,
    /// What is tried out (annotation).
    pub inputs: Option<VerifyInputs>,
}

/// What a verification tries out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyInputs {
    /// UID and resourceVersion of the Secret.
    pub secret_version: Arc<str>,
    /// Fingerprint of `spec.verify.overrides`.
    pub overrides: Arc<str>,
}

/// The slot that a consumer is committed to.
#[derive(Clone, Debug, PartialEq)]
pub struct Assigned {
    /// The provider.
    pub provider: ObjectKey,
    /// The provider's UID.
    pub provider_uid: Uid,
    /// The slot's number.
    pub slot: u32,
    /// UID of the reservation.
    pub reservation: Uid,
    /// Name of the copied Secret in the consumer's namespace.
    pub secret: Arc<str>,
}

/// The Mask that a consumer was made for.
#[derive(Clone, Debug, PartialEq)]
pub struct MadeFor {
    /// UID of the Mask.
    pub uid: Uid,
    /// Creation time of the Mask: the place in the queue.
    pub created: DateTime<Utc>,
}

/// What the `Ready` condition of a consumer says.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// Its status.
    pub ready: bool,
    /// Its reason.
    pub reason: Reason,
    /// Its message.
    pub message: Arc<str>,
}

/// A MaskConsumer.
#[derive(Clone, Debug)]
pub struct ConsumerView {
    /// Metadata.
    pub meta: Meta,
    /// UID of the controlling Mask by owner reference.
    pub owner: Option<Uid>,
    /// The Mask it was made for, as written by the masks controller. Absent: made by hand.
    pub mask: Option<MadeFor>,
    /// `spec.providers`.
    pub tags: Option<Tags>,
    /// `spec.priority`.
    pub priority: i32,
    /// `status.provider`: present once the assignment is committed.
    pub assigned: Option<Box<Assigned>>,
    /// Status.
    pub status: StatusView<MaskConsumerPhase>,
    /// `status.withdrawnReservation`: nothing can be committed to that one any more.
    pub withdrawn: Option<Uid>,
    /// What the `Ready` condition says, for the Mask to repeat.
    pub said: Option<Said>,
    /// Provider to which a verification Mask is bound (label).
    pub verifies: Option<Uid>,
}

/// A Pod that used a slot when its release began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotUserView {
    /// Name of the Pod, in the consumer's namespace.
    pub name: Arc<str>,
    /// UID of the Pod.
    pub uid: Uid,
    /// Node it was bound to.
    pub node: Option<Arc<str>>,
}

/// A MaskReservation.
#[derive(Clone, Debug)]
pub struct ReservationView {
    /// Metadata.
    pub meta: Meta,
    /// Provider name and slot as its own name tells them.
    pub slot: Option<(Arc<str>, u32)>,
    /// UID of the owning provider.
    pub provider_uid: Option<Uid>,
    /// The consumer that holds the slot.
    pub consumer: ObjectKey,
    /// Its UID.
    pub consumer_uid: Uid,
    /// `status.users`.
    pub users: Arc<[SlotUserView]>,
    /// `status.holdUntil`.
    pub hold_until: Option<DateTime<Utc>>,
    /// Status.
    pub status: StatusView<MaskReservationPhase>,
}

impl ReservationView {
    /// Whether it could not be decoded: it locks its slot, and says for whom to nobody.
    pub fn is_unreadable(&self) -> bool {
        self.consumer_uid.as_str().is_empty()
    }

    /// The provider's key.
    pub fn provider(&self) -> Option<ObjectKey> {
        let (name, _) = self.slot.as_ref()?;
        Some(ObjectKey { namespace: self.meta.key.namespace.clone(), name: name.clone() })
    }
}

/// A MaskProvider.
#[derive(Clone, Debug)]
pub struct ProviderView {
    /// Metadata.
    pub meta: Meta,
    /// Name of the credentials Secret in the provider's namespace.
    pub secret: Arc<str>,
    /// Names of the Secrets in `spec.slots`, by slot.
    pub slot_secrets: Arc<[Option<Arc<str>>]>,
    /// `spec.maxSlots`.
    pub max_slots: u32,
    /// `spec.tags`.
    pub tags: Tags,
    /// `spec.namespaces`; absent: any.
    pub namespaces: Option<Tags>,
    /// `spec.verify`; absent with `skip`.
    pub verify: Option<Arc<VerifyView>>,
    /// The `Verified` condition and `status.verification`.
    pub verified: VerifiedView,
    /// The `SharedCredentials` condition.
    pub shared: Option<SharedCondition>,
    /// `spec.release.delay`.
    pub release_delay: Duration,
    /// `spec.release.uncleanDelay`.
    pub unclean_delay: Duration,
    /// `status.assignmentGeneration`: the generation whose `maxSlots` a consumers controller in another process obeys.
    pub assignment_generation: Option<i64>,
    /// What is wrong with the spec, in words for users.
    pub invalid: Option<Arc<str>>,
    /// `status.message`.
    pub said: Option<Arc<str>>,
    /// Status.
    pub status: StatusView<MaskProviderPhase>,
}

/// How a provider wants to be verified.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifyView {
    /// `spec.verify.timeout`, if it is set.
    pub timeout: Option<Duration>,
    /// `spec.verify.interval`.
    pub interval: Option<Duration>,
    /// Whether `spec.verify.onFailure` is `Release`.
    pub release_on_failure: bool,
    /// `spec.verify.overrides`.
    pub overrides: MaskProviderVerifyOverridesSpec,
    /// Fingerprint of the overrides.
    pub overrides_hash: Arc<str>,
}

/// How the last verification went, as the status says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VerifiedView {
    /// The `Verified` condition.
    pub condition: Option<VerifiedCondition>,
    /// `status.lastVerified`.
    pub last: Option<DateTime<Utc>>,
    /// `status.verification`.
    pub status: MaskProviderVerificationStatus,
}

/// The `Verified` condition of a provider.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedCondition {
    /// `True`, `False`, or `Unknown` as `None`.
    pub passed: Option<bool>,
    /// Its reason.
    pub reason: Reason,
    /// Its message.
    pub message: Arc<str>,
    /// Since when its status is the same.
    pub since: DateTime<Utc>,
}

/// The `SharedCredentials` condition of a provider, which is there only while it is true.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedCondition {
    /// Its message.
    pub message: Arc<str>,
    /// Since when it is there.
    pub since: DateTime<Utc>,
}

impl ProviderView {
    /// Whether users may be assigned to it as far as its phase tells.
    pub fn is_usable(&self) -> bool {
        matches!(self.status.phase, Some(MaskProviderPhase::Ready | MaskProviderPhase::Active)) && !self.meta.deleting
    }

    /// Whether its status tells of the spec as it is now. `status.observedGeneration` moves only once the `maxSlots`
    /// of that generation is in force, that is, when no slot beyond it is held.
    pub fn is_current(&self) -> bool {
        self.status.observed_generation == Some(self.meta.generation)
    }
}

/// A Secret as far as its metadata goes: a copy of credentials beside a consumer.
#[derive(Clone, Debug)]
pub struct CopyView {
    /// Metadata.
    pub meta: Meta,
    /// UID of the owning MaskConsumer.
    pub consumer_uid: Option<Uid>,
    /// UID of the reservation it was made under (annotation).
    pub reservation: Option<Uid>,
    /// Fingerprint of the data it was made from (annotation).
    pub source_hash: Option<Arc<str>>,
    /// Whether it carries the label that our watch selects by.
    pub labelled: bool,
}

/// The keys and values of a credentials Secret.
pub type SecretData = Arc<BTreeMap<String, k8s_openapi::ByteString>>;

/// A provider's credentials, watched by name.
#[derive(Clone)]
pub struct SourceView {
    /// The data to copy.
    pub data: SecretData,
    /// Fingerprint of the data.
    pub hash: Arc<str>,
    /// UID and resourceVersion.
    pub version: Arc<str>,
    /// The version under which this very data was first seen: editing a label changes the version, not the data.
    pub data_since: Arc<str>,
}

/// What the watch on one named Secret says.
#[derive(Clone, Default)]
pub enum Source {
    /// Not known yet.
    #[default]
    Unknown,
    /// There is none.
    Missing,
    /// It cannot be watched; why, in words for users.
    Unreadable(Arc<str>),
    /// Here it is.
    Present(SourceView),
}

/// How far a Pod has come, as far as a slot is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodStage {
    /// Not bound to a node: nothing runs.
    Unbound,
    /// Bound, and its node has not said that nothing of it runs or will.
    Running,
    /// By the word of its node, nothing of it runs or will.
    Ended,
}

/// A Pod that references a Secret or is owned by a MaskConsumer.
#[derive(Clone, Debug)]
pub struct PodView {
    /// Metadata.
    pub meta: Meta,
    /// MaskConsumers among its owners.
    pub consumers: Box<[Uid]>,
    /// Whether something other than a MaskConsumer controls it, such as a ReplicaSet or a Job.
    pub is_of_workload: bool,
    /// Names of the Secrets that it references.
    pub secrets: Box<[Arc<str>]>,
    /// Node it is bound to.
    pub node: Option<Arc<str>>,
    /// How far it has come.
    pub stage: PodStage,
    /// `metadata.deletionTimestamp`: when its grace period ends.
    pub stop_by: Option<DateTime<Utc>>,
}

macro_rules! versioned {
    ($($view:ty),+) => {$(
        impl Versioned for $view {
            fn key(&self) -> &ObjectKey {
                &self.meta.key
            }
            fn uid(&self) -> &Uid {
                &self.meta.uid
            }
            fn version(&self) -> u64 {
                self.meta.version
            }
        }
    )+};
}

versioned!(
    MaskView,
    ConsumerView,
    ReservationView,
    ProviderView,
    CopyView,
    PodView,
    crate::verification::VerificationPod
);
