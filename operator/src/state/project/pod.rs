//! Projects a Pod to its view.
//!
//! Invariant: a Pod counts as ended only if its node has confirmed a final end. A terminated container does not mean
//! that the Pod has ended: kubelet may restart it, and does not need the Secret for that.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use k8s_openapi::{
    api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod, PodSpec, PodStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use vpn_types::inject::{INJECTED_ANNOTATION, Injected};

use super::{Project, is_ours, meta, owner_of};
use crate::{model::intern, state::views::*};

impl Project for Pod {
    type View = PodView;
    fn project(&self) -> Option<PodView> {
        let node = self.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).map(intern);
        let annotations = self.metadata.annotations.as_ref();
        let mut owners = self.metadata.owner_references.iter().flatten();
        Some(PodView {
            meta: meta(&self.metadata)?,
            consumers: owner_of(&self.metadata, "MaskConsumer").collect(),
            injection: annotations.and_then(|all| all.get(INJECTED_ANNOTATION)).map(|text| injection(text)),
            is_of_workload: owners.any(|owner| owner.controller == Some(true) && !is_ours(owner, "MaskConsumer")),
            secrets: self.spec.as_ref().map(secrets).unwrap_or_default(),
            stage: stage(self),
            stop_by: deletion_time(&self.metadata),
            has_no_grace_period: self.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds) == Some(0),
            node,
        })
    }
}

fn injection(annotation: &str) -> Injection {
    match serde_json::from_str::<Injected>(annotation) {
        Ok(Injected { mask: Some(_), .. }) => Injection::SharedMask,
        _ => Injection::OwnMask,
    }
}

/// Returns the stage of a Pod.
pub fn stage(pod: &Pod) -> PodStage {
    match pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) {
        None => PodStage::Unbound,
        Some(_) if has_ended(pod) => PodStage::Ended,
        Some(_) => PodStage::Running,
    }
}

/// Returns the end of the grace period of a deletion.
fn deletion_time(metadata: &ObjectMeta) -> Option<DateTime<Utc>> {
    metadata.deletion_timestamp.as_ref().and_then(|time| DateTime::from_timestamp(time.0.as_second(), 0))
}

/// Returns the names of the Secrets that a Pod references in environment variables or volumes.
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

/// Whether the node of a bound Pod has confirmed that no container runs or will run. There are two kinds of evidence:
///
/// - The phase, if it agrees with the containers. Kubelet sets `Succeeded` or `Failed` only when nothing runs any more,
///   even if the Pod is being deleted, and no container that has run is left waiting (KEP-3329). Pod garbage collection sets
///   the phase too, and the observed generation, because the node is gone. Mostly, it also adds a condition.
/// - All containers of a Pod that is being deleted are terminated. Kubelet does not restart containers of such a Pod.
fn has_ended(pod: &Pod) -> bool {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else { return false };
    let conditions = status.conditions.iter().flatten();
    let collected = conditions.into_iter().any(|one| one.reason.as_deref() == Some("DeletionByPodGC"));
    let is_final = matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) && !collected;
    let is_terminated =
        |status: &ContainerStatus| status.state.as_ref().is_some_and(|state| state.terminated.is_some());
    if is_final {
        return statuses(status).all(|status| is_terminated(status) || never_ran(status));
    }
    let main = status.container_statuses.as_deref().unwrap_or_default();
    let init = status.init_container_statuses.iter().flatten();
    let ephemeral = status.ephemeral_container_statuses.iter().flatten();
    let Some(deletion) = Deletion::of(pod) else { return false };
    main.len() >= spec.containers.len()
        && main.iter().all(|status| deletion.is_final(status))
        && init.into_iter().all(|status| deletion.is_final(status) || never_ran(status))
        && ephemeral.into_iter().all(|status| deletion.is_final(status))
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

/// A Pod that is being deleted. Until its node has observed the deletion, kubelet still restarts containers: a
/// container that is terminated according to the status may already run again.
struct Deletion<'a> {
    spec: &'a PodSpec,
    statuses: &'a PodStatus,
    /// Whether the node had observed the deletion when it wrote the status, according to the observed generation, which
    /// the deletion increments (KEP-5067). Kubelets before 1.34 do not report it. When a container ended is no evidence:
    /// the clock of the node may be wrong, and kubelet may restart a container between the deletion and its observation.
    /// Such a kubelet sets the phase when it has stopped the Pod.
    observed: bool,
}

impl<'a> Deletion<'a> {
    fn of(pod: &'a Pod) -> Option<Self> {
        let (spec, statuses) = (pod.spec.as_ref()?, pod.status.as_ref()?);
        pod.metadata.deletion_timestamp.as_ref()?;
        let by_kubelet = !matches!(statuses.phase.as_deref(), Some("Failed" | "Succeeded"));
        let seen = statuses.observed_generation.filter(|seen| *seen > 0 && by_kubelet);
        let observed = seen.zip(pod.metadata.generation).is_some_and(|(seen, generation)| seen >= generation);
        Some(Self { spec, statuses, observed })
    }

    fn is_final(&self, status: &ContainerStatus) -> bool {
        let Some(end) = status.state.as_ref().and_then(|state| state.terminated.as_ref()) else { return false };
        self.observed || !self.may_restart(&status.name, end)
    }

    /// Whether kubelet restarts a container that terminated like this, if it has not observed the deletion.
    fn may_restart(&self, name: &str, end: &ContainerStateTerminated) -> bool {
        let containers = self.spec.containers.iter().map(|container| (container, false));
        let init = self.spec.init_containers.iter().flatten().map(|container| (container, true));
        let found = containers.chain(init).find(|(container, _)| container.name == *name);
        // An ephemeral container has no restart policy: it is restarted only together with all others.
        let by_policy = found.is_some_and(|(container, is_init)| {
            let own = container.restart_policy.as_deref();
            match own.or(self.spec.restart_policy.as_deref()).unwrap_or("Always") {
                "Never" => false,
                "OnFailure" => end.exit_code != 0,
                // An init container that is not a sidecar does not restart after success.
                _ => own.is_some() || !is_init || end.exit_code != 0,
            }
        });
        by_policy || found.is_some_and(|(container, _)| by_rule(container, end.exit_code)) || self.restarts_all()
    }

    /// Whether the exit of a container makes kubelet restart all of them (KEP-5532).
    fn restarts_all(&self) -> bool {
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

/// Whether a restart rule of the container applies (KEP-5307).
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
