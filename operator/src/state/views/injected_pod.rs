//! Views of Pods that the webhook injected, and of the ReplicaSets of such Pods.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use vpn_types::{Reason, inject::Surge};

use super::{PodStage, Tags};
use crate::model::{Meta, ObjectKey, Uid};

/// A Pod that the webhook injected.
#[derive(Clone, Debug)]
pub struct InjectedPod {
    /// The metadata.
    pub meta: Meta,
    /// The name of its Secret. Without `shares`, it is also the name of its Mask.
    pub secret: Arc<str>,
    /// The name of the Mask that it shares with other Pods.
    pub shares: Option<Arc<str>>,
    /// The tags of acceptable providers.
    pub tags: Option<Tags>,
    /// The priority in the queue.
    pub priority: i32,
    /// What a rolling update does when no slot is free.
    pub surge: Surge,
    /// Whether it still has the label, by which it is watched.
    pub labeled: bool,
    /// The position of the scheduling gate. Absent once a slot is assigned.
    pub gate: Option<u16>,
    /// A scheduling gate of another component.
    pub other_gate: Option<Arc<str>>,
    /// Whether it is Ready.
    pub is_ready: bool,
    /// Whether it has a controller, which replaces it when it is deleted.
    pub is_controlled: bool,
    /// The UID of the ReplicaSet that controls it.
    pub replica_set: Option<Uid>,
    /// The workload that it is a replica of.
    pub workload: Option<Workload>,
    /// The stage.
    pub stage: PodStage,
    /// The condition `vpn.beebs.dev/SlotAssigned`.
    pub condition: Option<PodConditionView>,
}

/// A workload, such as a Deployment, in the namespace of its Pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    /// The resource with its group, such as `deployments.apps`.
    pub resource: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

/// The condition `vpn.beebs.dev/SlotAssigned`.
#[derive(Clone, Debug, PartialEq)]
pub struct PodConditionView {
    /// The status of the condition.
    pub assigned: bool,
    /// The reason of the condition.
    pub reason: Option<Reason>,
    /// The fingerprint of the message.
    pub message: u64,
    /// The last transition.
    pub since: DateTime<Utc>,
}

impl InjectedPod {
    /// Returns the key of the Mask whose slot it uses.
    pub fn mask(&self) -> ObjectKey {
        let name = self.shares.as_ref().unwrap_or(&self.secret).clone();
        ObjectKey { namespace: self.meta.key.namespace.clone(), name }
    }

    /// Whether it waits for its slot. A Pod that something else keeps from being scheduled does not need one yet.
    pub fn is_waiting(&self) -> bool {
        self.gate.is_some() && self.other_gate.is_none() && !self.meta.deleting && self.stage != PodStage::Ended
    }

    /// Whether it may use a slot, now or soon.
    pub fn is_ungated(&self) -> bool {
        self.gate.is_none() && self.stage != PodStage::Ended
    }
}

/// A ReplicaSet.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaSetView {
    /// The UID.
    pub uid: Uid,
    /// The name.
    pub name: Arc<str>,
    /// The name and UID of the Deployment that controls it.
    pub deployment: Option<(Arc<str>, Uid)>,
    /// The revision of the Deployment: the annotation `deployment.kubernetes.io/revision`.
    pub revision: u64,
}
