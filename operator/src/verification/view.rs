//! What is kept of a verification Pod.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStatus, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::overrides::{PROBE, VPN};
use crate::world::{Meta, Uid, meta};

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
    /// The view of a Pod; `None` when it lacks what every stored object has.
    pub fn of(pod: &Pod) -> Option<Self> {
        let status = pod.status.clone().unwrap_or_default();
        let all = || status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
        let named = |name: &str| all().find(|status| status.name == name);
        let owners = pod.metadata.owner_references.iter().flatten();
        let scheduled = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled");
        let unscheduled = scheduled.filter(|condition| condition.status == "False");
        let failed = status.phase.as_deref() == Some("Failed");
        let why = [&status.reason, &status.message].into_iter().flatten().cloned().collect::<Vec<_>>().join(": ");
        Some(Self {
            meta: meta(&pod.metadata)?,
            consumer: owners
                .filter(|owner| owner.kind == "MaskConsumer" && owner.controller == Some(true))
                .map(|owner| Uid::from(owner.uid.as_str()))
                .next(),
            unscheduled: unscheduled.map(|condition| Arc::from(condition.message.clone().unwrap_or_default())),
            // A Pod whose containers just ended badly has no reason of its own.
            failed: (failed && !why.is_empty()).then(|| Arc::from(why)),
            vpn: named(VPN).map_or(Stage::Waiting, stage),
            vpn_restarts: named(VPN).map_or(0, |status| status.restart_count),
            vpn_exit: named(VPN).and_then(last_exit),
            probe: named(PROBE).map_or(Stage::Waiting, stage),
            stuck: all().find_map(stuck),
        })
    }

    /// Whether gluetun was started, so that there is a log.
    pub fn has_log(&self) -> bool {
        self.vpn != Stage::Waiting || self.vpn_exit.is_some()
    }
}

fn time(time: Option<&Time>) -> DateTime<Utc> {
    time.and_then(|time| DateTime::from_timestamp(time.0.as_second(), 0)).unwrap_or_default()
}

fn exit(state: &ContainerState) -> Option<Exit> {
    let ended = state.terminated.as_ref()?;
    Some(Exit {
        code: ended.exit_code,
        reason: Arc::from(ended.reason.as_deref().unwrap_or_default()),
        message: Arc::from(ended.message.as_deref().unwrap_or_default()),
    })
}

fn stage(status: &ContainerStatus) -> Stage {
    let Some(state) = &status.state else { return Stage::Waiting };
    if let Some(exit) = exit(state) {
        return Stage::Ended(exit);
    }
    state.running.as_ref().map_or(Stage::Waiting, |running| Stage::Running(time(running.started_at.as_ref())))
}

fn last_exit(status: &ContainerStatus) -> Option<Exit> {
    status.state.as_ref().and_then(exit).or_else(|| status.last_state.as_ref().and_then(exit))
}

/// Reasons that pass by themselves as the Pod comes up.
const ON_ITS_WAY: [&str; 3] = ["PodInitializing", "ContainerCreating", ""];

fn stuck(status: &ContainerStatus) -> Option<Stuck> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    (!ON_ITS_WAY.contains(&reason) && reason != "CrashLoopBackOff").then(|| Stuck {
        reason: Arc::from(reason),
        message: Arc::from(waiting.message.as_deref().unwrap_or_default()),
    })
}
