//! The view of a MaskProvider.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use vpn_types::{MaskProviderPhase, MaskProviderVerificationStatus, MaskProviderVerifyOverridesSpec, Reason};

use super::{StatusView, Tags};
use crate::model::{Meta, Uid};

/// A MaskProvider.
#[derive(Clone, Debug)]
pub struct ProviderView {
    /// The metadata.
    pub meta: Meta,
    /// The labels.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
    /// The name of the credentials Secret in the namespace of the provider.
    pub secret: Arc<str>,
    /// The names of the Secrets in `spec.slots`, by slot.
    pub slot_secrets: Arc<[Option<Arc<str>>]>,
    /// `spec.maxSlots`.
    pub max_slots: u32,
    /// `spec.tags`.
    pub tags: Tags,
    /// `spec.namespaces`; absent: any.
    pub namespaces: Option<Tags>,
    /// `spec.verify`; absent if `skip` is set.
    pub verify: Option<Arc<VerifySpecView>>,
    /// The `Verified` condition and `status.verification`.
    pub verified: VerificationStatusView,
    /// The `SharedCredentials` condition.
    pub shared: Option<SharedCondition>,
    /// `spec.release.delay`.
    pub release_delay: Duration,
    /// `spec.release.uncleanDelay`.
    pub unclean_delay: Duration,
    /// `status.assignmentGeneration`: the generation whose `maxSlots` the consumers controller, in another process,
    /// applies.
    pub assignment_generation: Option<i64>,
    /// Why the spec is invalid, for users.
    pub invalid: Option<Arc<str>>,
    /// `status.message`.
    pub message: Option<Arc<str>>,
    /// The UID of the OpenVPN server that it belongs to.
    pub server: Option<Uid>,
    /// The hash of what it was made from, if it belongs to an OpenVPN server.
    pub inputs: Option<Arc<str>>,
    /// The status.
    pub status: StatusView<MaskProviderPhase>,
}

/// `spec.verify` of a provider.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifySpecView {
    /// `spec.verify.timeout`, if it is set.
    pub timeout: Option<Duration>,
    /// `spec.verify.interval`.
    pub interval: Option<Duration>,
    /// Whether `spec.verify.onFailure` is `Release`.
    pub release_on_failure: bool,
    /// `spec.verify.overrides`.
    pub overrides: MaskProviderVerifyOverridesSpec,
    /// The fingerprint of the overrides.
    pub overrides_hash: Arc<str>,
}

/// The result of the last verification, from the status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VerificationStatusView {
    /// The `Verified` condition.
    pub condition: Option<VerifiedCondition>,
    /// `status.lastVerified`.
    pub last_verified: Option<DateTime<Utc>>,
    /// `status.verification`.
    pub status: MaskProviderVerificationStatus,
}

/// The `Verified` condition of a provider.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedCondition {
    /// `True`, `False`, or `Unknown` as `None`.
    pub passed: Option<bool>,
    /// The reason.
    pub reason: Reason,
    /// The message.
    pub message: Arc<str>,
    /// The last transition.
    pub since: DateTime<Utc>,
}

/// The `SharedCredentials` condition of a provider. It exists only while it is true.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedCondition {
    /// The message.
    pub message: Arc<str>,
    /// The last transition.
    pub since: DateTime<Utc>,
}

impl ProviderView {
    /// Whether a failed verification takes slots back: `spec.verify.onFailure` is `Release`.
    pub fn releases_on_failure(&self) -> bool {
        self.verify.as_ref().is_some_and(|verify| verify.release_on_failure)
    }

    /// Whether its phase allows assignments.
    pub fn is_usable(&self) -> bool {
        matches!(self.status.phase, Some(MaskProviderPhase::Ready | MaskProviderPhase::Active)) && !self.meta.deleting
    }

    /// Whether its status reflects the current spec. `status.observedGeneration` changes only when the `maxSlots` of
    /// that generation is in effect, which means that no slot beyond it is held.
    pub fn is_current(&self) -> bool {
        self.status.observed_generation == Some(self.meta.generation)
    }
}
