//! Pods that use a slot.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde_json::json;
use vpn_types::{MaskConsumer, owner_reference_for};

/// A Pod that uses the slot of a MaskConsumer as the README describes: it reads the Secret, and the MaskConsumer owns it. It
/// takes `grace` seconds to stop.
pub fn owned_pod(name: &str, consumer: &MaskConsumer, grace: u32) -> Result<Pod> {
    let mut pod = unowned_pod(name, consumer, grace)?;
    pod.metadata.owner_references = Some(vec![owner_reference_for(consumer)]);
    Ok(pod)
}

/// A Pod that uses the slot of a MaskConsumer, but has no owner reference.
pub fn unowned_pod(name: &str, consumer: &MaskConsumer, grace: u32) -> Result<Pod> {
    let secret = slot_secret_name(consumer)?;
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "terminationGracePeriodSeconds": grace,
            "containers": [{
                "name": "main",
                "image": "any",
                "envFrom": [{ "secretRef": { "name": secret } }],
            }],
        },
    }))?)
}

/// The name of the Secret with the credentials.
pub fn slot_secret_name(consumer: &MaskConsumer) -> Result<String> {
    let status = consumer.status.as_ref();
    let provider = status.and_then(|status| status.provider.as_ref()).context("no provider assigned")?;
    Ok(provider.secret.clone())
}

/// Whether any container of a Pod runs or may be started yet: it is bound to a node, and its node has neither set a
/// final phase nor, of a Pod that is being deleted, reported that all containers have terminated.
pub fn may_run(pod: &Pod) -> bool {
    let Some(spec) = pod.spec.as_ref().filter(|spec| spec.node_name.is_some()) else { return false };
    let Some(status) = &pod.status else { return true };
    let conditions = status.conditions.iter().flatten();
    let collected = conditions.into_iter().any(|one| one.reason.as_deref() == Some("DeletionByPodGC"));
    let statuses = || [&status.container_statuses, &status.init_container_statuses].into_iter().flatten().flatten();
    let has_ended = |status: &&ContainerStatus| status.state.as_ref().is_some_and(|state| state.terminated.is_some());
    let terminated = statuses().filter(has_ended).count();
    // Pod garbage collection sets the phase too, sometimes without a condition.
    let has_waiting = statuses().any(|status| !has_ended(&status) && status.restart_count > 0);
    let is_final = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) && !collected && !has_waiting;
    let containers = spec.containers.len() + spec.init_containers.as_ref().map_or(0, Vec::len);
    let is_over = pod.metadata.deletion_timestamp.is_some() && terminated >= containers;
    !is_final && !is_over
}

/// How often containers of a Pod were started again, all together.
pub fn restarts(pod: &Pod) -> i32 {
    let Some(status) = &pod.status else { return 0 };
    let statuses = [&status.container_statuses, &status.init_container_statuses].into_iter().flatten().flatten();
    statuses.map(|status| status.restart_count).sum()
}
