//! From a Pod to its view.
//!
//! Invariant: a Pod counts as ended only by the word of its node, given for good. A container that ended is not a Pod
//! that ended: kubelet may start it again, and does not need the Secret for that.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use k8s_openapi::{
    api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod, PodSpec, PodStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{Project, is_ours, meta, owner_of};
use crate::{model::intern, state::views::*};

impl Project for Pod {
    type View = PodView;
    fn project(&self) -> Option<PodView> {
        let node = self.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).map(intern);
        let mut owners = self.metadata.owner_references.iter().flatten();
        Some(PodView {
            meta: meta(&self.metadata)?,
            consumers: owner_of(&self.metadata, "MaskConsumer").collect(),
            is_of_workload: owners.any(|owner| owner.controller == Some(true) && !is_ours(owner, "MaskConsumer")),
            secrets: self.spec.as_ref().map(secrets).unwrap_or_default(),
            stage: match &node {
                None => PodStage::Unbound,
                Some(_) if has_ended(self) => PodStage::Ended,
                Some(_) => PodStage::Running,
            },
            stop_by: deletion_time(&self.metadata),
            node,
        })
    }
}

/// When the grace period of a deletion ends.
fn deletion_time(metadata: &ObjectMeta) -> Option<DateTime<Utc>> {
    metadata.deletion_timestamp.as_ref().and_then(|time| DateTime::from_timestamp(time.0.as_second(), 0))
}

/// Names of the Secrets from which a Pod takes environment variables or files.
fn secrets(spec: &PodSpec) -> Box<[Arc<str>]> {
    let mut names: Vec<&str> = Vec::new();
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    for Container { env, env_from, .. } in containers {
        names.extend(
            env.iter().flatten().filter_map(|var| Some(&*var.value_from.as_ref()?.secret_key_ref.as_ref()?.name)),
        );
        names.extend(env_from.iter().flatten().filter_map(|from| Some(&*from.secret_ref.as_ref()?.name)));
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        let env = container.env.iter().flatten();
        names.extend(env.filter_map(|var| Some(&*var.value_from.as_ref()?.secret_key_ref.as_ref()?.name)));
        let env_from = container.env_from.iter().flatten();
        names.extend(env_from.filter_map(|from| Some(&*from.secret_ref.as_ref()?.name)));
    }
    for volume in spec.volumes.iter().flatten() {
        names.extend(volume.secret.as_ref().and_then(|secret| secret.secret_name.as_deref()));
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        names.extend(sources.filter_map(|source| Some(&*source.secret.as_ref()?.name)));
    }
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(intern).collect()
}

/// Whether the node of a bound Pod has said for good that none of its containers runs or will run. It says so in one of
/// two ways:
///
/// - By the phase. Kubelet sets `Succeeded` or `Failed` only when nothing runs any more, also when a Pod is deleted
///   (KEP-3329). Where Pod garbage collection set it, because the node is gone, it leaves a condition: that proves
///   nothing.
/// - Of a Pod that is being deleted, by all containers being terminated: no container of it is started any more.
fn has_ended(pod: &Pod) -> bool {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else { return false };
    let conditions = status.conditions.iter().flatten();
    let collected = conditions.into_iter().any(|one| one.reason.as_deref() == Some("DeletionByPodGC"));
    let is_final = matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) && !collected;
    let is_running = |status: &ContainerStatus| status.state.as_ref().is_some_and(|state| state.running.is_some());
    if is_final {
        return !statuses(status).any(is_running);
    }
    let main = status.container_statuses.as_deref().unwrap_or_default();
    let init = status.init_container_statuses.iter().flatten();
    let ephemeral = status.ephemeral_container_statuses.iter().flatten();
    let Some(deletion) = Deletion::of(pod) else { return false };
    main.len() >= spec.containers.len()
        && main.iter().all(|status| deletion.ended_for_good(status))
        && init.into_iter().all(|status| deletion.ended_for_good(status) || never_ran(status))
        && ephemeral.into_iter().all(|status| deletion.ended_for_good(status))
}

fn statuses(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let all = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    all.into_iter().flatten().flatten()
}

