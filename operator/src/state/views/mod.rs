//! Views: the compact form in which the cache keeps objects. With it, a Mask and its objects take a few hundred bytes
//! instead of several kilobytes.

mod injected_pod;
mod pod;
mod provider;
mod secret;
mod server;

use std::{cmp::Reverse, sync::Arc};

use chrono::{DateTime, Utc};
use vpn_types::{MaskConsumerPhase, MaskPhase, MaskReservationPhase, Reason};

pub use injected_pod::*;
pub use pod::*;
pub use provider::*;
pub use secret::*;
pub use server::*;

use super::store::Versioned;
use crate::model::{Kind, Meta, ObjectKey, ObjectReference, Uid, object_reference};

/// The tags of a Mask or a provider.
pub type Tags = Arc<[Arc<str>]>;

/// The `Ready` condition and a fingerprint of the rest, which is enough to decide whether to write a status.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusView<P> {
    /// `status.phase`.
    pub phase: Option<P>,
    /// The fingerprint of everything that the operator writes there, except timestamps.
    pub fingerprint: u64,
    /// The status of the `Ready` condition, and its last transition.
    pub ready: Option<(bool, DateTime<Utc>)>,
    /// `status.observedGeneration`.
    pub observed_generation: Option<i64>,
}

/// A Mask.
#[derive(Clone, Debug)]
pub struct MaskView {
    /// The metadata.
    pub meta: Meta,
    /// `spec.providers`: any of these tags; absent: any provider.
    pub tags: Option<Tags>,
    /// `spec.priority`.
    pub priority: i32,
    /// The provider that it verifies, if that provider created it.
    pub verifies: Option<Box<VerificationTarget>>,
    /// `spec.secretName`.
    pub secret_name: Option<Arc<str>>,
    /// The Pod that controls it.
    pub pod: Option<Box<PodOfMask>>,
    /// The labels, which its consumer inherits.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
    /// The status.
    pub status: StatusView<MaskPhase>,
}

/// The Pod that a Mask was created for.
#[derive(Clone, Debug, PartialEq)]
pub struct PodOfMask {
    /// The name of the Pod.
    pub name: Arc<str>,
    /// The UID of the Pod.
    pub uid: Uid,
    /// The `Ready` condition of the Mask, which the Pod repeats while there is no consumer.
    pub ready_condition: Option<ConditionView>,
}

/// The provider that a Mask verifies. The name, the controller reference and the label of the Mask agree on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerificationTarget {
    /// The UID of the provider.
    pub provider: Uid,
    /// The verified inputs, from an annotation.
    pub inputs: Option<VerifyInputs>,
}

/// The inputs of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyInputs {
    /// The UID and resourceVersion of the Secret.
    pub secret_version: Arc<str>,
    /// The fingerprint of `spec.verify.overrides`.
    pub overrides: Arc<str>,
}

/// The slot that a consumer is committed to.
#[derive(Clone, Debug, PartialEq)]
pub struct Assigned {
    /// The provider.
    pub provider: ObjectKey,
    /// The UID of the provider.
    pub provider_uid: Uid,
    /// The number of the slot.
    pub slot: u32,
    /// The UID of the reservation.
    pub reservation: Uid,
    /// The name of the copied Secret in the namespace of the consumer.
    pub secret: Arc<str>,
}

/// The Mask that a consumer was created for.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskReferenceView {
    /// The UID of the Mask.
    pub uid: Uid,
    /// The creation time of the Mask, which determines the queue position.
    pub created: DateTime<Utc>,
    /// The Pod that the Mask was created for.
    pub pod: Option<Box<SlotPodView>>,
}

/// The `Ready` condition of a consumer.
#[derive(Clone, Debug, PartialEq)]
pub struct ConditionView {
    /// The status of the condition.
    pub ready: bool,
    /// The reason of the condition.
    pub reason: Reason,
    /// The message of the condition.
    pub message: Arc<str>,
}

