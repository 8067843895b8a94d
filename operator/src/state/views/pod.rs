//! What is kept of Pods: of those that may use a slot, and of those that verify a MaskProvider.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::model::{Meta, Uid};

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

/// A Pod with the label of verification Pods.
#[derive(Clone, Debug, PartialEq)]
pub struct VerificationPod {
    /// Metadata.
    pub meta: Meta,
    /// The MaskConsumer that controls it.
    pub consumer: Option<Uid>,
    /// What the scheduler says while no node takes it.
    pub unscheduled: Option<Arc<str>>,
    /// Why it has failed as a whole: evicted, its node lost.
    pub failed: Option<Arc<str>>,
    /// Gluetun.
    pub vpn: Stage,
    /// How often gluetun's container was started again.
    pub vpn_restarts: i32,
    /// How gluetun's container ended last.
    pub vpn_exit: Option<Exit>,
    /// The probe.
    pub probe: Stage,
    /// Why some container cannot start, in kubelet's words.
    pub stuck: Option<Stuck>,
}

/// How far a container has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Stage {
    /// Not started.
    #[default]
    Waiting,
    /// Running since then, by the node's clock.
    Running(DateTime<Utc>),
    /// Ended.
    Ended(Exit),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    /// Exit code.
    pub code: i32,
    /// Kubelet's reason, for example `OOMKilled`.
    pub reason: Arc<str>,
    /// What it wrote to its termination log.
    pub message: Arc<str>,
}

/// Why a container cannot start.
#[derive(Clone, Debug, PartialEq)]
pub struct Stuck {
    /// Kubelet's reason, for example `ErrImagePull`.
    pub reason: Arc<str>,
    /// Kubelet's message.
    pub message: Arc<str>,
}

impl VerificationPod {
    /// Whether gluetun was started, so that there is a log.
    pub fn has_log(&self) -> bool {
        self.vpn != Stage::Waiting || self.vpn_exit.is_some()
    }
}
