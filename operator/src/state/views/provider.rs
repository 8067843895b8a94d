//! What is kept of a MaskProvider.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use vpn_types::{MaskProviderPhase, MaskProviderVerificationStatus, MaskProviderVerifyOverridesSpec, Reason};

use super::{StatusView, Tags};
use crate::model::Meta;

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
    pub verify: Option<Arc<VerifySpecView>>,
    /// The `Verified` condition and `status.verification`.
    pub verified: VerificationStatusView,
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
pub struct VerifySpecView {
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
pub struct VerificationStatusView {
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