/// A MaskConsumer.
#[derive(Clone, Debug)]
pub struct ConsumerView {
    /// The metadata.
    pub meta: Meta,
    /// The UID of the Mask that owns it.
    pub owner: Option<Uid>,
    /// `spec.mask`: the Mask that the masks controller created it for; absent: a user created it.
    pub mask: Option<MaskReferenceView>,
    /// `spec.providers`.
    pub tags: Option<Tags>,
    /// `spec.priority`.
    pub priority: i32,
    /// `spec.secretName`.
    pub secret_name: Option<Arc<str>>,
    /// `status.pod`: the one of the Pods that share the Mask that may use the slot.
    pub pod: Option<Box<SlotPodView>>,
    /// `status.provider`; present when the assignment is committed.
    pub assigned: Option<Box<Assigned>>,
    /// The status.
    pub status: StatusView<MaskConsumerPhase>,
    /// `status.withdrawnReservation`: nothing can be committed to this reservation any more.
    pub withdrawn: Option<Uid>,
    /// The `Ready` condition, which the status of the Mask repeats.
    pub ready_condition: Option<ConditionView>,
    /// The UID of the provider that it verifies, from a label.
    pub verifies: Option<Uid>,
}

impl ConsumerView {
    /// Returns the Pod that its slot is for: the one that its Mask was created for, or of those that share it, the one
    /// that may use the slot.
    pub fn slot_pod(&self) -> Option<&SlotPodView> {
        let of_mask = self.mask.as_ref().and_then(|mask| mask.pod.as_deref());
        of_mask.or(self.pod.as_deref())
    }

    /// Whether it waits for a slot.
    pub fn is_waiting(&self) -> bool {
        self.assigned.is_none() && !self.meta.deleting
    }

    /// Returns its place in the order of a queue.
    pub fn rank(&self) -> Rank {
        Rank {
            priority: Reverse(self.priority),
            // The age of the Mask, not of the consumer: a recreated consumer keeps its queue position.
            created: self.mask.as_ref().map_or(self.meta.created, |mask| mask.created),
            name: self.meta.key.name.clone(),
            key: self.meta.key.clone(),
            uid: self.meta.uid.clone(),
        }
    }

    /// Whether a slot is assigned and not being released.
    pub fn is_active(&self) -> bool {
        self.assigned.is_some() && self.status.phase == Some(MaskConsumerPhase::Active) && !self.meta.deleting
    }

    /// Returns the object for Events: the Mask if there is one, else the consumer.
    pub fn event_object(&self) -> ObjectReference {
        match &self.owner {
            Some(mask) => object_reference(Kind::Mask, &self.meta.key, mask),
            None => object_reference(Kind::Consumer, &self.meta.key, &self.meta.uid),
        }
    }
}

/// The order in a queue: fields in the order of their weight.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Higher first.
    pub priority: Reverse<i32>,
    /// Creation time of the Mask (of the consumer if a user created it): older first.
    pub created: DateTime<Utc>,
    /// Name (then namespace) of the consumer.
    pub name: Arc<str>,
    /// The consumer.
    pub key: ObjectKey,
    /// UID of the consumer.
    pub uid: Uid,
}

/// The Pod that may use the slot of a Mask that Pods share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotPodView {
    /// The name of the Pod.
    pub name: Arc<str>,
    /// The UID of the Pod.
    pub uid: Uid,
}

/// A Pod that used a slot when its release began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotUserView {
    /// The name of the Pod in the namespace of the consumer.
    pub name: Arc<str>,
    /// The UID of the Pod.
    pub uid: Uid,
    /// The node that it was bound to.
    pub node: Option<Arc<str>>,
}

/// A MaskReservation.
#[derive(Clone, Debug)]
pub struct ReservationView {
    /// The metadata.
    pub meta: Meta,
    /// The provider and the slot, parsed from the name.
    pub slot: Option<(Arc<str>, u32)>,
    /// The UID of the provider that owns it.
    pub provider_uid: Option<Uid>,
    /// The consumer that holds the slot.
    pub consumer: ObjectKey,
    /// The UID of the consumer.
    pub consumer_uid: Uid,
    /// `status.users`.
    pub users: Arc<[SlotUserView]>,
    /// `status.holdUntil`.
    pub hold_until: Option<DateTime<Utc>>,
    /// The status.
    pub status: StatusView<MaskReservationPhase>,
}

impl ReservationView {
    /// Whether it could not be decoded. It locks its slot, but the consumer is unknown.
    pub fn is_unreadable(&self) -> bool {
        self.consumer_uid.as_str().is_empty()
    }

    /// Returns the key of the provider.
    pub fn provider(&self) -> Option<ObjectKey> {
        let (name, _) = self.slot.as_ref()?;
        Some(ObjectKey { namespace: self.meta.key.namespace.clone(), name: name.clone() })
    }
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
    VerificationPod,
    InjectedPod,
    ServerView,
    ClientView,
    ServerSecretView,
    ServerObject,
    ServerPodView
);
