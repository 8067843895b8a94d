//! Projects a Pod that verifies a MaskProvider to its view.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStatus, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{meta, overrides::PROBE};
use crate::{
    gluetun::CONTAINER,
    model::Uid,
    state::views::{Exit, Stage, Stuck, VerificationPod},
};

impl VerificationPod {
    /// Returns the view of a Pod, or `None` if the Pod has no name, UID or resourceVersion.
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
            // A Pod that failed only because a container did has neither reason nor message.
            failed: (failed && !why.is_empty()).then(|| Arc::from(why)),
            vpn: named(CONTAINER).map_or(Stage::Waiting, stage),
            vpn_restarts: named(CONTAINER).map_or(0, |status| status.restart_count),
            vpn_exit: named(CONTAINER).and_then(last_exit),
            probe: named(PROBE).map_or(Stage::Waiting, stage),
            stuck: all().find_map(stuck),
        })
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

/// Waiting reasons of a Pod that is starting normally.
const STARTING: [&str; 3] = ["PodInitializing", "ContainerCreating", ""];

fn stuck(status: &ContainerStatus) -> Option<Stuck> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    (!STARTING.contains(&reason) && reason != "CrashLoopBackOff").then(|| Stuck {
        reason: Arc::from(reason),
        message: Arc::from(waiting.message.as_deref().unwrap_or_default()),
    })
}
