//! One attempt to verify a provider, and the names of its objects.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use vpn_types::verify_name;

use super::evaluate::{Log, VerificationResult};
use crate::{
    model::{Now, ObjectKey, Uid},
    state::{MaskView, ProviderView, VerifyInputs},
};

/// State of a verification in progress. All of it can be lost: after a restart, it is determined again.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// UID of its Mask.
    pub mask: Uid,
    /// The Secret version and the overrides that it verifies.
    pub inputs: Option<VerifyInputs>,
    /// UID of the Pod once it was seen: if it is gone, it was deleted.
    pub pod: Option<Uid>,
    /// When the stages of the Pod began, so far.
    pub stages: Vec<StageStart>,
    /// The result, until it is stored.
    pub result: Option<VerificationResult>,
}

/// When a stage of a Pod began. The clocks of the node and of the API server may differ from that of the operator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StageStart {
    /// The time in the Pod.
    by_pod: DateTime<Utc>,
    /// When (monotonic) the operator first saw it.
    seen: Duration,
}

impl StageStart {
    /// Returns the start of the stage that began at `by_pod`.
    pub fn of(known: &[Self], by_pod: DateTime<Utc>, now: Now) -> Self {
        known.iter().find(|known| known.by_pod == by_pod).copied().unwrap_or(Self { by_pod, seen: now.monotonic })
    }

    /// Returns the present time by the clock of the Pod.
    pub fn now(&self, now: Now) -> DateTime<Utc> {
        self.by_pod + TimeDelta::from_std(now.monotonic.saturating_sub(self.seen)).unwrap_or_default()
    }

    /// Returns when (monotonic) it is that time by the clock of the Pod.
    pub fn monotonic(&self, at: DateTime<Utc>) -> Duration {
        self.seen + (at - self.by_pod).to_std().unwrap_or_default()
    }
}

/// Verifications in progress, by UID of the provider.
pub type Attempts = HashMap<Uid, Attempt>;

/// Logs of gluetun by UID of the Pod, each with the restart count of its container.
pub type Logs = HashMap<Uid, (i32, Log)>;

/// Returns the name of the Mask, the MaskConsumer and the Pod of a verification.
pub fn key_of(provider: &ObjectKey) -> ObjectKey {
    ObjectKey { namespace: provider.namespace.clone(), name: verify_name(&provider.name).into() }
}

/// Returns the provider that a Mask, MaskConsumer or Pod of that name would verify.
pub fn provider_of(key: &ObjectKey) -> Option<ObjectKey> {
    let name = key.name.strip_suffix("-verify")?;
    Some(ObjectKey { namespace: key.namespace.clone(), name: name.into() })
}

/// Whether a Mask was created to verify that provider.
pub fn is_ours(mask: &MaskView, provider: &ProviderView) -> bool {
    mask.verifies.as_ref().is_some_and(|verifies| verifies.provider == provider.meta.uid)
}

impl Attempt {
    /// Returns the attempt of a verification Mask.
    pub fn of(mask: &MaskView) -> Self {
        let inputs = mask.verifies.as_ref().and_then(|verifies| verifies.inputs.clone());
        Self { mask: mask.meta.uid.clone(), inputs, pod: None, stages: Vec::new(), result: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The clock of the operator is 90 s ahead of that of the node.
    #[test]
    fn a_difference_of_clocks_does_not_count() {
        let by_node = DateTime::UNIX_EPOCH + TimeDelta::seconds(1_000);
        let at = |seconds: u64| Now {
            wall: by_node + TimeDelta::seconds(90) + TimeDelta::seconds(seconds as i64),
            monotonic: Duration::from_secs(7 + seconds),
        };
        let start = StageStart::of(&[], by_node, at(0));
        assert_eq!(StageStart::of(&[start], by_node, at(20)), start);
        assert_eq!(start.now(at(20)), by_node + TimeDelta::seconds(20));
        assert_eq!(start.monotonic(by_node + TimeDelta::seconds(60)), Duration::from_secs(67));
        let restarted = by_node + TimeDelta::seconds(30);
        assert_eq!(StageStart::of(&[start], restarted, at(31)).now(at(33)), restarted + TimeDelta::seconds(2));
    }
}