fn never_ran(status: &ContainerStatus) -> bool {
    let state = status.state.as_ref();
    let last = status.last_state.as_ref();
    status.restart_count == 0
        && state.is_none_or(|state| state.running.is_none() && state.terminated.is_none())
        && last.is_none_or(|state| state.running.is_none() && state.terminated.is_none())
}

/// A deletion under way, and whether the node has heard of it. Until then it goes on as before: what the status says of
/// a container that ended was written about a Pod that lives, and it may be running again by now.
struct Deletion<'a> {
    spec: &'a PodSpec,
    statuses: &'a PodStatus,
    /// Whether the node knew of the deletion when it wrote the status: by the generation that it had seen, which the
    /// deletion moves (KEP-5067). `None` where it does not tell: kubelets before 1.34.
    heard: Option<bool>,
    /// When the deletion was asked for.
    asked_at: DateTime<Utc>,
}

impl<'a> Deletion<'a> {
    fn of(pod: &'a Pod) -> Option<Self> {
        let (spec, statuses) = (pod.spec.as_ref()?, pod.status.as_ref()?);
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        let asked_at = deletion_time(&pod.metadata)? - chrono::TimeDelta::try_seconds(grace).unwrap_or_default();
        let seen = statuses.observed_generation.filter(|seen| *seen > 0);
        let heard = seen.zip(pod.metadata.generation).map(|(seen, generation)| seen >= generation);
        Some(Self { spec, statuses, heard, asked_at })
    }

    fn ended_for_good(&self, status: &ContainerStatus) -> bool {
        let Some(end) = status.state.as_ref().and_then(|state| state.terminated.as_ref()) else { return false };
        match self.heard {
            Some(true) => true,
            Some(false) => !self.may_start_again(&status.name, end),
            None => {
                let at = end.finished_at.as_ref().and_then(|at| DateTime::from_timestamp(at.0.as_second(), 0));
                at.is_none_or(|at| at >= self.asked_at) || !self.may_start_again(&status.name, end)
            }
        }
    }

    /// Whether kubelet starts a container again that ended so, if it has not heard of the deletion.
    fn may_start_again(&self, name: &str, end: &ContainerStateTerminated) -> bool {
        let containers = self.spec.containers.iter().map(|container| (container, false));
        let init = self.spec.init_containers.iter().flatten().map(|container| (container, true));
        let found = containers.chain(init).find(|(container, _)| container.name == *name);
        // Of an ephemeral container there is no policy: it is never started again, unless all are.
        let by_policy = found.is_some_and(|(container, is_init)| {
            let own = container.restart_policy.as_deref();
            match own.or(self.spec.restart_policy.as_deref()).unwrap_or("Always") {
                "Never" => false,
                "OnFailure" => end.exit_code != 0,
                // An init container that is no sidecar has done its work.
                _ => own.is_some() || !is_init || end.exit_code != 0,
            }
        });
        by_policy || found.is_some_and(|(container, _)| by_rule(container, end.exit_code)) || self.all_start_again()
    }

    /// Whether the end of some container makes kubelet start all of them again (KEP-5532).
    fn all_start_again(&self) -> bool {
        let containers = self.spec.containers.iter().chain(self.spec.init_containers.iter().flatten());
        let of_all = containers.filter(|container| {
            container.restart_policy_rules.iter().flatten().any(|rule| rule.action == "RestartAllContainers")
        });
        of_all.into_iter().any(|container| {
            let mut all = statuses(self.statuses).filter(|status| status.name == container.name);
            all.any(|status| {
                let end = status.state.as_ref().and_then(|state| state.terminated.as_ref());
                end.is_some_and(|end| by_rule(container, end.exit_code))
            })
        })
    }
}

/// Whether a rule of the container itself starts it again (KEP-5307).
fn by_rule(container: &Container, exit_code: i32) -> bool {
    container.restart_policy_rules.iter().flatten().any(|rule| {
        rule.exit_codes.as_ref().is_none_or(|codes| {
            let named = codes.values.iter().flatten().any(|code| *code == exit_code);
            if codes.operator == "NotIn" { !named } else { named }
        })
    })
}

#[cfg(test)]
mod tests;
