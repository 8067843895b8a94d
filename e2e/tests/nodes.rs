//! Lost nodes. These tests have their own cluster, because a lost node affects all tests.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{ControlPlane, ControlPlaneOptions, control_plane::kwok, wait::await_condition};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
    runtime::conditions::is_pod_running,
};
use serde_json::json;
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(90);

#[tokio::test]
async fn pods_of_a_lost_node_stay_until_it_returns() -> Result<()> {
    let cluster = ControlPlane::start(ControlPlaneOptions { kwok_nodes: 2, ..ControlPlaneOptions::default() }).await?;
    let client = cluster.admin().client()?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let [kept, lost] = [0, 1].map(kwok::node_name);
    for (name, node) in [("ends", &kept), ("held", &lost)] {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": {
                "nodeSelector": { "kubernetes.io/hostname": node },
                "terminationGracePeriodSeconds": 1,
                "containers": [{ "name": "main", "image": "any" }],
            },
        }))?;
        pods.create(&PostParams::default(), &pod).await?;
        timeout(TIMEOUT, await_condition(pods.clone(), name, is_pod_running())).await??;
    }

    timeout(TIMEOUT, kwok::lose_node(&client, &lost)).await??;
    // The Pod that was deleted first still exists when the other one is gone.
    let gone = |pod: Option<&Pod>| pod.is_none();
    for name in ["held", "ends"] {
        pods.delete(name, &DeleteParams::default()).await?;
    }
    timeout(TIMEOUT, await_condition(pods.clone(), "ends", gone)).await??;
    let held = pods.get_opt("held").await?.context("the Pod of a lost node is gone")?;
    ensure!(held.status.and_then(|status| status.phase).as_deref() == Some("Running"), "the Pod is not Running");

    timeout(TIMEOUT, kwok::restore_node(&client, &lost)).await??;
    timeout(TIMEOUT, await_condition(pods, "held", gone)).await??;
    cluster.stop().await
}
