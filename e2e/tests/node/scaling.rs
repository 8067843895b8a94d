//! Autoscaling on metrics of Pods: OpenVPN servers with real clients, and any other workload.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::{
    Framework,
    cluster::shared,
    node::images,
    operator::{executable, metrics_api::wait_until_available},
    testing::{documents::blocks, framework::ensure_eq},
    vpn::{VpnService, node_of, pod_ready},
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{Endpoints, Pod},
};
use serde_json::{Value, json};
use vpn_types::OpenVPNServer;

use crate::{
    servers::{device, replicas, sessions, until, with_server},
    verification,
};

pub async fn the_replica_with_the_fewest_clients_goes_first() -> Result<()> {
    let spec = json!({"replicas": 2, "drain": {"timeout": "3s"}});
    with_server("fewer", spec, async |f, _| {
        // An odd number, so one replica has more.
        let names = ["one", "two", "three"];
        for name in names {
            device(f, name).await?;
        }
        for name in names {
            pod_ready(f.api(), name).await?;
        }
        // The operator asks the replicas now and then, and decides by what they said last.
        let clients = |server: &OpenVPNServer| server.status.as_ref().and_then(|status| status.connected_clients);
        f.wait_until("home", "three clients in its status", |server| clients(server) == Some(3)).await?;
        let mut fuller = (0, String::new());
        for (replica, _) in replicas(f).await? {
            fuller = fuller.max((sessions(f, &replica).await?.len(), replica));
        }
        f.kubectl(&["scale", "openvpnserver/home", "--replicas=1"]).await?;
        let stays = until("one replica is left", async || {
            let left = replicas(f).await?;
            Ok((left.len() == 1).then(|| left.into_iter().next()).flatten())
        })
        .await?;
        ensure_eq("the replica that stays", stays.0, fuller.1)
    })
    .await
}

/// Whether a Deployment has this number of ready replicas.
fn has(count: i32) -> impl Fn(&Deployment) -> bool {
    move |deployment| {
        deployment.status.as_ref().is_some_and(|status| status.ready_replicas.unwrap_or_default() == count)
    }
}

/// Scales the target on the clients per replica. Returns after more clients have led to more replicas, and fewer
/// clients to fewer replicas.
async fn replicas_follow_clients(name: &str, spec: Value, target: Value) -> Result<()> {
    with_server(name, spec, async |f, _| {
        wait_until_available(shared::cluster_with_node().await?).await?;
        f.kubectl(&["label", "namespace", f.name(), "vpn.beebs.dev/pod-metrics=enabled"]).await?;
        let hpa = json!({
            "metadata": {"name": "home"},
            "spec": {
                "scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3,
                "metrics": [{"type": "Pods", "pods": {
                    "metric": {"name": "openvpn_server_connected_clients"},
                    "target": {"type": "AverageValue", "averageValue": "1"},
                }}],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
            },
        });
        f.create::<HorizontalPodAutoscaler>(serde_json::from_value(hpa)?).await?;
        let names = ["one", "two", "three"];
        for name in names {
            device(f, name).await?;
        }
        f.wait_until("home", "three replicas", has(3)).await?;
        for name in names {
            pod_ready(f.api(), name).await?;
            let log = f.kubectl(&["logs", name, "--container=openvpn"]).await?;
            ensure_eq(name, log.matches("Initialization Sequence Completed").count(), 1)?;
        }
        // Not before all logs are read: the first replica to go would interrupt the clients that are left.
        for name in names {
            f.delete::<Pod>(name).await?;
        }
        f.wait_until("home", "one replica", has(1)).await?;
        let is_told = |server: &OpenVPNServer| server.status.as_ref().and_then(|status| status.replicas) == Some(1);
        f.wait_until("home", "one replica in its status", is_told).await.map(drop)
    })
    .await
}

pub async fn an_autoscaler_scales_the_deployment_on_clients() -> Result<()> {
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "home"});
    replicas_follow_clients("scaled", json!({"drain": {"timeout": "3s"}}), target).await
}

pub async fn an_autoscaler_scales_the_server_on_clients() -> Result<()> {
    let target = json!({"apiVersion": "vpn.beebs.dev/v1", "kind": "OpenVPNServer", "name": "home"});
    replicas_follow_clients("scaled", json!({"replicas": 1, "drain": {"timeout": "3s"}}), target).await
}

/// The walkthrough in the document, unchanged except for the namespace and the images.
pub async fn a_workload_follows_a_metric_that_is_set_by_hand() -> Result<()> {
    let cluster = shared::cluster_with_node().await?;
    node_of(cluster)?.import(&images::openvpn(&executable(cluster).await?)?).await?;
    let operator = verification::operator(VpnService::shared().await?).await?;
    Framework::run(cluster, operator, "fake", async |f| {
        wait_until_available(cluster).await?;
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../operator/docs/autoscaling.md");
        let objects = blocks(&fs::read_to_string(document)?, Some("## Scale on what Pods say"), "yaml");
        let mut objects = objects.concat();
        for (there, here) in [
            ("name: fake\n", &*format!("name: {}\n", f.name())),
            ("namespace: fake\n", &*format!("namespace: {}\n", f.name())),
            ("image: thavlik/vpn-operator:2.0.0", &*format!("image: {}", images::OPENVPN)),
            ("image: registry.example.com/worker:1.0", &*format!("image: {}", images::PAUSE)),
        ] {
            ensure!(objects.contains(there), "the document does not contain {there:?}");
            objects = objects.replace(there, here);
        }
        let dir = tempfile::tempdir()?;
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text)?;
            path.to_str().map(str::to_owned).context("no text")
        };
        f.kubectl(&["apply", "-f", &file("objects.yaml", &objects)?]).await?;
        f.wait_until("fake-metric", "a metric", has(1)).await?;
        // The proxy of the API server reads where a Service leads from this object.
        let leads = |endpoints: &Endpoints| {
            let mut subsets = endpoints.subsets.iter().flatten();
            subsets.any(|subset| subset.addresses.as_ref().is_some_and(|all| !all.is_empty()))
        };
        f.wait_until("fake-metric", "an address", leads).await?;
        let path = format!("/api/v1/namespaces/{}/services/fake-metric:8080/proxy/value", f.name());
        for (value, replicas) in [("50", 5), ("95", 10)] {
            f.kubectl(&["create", "--raw", &path, "-f", &file("value", value)?]).await?;
            f.wait_until("follower", "as many replicas as the metric asks for", has(replicas)).await?;
        }
        Ok(())
    })
    .await
}
