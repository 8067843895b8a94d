//! kwok simulates the kubelet of nodes that do not exist. `e2e/kwok/*.yaml` defines what it does with Nodes and Pods.
//!
//! Annotations of a Pod that change its behavior:
//!
//! | annotation | effect |
//! |---|---|
//! | [`COMPLETE_AFTER`] | the containers exit this long after their start |
//! | [`EXIT_CODE`] | the exit code of the containers; with any other than 0, the Pod fails |
//! | [`TERMINATION_MESSAGE`] | the termination message of the first container |
//! | [`NEVER_READY`] | `"true"`: the containers run, but never become ready |

use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    runtime::wait::await_condition,
};
use serde_json::json;

use crate::{auth::Identity, network::KWOK_POD_RANGE, process::ProcessSpec, tools::Binaries};

/// Pod annotation, a Go duration such as `1s`.
pub const COMPLETE_AFTER: &str = "e2e.vpn.beebs.dev/complete-after";
/// Pod annotation, a number.
pub const EXIT_CODE: &str = "e2e.vpn.beebs.dev/exit-code";
/// Pod annotation, any text.
pub const TERMINATION_MESSAGE: &str = "e2e.vpn.beebs.dev/termination-message";
/// Pod annotation.
pub const NEVER_READY: &str = "e2e.vpn.beebs.dev/never-ready";
/// A Node label. kwok simulates the nodes on which it has the value `alive`.
const KUBELET: &str = "e2e.vpn.beebs.dev/kubelet";

/// How long a node lease is valid.
const LEASE_SECONDS: u32 = 8;

/// The name of the node with this index.
pub fn node_name(index: usize) -> String {
    format!("kwok-node-{index}")
}

pub(crate) fn process(binaries: &Binaries, dir: &Path, identity: &Identity) -> Result<ProcessSpec> {
    let mut spec = ProcessSpec::new("kwok", binaries.kwok(), dir.join("kwok.log"))
        .path_flag("kubeconfig", &identity.kubeconfig)
        .flag("manage-nodes-with-label-selector", format_args!("{KUBELET}=alive"))
        .flag("node-lease-duration-seconds", LEASE_SECONDS)
        .flag("cidr", KWOK_POD_RANGE)
        .flag("node-ip", "192.0.2.2")
        // Otherwise, kwok also reads $HOME/.kwok/kwok.yaml, and the user's settings would change the tests.
        .env("KWOK_WORKDIR", dir.join("kwok").display());
    let stages = [
        ("kwok-node.yaml", include_str!("../../kwok/node.yaml")),
        ("kwok-pod.yaml", include_str!("../../kwok/pod.yaml")),
    ];
    for (file, text) in stages {
        let path = dir.join(file);
        std::fs::write(&path, text)?;
        spec = spec.path_flag("config", &path);
    }
    Ok(spec)
}

pub(crate) async fn create_node(client: &Client, name: &str) -> Result<()> {
    let node: Node = serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "labels": { KUBELET: "alive", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux" },
        },
    }))?;
    Api::all(client.clone())
        .create(&PostParams::default(), &node)
        .await
        .with_context(|| format!("cannot create the node {name}"))?;
    Ok(())
}

/// Creates a node with an address of this machine. A process on this machine then answers for a Pod in the host network
/// of that node. Only Pods that tolerate the taint `e2e.vpn.beebs.dev/host` are scheduled to it.
pub async fn create_host_node(client: &Client, name: &str, address: &str) -> Result<()> {
    let node: Node = serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name, "kubernetes.io/os": "linux" } },
        "spec": { "taints": [{ "key": "e2e.vpn.beebs.dev/host", "effect": "NoSchedule" }] },
    }))?;
    let nodes = Api::<Node>::all(client.clone());
    nodes.create(&PostParams::default(), &node).await.with_context(|| format!("cannot create the node {name}"))?;
    let room = json!({ "cpu": "1k", "memory": "1Ti", "pods": "1M" });
    let status = json!({ "status": {
        "addresses": [{ "type": "InternalIP", "address": address }, { "type": "Hostname", "address": name }],
        "allocatable": room,
        "capacity": room,
        "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "played by kwok" }],
    } });
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await?;
    // kwok does not change a node that is ready. From now on, it renews the lease and runs the Pods.
    set_kubelet(client, name, "alive").await
}

/// Waits until Pods can be scheduled to the node.
pub async fn wait_ready(client: &Client, name: &str) -> Result<()> {
    let ready = |node: Option<&Node>| node.is_some_and(|node| is_ready(node) && !has_taints(node));
    await_condition(Api::all(client.clone()), name, ready).await?;
    Ok(())
}

/// Simulates the loss of a node: from now on, nothing renews its lease or changes its Pods, as when the machine is
/// disconnected. Returns when the node lifecycle controller has noticed.
pub async fn lose_node(client: &Client, name: &str) -> Result<()> {
    set_kubelet(client, name, "lost").await?;
    await_condition(Api::all(client.clone()), name, |node: Option<&Node>| {
        node.is_some_and(|node| !is_ready(node) && has_taints(node))
    })
    .await?;
    Ok(())
}

/// Restores a lost node and waits until it is ready.
pub async fn restore_node(client: &Client, name: &str) -> Result<()> {
    set_kubelet(client, name, "alive").await?;
    wait_ready(client, name).await
}

async fn set_kubelet(client: &Client, name: &str, value: &str) -> Result<()> {
    let patch = json!({ "metadata": { "labels": { KUBELET: value } } });
    Api::<Node>::all(client.clone()).patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn has_taints(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).is_some_and(|taints| !taints.is_empty())
}
