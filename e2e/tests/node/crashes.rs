//! Crashing containers that a real kubelet restarts. Their slot is not free between restarts.

use anyhow::{Context, Result};
use e2e::{
    Framework,
    history::History,
    node::images,
    pods::usage::{restarts, slot_secret_name},
    testing::framework::ensure_eq,
    vpn::{self, VpnService},
};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use vpn_types::{Mask, MaskConsumer, owner_reference_for};

use crate::{test, verification::operator};

/// Exits with an error once a file exists.
const UNTIL_TOLD: &str = "until [ -e /go/end ]; do sleep 0.1; done; rm /go/end; exit 1";

/// Returns a Pod that mounts the credentials, with `spec` merged into it. Its container `app` exits with code 1 each
/// time [`end`] creates the file.
fn crasher(consumer: &MaskConsumer, owned: bool, spec: Value) -> Result<Pod> {
    let owners = if owned { json!([owner_reference_for(consumer)]) } else { json!([]) };
    let mut pod = json!({
        "metadata": { "name": "crasher", "ownerReferences": owners },
        "spec": {
            "terminationGracePeriodSeconds": 2,
            "containers": [{
                "name": "app", "image": images::TOOLS, "command": ["sh", "-c", UNTIL_TOLD],
                "volumeMounts": [{ "name": "secret", "mountPath": "/secret" }, { "name": "go", "mountPath": "/go" }],
            }],
            "volumes": [
                { "name": "secret", "secret": { "secretName": slot_secret_name(consumer)? } },
                { "name": "go", "emptyDir": {} },
            ],
        },
    });
    for (field, value) in spec.as_object().context("a spec")? {
        pod["spec"][field] = value.clone();
    }
    Ok(serde_json::from_value(pod)?)
}

async fn end(f: &Framework, container: &str) -> Result<()> {
    let container = format!("--container={container}");
    f.kubectl(&["exec", "crasher", &container, "--", "touch", "/go/end"]).await.map(drop)
}

async fn started_again(f: &Framework, times: i32) -> Result<()> {
    let what = format!("{times} restarts, and running");
    let running = |pod: &Pod| {
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        statuses.into_iter().all(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()))
    };
    f.wait_until::<Pod>("crasher", &what, |pod| restarts(pod) >= times && running(pod)).await.map(drop)
}

/// `first` holds the only slot, with a crashing Pod, and `second` waits. Then `first` is deleted while the Pod keeps
/// crashing.
async fn released_while_it_crashes(prefix: &str, container: &str, spec: Value, code_before: bool) -> Result<()> {
    test(prefix, async |cluster, f| {
        let vpn = VpnService::shared().await?;
        f.add_logs(operator(vpn).await?);
        vpn::node_of(cluster)?.import(&images::tools()?).await?;
        let mut history = History::start(&f.client, Some(f.name())).await?;
        f.create_provider("vpn", 1).await?;
        let first = f.create_active_mask("first").await?;
        f.run_pod(crasher(&first, false, spec)?).await?;
        f.create_mask("second").await?;
        f.wait_for_reason::<MaskConsumer>("second", "NoFreeSlot").await?;
        let mut times = 0;
        if code_before {
            end(f, container).await?;
            times += 1;
            started_again(f, times).await?;
        }
        f.delete::<Mask>("first").await?;
        f.wait_for_reason::<MaskConsumer>("first", "HeldByPods").await?;
        end(f, container).await?;
        started_again(f, times + 1).await?;
        let waits = f.wait_for_reason::<MaskConsumer>("second", "NoFreeSlot").await?;
        ensure_eq("second", waits.status.and_then(|status| status.provider).is_none(), true)?;
        f.delete::<Pod>("crasher").await?;
        f.wait_active("second").await?;
        history.check_slot_limits().await.map(drop)
    })
    .await
}

pub async fn a_container_that_is_always_started_again_keeps_the_slot() -> Result<()> {
    released_while_it_crashes("always", "app", json!({ "restartPolicy": "Always" }), false).await
}

