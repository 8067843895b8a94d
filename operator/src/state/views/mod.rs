//! What is kept of each object: compact projections, made on arrival, so that a Mask with all its objects costs a few
//! hundred bytes rather than several kilobytes.

mod pod;
mod provider;
mod secret;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use vpn_types::{MaskConsumerPhase, MaskPhase, MaskReservationPhase, Reason};

pub use pod::*;
pub use provider::*;
pub use secret::*;

use super::store::Versioned;
use crate::model::{Kind, Meta, ObjectKey, ObjectReference, Uid, object_reference};

/// The tags of a Mask or a provider.
pub type Tags = Arc<[Arc<str>]>;

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
    pub verifies: Option<Box<VerificationTarget>>,
    /// Labels, which its consumer inherits.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
    /// Status.
    pub status: StatusView<MaskPhase>,
}

/// The marks of a Mask that verifies a provider: its name, its controlling owner and its label all say the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerificationTarget {
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
pub struct ConditionView {
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
    pub said: Option<ConditionView>,
    /// Provider to which a verification Mask is bound (label).
    pub verifies: Option<Uid>,
}

impl ConsumerView {
    /// The object on which users look for Events: the Mask where there is one, else the consumer itself.
    pub fn event_object(&self) -> ObjectReference {
        match &self.owner {
            Some(mask) => object_reference(Kind::Mask, &self.meta.key, mask),
            None => object_reference(Kind::Consumer, &self.meta.key, &self.meta.uid),
        }
    }
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

versioned!(MaskView, ConsumerView, ReservationView, ProviderView, CopyView, PodView, VerificationPod);
