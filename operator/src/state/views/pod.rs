//! Views of Pods: those that may use a slot, and those that verify a MaskProvider.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::model::{Meta, Uid};

/// The stage of a Pod, as far as its slot is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodStage {
    /// Not bound to a node, so nothing runs.
    Unbound,
    /// Bound, and the node has not confirmed that no container runs or will run.
    Running,
    /// The node has confirmed that no container runs or will run.
    Ended,
}

/// A Pod that references a Secret or is owned by a MaskConsumer.
#[derive(Clone, Debug)]
pub struct PodView {
    /// The metadata.
    pub meta: Meta,
    /// The UIDs of the MaskConsumers among its owners.
    pub consumers: Box<[Uid]>,
    /// How the webhook injected it.
    pub injection: Option<Injection>,
    /// Whether its controller is not a MaskConsumer, but for example a ReplicaSet or a Job.
    pub is_of_workload: bool,
    /// The names of the Secrets that it references.
    pub secrets: Box<[Arc<str>]>,
    /// The node that it is bound to.
    pub node: Option<Arc<str>>,
    /// The stage.
    pub stage: PodStage,
    /// `metadata.deletionTimestamp`: the end of its grace period.
    pub stop_by: Option<DateTime<Utc>>,
    /// Whether `spec.terminationGracePeriodSeconds` is 0: the API server removes such a Pod as soon as it is deleted, before
    /// its containers have stopped.
    pub has_no_grace_period: bool,
}

/// How the webhook injected a Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injection {
    /// The Pod has a Mask of its own, and no other Pod refers to its Secret.
    OwnMask,
    /// The Pod shares a Mask with other Pods.
    SharedMask,
}

/// A Pod that verifies a provider. It has a label.
#[derive(Clone, Debug, PartialEq)]
pub struct VerificationPod {
    /// The metadata.
    pub meta: Meta,
    /// The UID of the MaskConsumer that controls it.
    pub consumer: Option<Uid>,
    /// The message of the scheduler while the Pod cannot be scheduled.
    pub unscheduled: Option<Arc<str>>,
    /// Why the Pod as a whole has failed, for example because it was evicted.
    pub failed: Option<Arc<str>>,
    /// The stage of gluetun.
    pub vpn: Stage,
    /// The number of restarts of gluetun.
    pub vpn_restarts: i32,
    /// The last exit of gluetun.
    pub vpn_exit: Option<Exit>,
    /// The stage of the probe.
    pub probe: Stage,
    /// Why a container cannot start.
    pub stuck: Option<Stuck>,
}

/// The stage of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Stage {
    /// Not started.
    #[default]
    Waiting,
    /// Running since this time, by the clock of the node.
    Running(DateTime<Utc>),
    /// Terminated.
    Ended(Exit),
}

/// The exit of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    /// The exit code.
    pub code: i32,
    /// The reason of kubelet, for example `OOMKilled`.
    pub reason: Arc<str>,
    /// The termination message of the container.
    pub message: Arc<str>,
}

/// Why a container cannot start.
#[derive(Clone, Debug, PartialEq)]
pub struct Stuck {
    /// The reason of kubelet, for example `ErrImagePull`.
    pub reason: Arc<str>,
    /// The message of kubelet.
    pub message: Arc<str>,
}

impl VerificationPod {
    /// Whether gluetun has started, so that there is a log.
    pub fn has_log(&self) -> bool {
        self.vpn != Stage::Waiting || self.vpn_exit.is_some()
    }
}
