//! Pods that wait with their scheduling gate, for `/metrics`.
//!
//! The reason follows from the MaskConsumer, not from the condition of the Pod. So it is right even if the pods
//! controller, which writes the condition, does not run.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};

use crate::state::{ClusterState, ConsumerView, InjectedPod, PodStage};

/// Why a Pod has its scheduling gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateReason {
    /// Another component has to remove its own gate first.
    OtherSchedulingGate,
    /// There is no Mask that the Pod can use, or the Mask has no MaskConsumer.
    NoMask,
    /// Its Mask has no slot.
    NoSlot,
    /// Another of the Pods that share the Mask uses the slot.
    SlotInUseByPod,
    /// The slot is assigned, and the gate has to be removed.
    SlotAssigned,
}

impl GateReason {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Self; 5] =
        [Self::OtherSchedulingGate, Self::NoMask, Self::NoSlot, Self::SlotInUseByPod, Self::SlotAssigned];

    /// The value of the label `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OtherSchedulingGate => "OtherSchedulingGate",
            Self::NoMask => "NoMask",
            Self::NoSlot => "NoSlot",
            Self::SlotInUseByPod => "SlotInUseByPod",
            Self::SlotAssigned => "SlotAssigned",
        }
    }

    fn of(state: &ClusterState, pod: &InjectedPod) -> Self {
        match state.consumers.get(&pod.mask()).filter(|consumer| is_for(consumer, pod)) {
            Some(consumer) if !consumer.is_active() => Self::NoSlot,
            Some(consumer) if is_in_line(pod, consumer) => Self::SlotInUseByPod,
            Some(_) => Self::SlotAssigned,
            None if pod.other_gate.is_some() => Self::OtherSchedulingGate,
            None => Self::NoMask,
        }
    }
}

/// Whether a Pod may use this MaskConsumer. That of another Pod is of no use, whether the Pod shares it or has its name.
fn is_for(consumer: &ConsumerView, pod: &InjectedPod) -> bool {
    let owner = consumer.mask.as_ref().and_then(|mask| mask.pod.as_ref());
    owner.is_none_or(|owner| pod.shares.is_none() && owner.uid == pod.meta.uid)
}

/// Whether a Pod waits for another one that shares the Mask. Its turn never comes if it uses another Secret.
fn is_in_line(pod: &InjectedPod, consumer: &ConsumerView) -> bool {
    pod.shares.is_some()
        && consumer.pod.as_ref().is_some_and(|holder| holder.uid != pod.meta.uid)
        && consumer.assigned.as_ref().is_some_and(|assigned| assigned.secret == pod.secret)
}

/// The Pods of a namespace that wait with their gate, and not those that are being deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatedPods {
    /// In the order of [`GateReason::ALL`]: the number, and the creation time of the oldest.
    reasons: [(u64, Option<DateTime<Utc>>); GateReason::ALL.len()],
}

impl GatedPods {
    /// The number of Pods with a reason.
    pub fn count(&self, reason: GateReason) -> u64 {
        self.reasons[reason as usize].0
    }

    /// The creation time of the oldest Pod with a reason, in whole seconds.
    pub fn oldest(&self, reason: GateReason) -> Option<DateTime<Utc>> {
        self.reasons[reason as usize].1
    }

    fn add(&mut self, reason: GateReason, created: DateTime<Utc>) {
        let (count, oldest) = &mut self.reasons[reason as usize];
        *count += 1;
        *oldest = Some(oldest.map_or(created, |other| other.min(created)));
    }
}

/// Returns the gated Pods of each namespace that has a Pod with the label, gated or not.
pub fn gated(state: &ClusterState) -> BTreeMap<Arc<str>, GatedPods> {
    let mut namespaces: BTreeMap<_, GatedPods> = BTreeMap::new();
    for pod in state.injected_pods.values() {
        let pods = namespaces.entry(pod.meta.key.namespace.clone()).or_default();
        if pod.gate.is_some() && !pod.meta.deleting && pod.stage != PodStage::Ended {
            pods.add(GateReason::of(state, pod), pod.meta.created);
        }
    }
    namespaces
}

#[cfg(test)]
mod tests;