/// Here, the container restarts with backoff.
pub async fn one_that_crashed_before_keeps_it_too() -> Result<()> {
    released_while_it_crashes("failure", "app", json!({ "restartPolicy": "OnFailure" }), true).await
}

pub async fn a_sidecar_that_crashes_keeps_the_slot() -> Result<()> {
    let mounts = json!([{ "name": "secret", "mountPath": "/secret" }, { "name": "go", "mountPath": "/go" }]);
    let sidecar = json!({
        "name": "side", "image": images::TOOLS, "restartPolicy": "Always",
        "command": ["sh", "-c", UNTIL_TOLD], "volumeMounts": mounts,
    });
    // The app never exits, because only one container may react to the file.
    let app = json!({ "name": "app", "image": images::TOOLS, "command": ["sh", "-c", "exec sleep 1000"] });
    let spec = json!({ "restartPolicy": "Never", "initContainers": [sidecar], "containers": [app] });
    released_while_it_crashes("sidecar", "side", spec, false).await
}

/// The kubelet still has the Secret in its cache, or the container fails to start. Either way, the Pod exists.
pub async fn a_container_with_the_credentials_in_its_environment_keeps_the_slot() -> Result<()> {
    test("environment", async |cluster, f| {
        let vpn = VpnService::shared().await?;
        f.add_logs(operator(vpn).await?);
        vpn::node_of(cluster)?.import(&images::tools()?).await?;
        let mut history = History::start(&f.client, Some(f.name())).await?;
        f.create_provider("vpn", 1).await?;
        let first = f.create_active_mask("first").await?;
        let container = json!([{
            "name": "app", "image": images::TOOLS, "command": ["sh", "-c", UNTIL_TOLD],
            "envFrom": [{ "secretRef": { "name": slot_secret_name(&first)? } }],
            "volumeMounts": [{ "name": "go", "mountPath": "/go" }],
        }]);
        let volumes = json!([{ "name": "go", "emptyDir": {} }]);
        let spec = json!({ "restartPolicy": "Always", "containers": container, "volumes": volumes });
        f.run_pod(crasher(&first, false, spec)?).await?;
        f.create_mask("second").await?;
        f.wait_for_reason::<MaskConsumer>("second", "NoFreeSlot").await?;
        f.delete::<Mask>("first").await?;
        f.wait_for_reason::<MaskConsumer>("first", "HeldByPods").await?;
        end(f, "app").await?;
        let goes_on = |pod: &Pod| {
            let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            statuses.into_iter().any(|status| {
                let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
                let reason = waiting.and_then(|waiting| waiting.reason.as_deref());
                reason == Some("CreateContainerConfigError") || status.restart_count > 0
            })
        };
        f.wait_until::<Pod>("crasher", "a second start, or a failed start because the Secret is gone", goes_on).await?;
        f.wait_for_reason::<MaskConsumer>("first", "HeldByPods").await?;
        f.delete::<Pod>("crasher").await?;
        f.wait_active("second").await?;
        history.check_slot_limits().await.map(drop)
    })
    .await
}

/// The Pod has an owner reference, so the operator deletes it while it crashes.
pub async fn a_crashing_pod_of_a_consumer_ends_before_the_slot_changes_hands() -> Result<()> {
    test("owned", async |cluster, f| {
        let vpn = VpnService::shared().await?;
        f.add_logs(operator(vpn).await?);
        vpn::node_of(cluster)?.import(&images::tools()?).await?;
        let mut history = History::start(&f.client, Some(f.name())).await?;
        f.create_provider("vpn", 1).await?;
        let first = f.create_active_mask("first").await?;
        f.run_pod(crasher(&first, true, json!({ "restartPolicy": "Always" }))?).await?;
        f.create_mask("second").await?;
        f.wait_for_reason::<MaskConsumer>("second", "NoFreeSlot").await?;
        end(f, "app").await?;
        f.delete::<Mask>("first").await?;
        f.wait_active("second").await?;
        history.check_slot_limits().await.map(drop)
    })
    .await
}
