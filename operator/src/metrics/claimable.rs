//! Claimable slots: how many replicas a workload may run at.
//!
//! Invariant: the number does not depend on how many replicas the workload runs now, nor on its own Masks that wait or
//! are being released. So a HorizontalPodAutoscaler with AverageValue 1 settles after one step.

use std::sync::Arc;

use super::{
    provider_slots::ProviderSlots,
    snapshot::Snapshot,
    workloads::{Waiting, WorkloadKey},
};
use crate::allocator::Requirements;

/// A question for claimable slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The workload.
    pub workload: WorkloadKey,
    /// Only slots of MaskProviders with this tag count. Without it, those of all MaskProviders do.
    pub tag: Option<Arc<str>>,
    /// The number of slots to leave to others.
    pub reserve: u64,
    /// Masks that wait with at least this priority go first. Default: the highest priority of the workload's Masks.
    pub priority: Option<i32>,
}

impl Snapshot {
    /// Returns how many replicas a workload may run at: the slots of the matching MaskProviders, less those that others
    /// use, the reserve, and one for each Mask of others that waits with the same or a higher priority. Of a
    /// MaskProvider that is not usable, only those count that the workload has. Returns `None` if no MaskProvider matches.
    pub fn claimable(&self, claim: &Claim) -> Option<u64> {
        let workload = Some(&claim.workload);
        let matches = |provider: &&ProviderSlots| {
            claim.tag.as_ref().is_none_or(|tag| provider.tags.contains(tag))
                && provider.namespaces.as_ref().is_none_or(|all| all.contains(&claim.workload.namespace))
        };
        let matching: Vec<_> = self.providers.values().filter(matches).collect();
        if matching.is_empty() {
            return None;
        }
        let claimable = |provider: &&ProviderSlots| {
            let own = provider.users.get(&workload.cloned()).copied().unwrap_or(0);
            let others = provider.users.values().sum::<u64>() - own;
            if provider.usable { provider.assignable.saturating_sub(others) } else { own }
        };
        let slots: u64 = matching.iter().map(claimable).sum();
        let own_priority = self.priorities.get(&claim.workload).copied().unwrap_or(0);
        let priority = claim.priority.unwrap_or(own_priority);
        let goes_first = |waiting: &Waiting| {
            waiting.workload.as_ref() != workload
                && waiting.priority >= priority
                && matching.iter().any(|provider| provider.usable && provider.fits(&waiting.requirements))
        };
        let ahead: u64 = self.waiting.iter().filter(|(waiting, _)| goes_first(waiting)).map(|(_, count)| count).sum();
        Some(slots.saturating_sub(ahead).saturating_sub(claim.reserve))
    }
}

impl ProviderSlots {
    /// Whether users with these requirements may use it.
    fn fits(&self, requirements: &Requirements) -> bool {
        requirements.verifies.is_none() && requirements.accept(&self.tags, self.namespaces.as_ref())
    }
}

#[cfg(test)]
mod tests;
