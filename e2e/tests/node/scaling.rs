//! OpenVPN servers that get more and fewer replicas while real clients are connected.

use anyhow::Result;
use e2e::{
    cluster::shared, operator::metrics_api::wait_until_available, testing::framework::ensure_eq, vpn::pod_ready,
};
use k8s_openapi::api::{apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Pod};
use serde_json::{Value, json};
use vpn_types::OpenVPNServer;

use crate::servers::{device, replicas, sessions, until, with_server};

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

/// Scales the target by the clients of a replica, and returns when all of that has happened: more clients, more
/// replicas, and fewer again.
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
        let has = |count: i32| {
            move |deployment: &Deployment| {
                deployment.status.as_ref().is_some_and(|status| status.ready_replicas.unwrap_or_default() == count)
            }
        };
        let names = ["one", "two", "three"];
        for name in names {
            device(f, name).await?;
        }
        f.wait_until("home", "three replicas", has(3)).await?;
        for name in names {
            pod_ready(f.api(), name).await?;
            let log = f.kubectl(&["logs", name, "--container=openvpn"]).await?;
            ensure_eq(name, log.matches("Initialization Sequence Completed").count(), 1)?;
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
