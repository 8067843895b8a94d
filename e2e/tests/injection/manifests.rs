//! Workloads with the label, and queries about their Pods.

use anyhow::{Context, Result};
use e2e::Framework;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use kube::ResourceExt;
use serde_json::{Value, json};

/// A Deployment whose Pods stop soon.
pub fn deployment(name: &str, replicas: usize, annotations: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, annotations),
        },
    })
}

/// The template of a Pod.
pub fn template(app: &str, annotations: &Value) -> Value {
    json!({
        "metadata": {"labels": {"app": app, "vpn.beebs.dev/inject": "true"}, "annotations": annotations},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "app", "image": "app"}],
        },
    })
}

/// A Pod.
pub fn pod(name: &str, annotations: &Value) -> Result<Pod> {
    let mut pod = template(name, annotations);
    pod["metadata"]["name"] = json!(name);
    Ok(serde_json::from_value(pod)?)
}

/// Applies objects, as users do.
pub async fn apply(f: &Framework, objects: &[Value]) -> Result<String> {
    let file = tempfile::Builder::new().suffix(".json").tempfile()?;
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    std::fs::write(file.path(), list.to_string())?;
    f.kubectl(&["apply", "-f", file.path().to_str().context("path")?]).await
}

/// Whether the Pod waits for its slot.
pub fn is_gated(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty())
}

/// Whether the Pod runs and is not being deleted.
pub fn runs(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && phase(pod) == Some("Running")
}

/// The phase.
pub fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

/// The condition about the slot.
pub fn slot_condition(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "vpn.beebs.dev/SlotAssigned")
}

/// The Secret that the sidecar reads. The Mask of a Pod of its own has the same name.
pub fn secret_of(pod: &Pod) -> Option<&str> {
    let sidecar = pod.spec.as_ref()?.init_containers.as_ref()?.first()?;
    Some(&sidecar.env_from.as_ref()?.first()?.secret_ref.as_ref()?.name)
}

/// The message of that condition.
pub fn message(pod: &Pod) -> &str {
    slot_condition(pod).and_then(|condition| condition.message.as_deref()).unwrap_or_default()
}

/// Waits until `running` Pods run, and the others wait with a reason.
pub async fn wait_for_pods(f: &Framework, running: usize, waiting: usize) -> Result<Vec<Pod>> {
    let what = format!("{running} Pods run, {waiting} wait");
    f.wait_until_all::<Pod>(&what, |pods| {
        let waits = |pod: &&Pod| is_gated(pod) && !message(pod).is_empty();
        pods.iter().filter(|pod| runs(pod)).count() == running
            && pods.iter().filter(waits).count() == waiting
            && pods.iter().filter(|pod| is_gated(pod) || runs(pod)).count() == running + waiting
    })
    .await
}

/// The names of the Pods that run.
pub fn running(pods: &[Pod]) -> Vec<String> {
    pods.iter().filter(|pod| runs(pod)).map(ResourceExt::name_any).collect()
}
