//! The metrics API, asked by kubectl and by the HorizontalPodAutoscalers of a real kube-controller-manager. Each test has
//! its own cluster, because a cluster has one server for an API group.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, ControlPlaneOptions, Framework, Layout, Operator, OperatorOptions,
    operator::metrics_api::wait_until_available,
    testing::framework::{ensure_eq, local_cluster},
};
use k8s_openapi::api::{apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Pod};
use kube::Api;
use serde_json::{Value, json};
use vpn_types::{Mask, MaskConsumer, MaskProvider};

/// Runs a test with an operator, a webhook and the metrics API in a cluster of their own.
async fn alone(body: impl AsyncFnOnce(&Cluster, &Framework, &mut Operator) -> Result<()>) -> Result<()> {
    if local_cluster().await?.is_none() {
        return Ok(());
    }
    let cluster = Cluster::connect(ControlPlaneOptions::default()).await?;
    let options = OperatorOptions::new(Layout::Combined).injection(1).metrics_api();
    let mut operator = Operator::start_with(&cluster, options).await?;
    let f = Framework::new(&cluster, "scaling").await?;
    f.add_logs(&operator);
    f.dump_on_error(async {
        wait_until_available(&cluster).await?;
        body(&cluster, &f, &mut operator).await
    })
    .await?;
    operator.stop().await?;
    cluster.stop().await
}

/// Reads a path of the API server.
async fn raw(f: &Framework, path: &str) -> Result<Value> {
    Ok(serde_json::from_str(&f.kubectl(&["get", "--raw", path]).await?)?)
}

/// Returns the message of the Status with which a path is answered.
async fn failure(f: &Framework, path: &str) -> Result<String> {
    match f.kubectl(&["get", "--raw", path]).await {
        Ok(text) => anyhow::bail!("{path} was answered: {text}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

#[tokio::test]
async fn the_metrics_of_slots_can_be_read_by_kubectl() -> Result<()> {
    alone(async |_, f, _| {
        f.create_provider("vpn", 3).await?;
        f.create_active_mask("one").await?;
        let ns = f.name();
        for version in ["v1beta1", "v1beta2"] {
            let list = raw(f, &format!("/apis/custom.metrics.k8s.io/{version}")).await?;
            ensure_eq(
                "groupVersion",
                list["groupVersion"].as_str(),
                Some(&*format!("custom.metrics.k8s.io/{version}")),
            )?;
            let path = format!("/apis/custom.metrics.k8s.io/{version}/namespaces/{ns}");
            let used = raw(f, &format!("{path}/maskproviders.vpn.beebs.dev/vpn/vpno_provider_slots_used")).await?;
            ensure_eq("slots used", used["items"][0]["value"].as_str(), Some("1"))?;
            ensure_eq("one item", used["items"].as_array().map(Vec::len), Some(1))?;
            ensure_eq(
                "described",
                &used["items"][0]["describedObject"],
                &json!({
                    "kind": "MaskProvider", "namespace": ns, "name": "vpn", "apiVersion": "vpn.beebs.dev/v1",
                }),
            )?;
            let masks = raw(f, &format!("{path}/metrics/vpno_masks?metricLabelSelector=phase%3DActive")).await?;
            ensure_eq("active Masks", masks["items"][0]["value"].as_str(), Some("1"))?;
            let claimable =
                format!("{path}/deployments.apps/none/vpno_claimable_slots?metricLabelSelector=reserve%3D1");
            ensure_eq("claimable", raw(f, &claimable).await?["items"][0]["value"].as_str(), Some("1"))?;
        }
        let external = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{ns}");
        let free = raw(f, &format!("{external}/vpno_provider_slots_free?labelSelector=provider%3Dvpn")).await?;
        ensure_eq("free", free["items"][0]["value"].as_str(), Some("2"))?;
        ensure_eq("labels", &free["items"][0]["metricLabels"], &json!({"namespace": ns, "provider": "vpn"}))?;

        // Errors say what is wrong, and what would be right.
        let custom = format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/{ns}/maskproviders.vpn.beebs.dev");
        let unknown = failure(f, &format!("{custom}/vpn/vpno_other")).await?;
        ensure!(unknown.contains("vpno_provider_slots_free"), "{unknown}");
        let gone = failure(f, &format!("{custom}/gone/vpno_provider_slots")).await?;
        ensure!(gone.contains("NotFound") && gone.contains("gone"), "{gone}");
        let bad = failure(f, &format!("{external}/vpno_masks?labelSelector=a%20b")).await?;
        ensure!(bad.contains("BadRequest"), "{bad}");

        let resources = raw(f, "/apis/custom.metrics.k8s.io/v1beta2").await?.to_string();
        ensure!(resources.contains("maskproviders.vpn.beebs.dev/vpno_provider_slots_demanded"), "{resources}");
        let openapi = raw(f, "/openapi/v3").await?;
        for path in ["apis/custom.metrics.k8s.io/v1beta2", "apis/external.metrics.k8s.io/v1beta1"] {
            ensure!(openapi["paths"].get(path).is_some(), "no {path} in /openapi/v3");
        }
        Ok(())
    })
    .await
}

fn deployment() -> Result<Deployment> {
    let labels = json!({"app": "worker", "vpn.beebs.dev/inject": "true"});
    Ok(serde_json::from_value(json!({
        "metadata": {"name": "worker"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "worker"}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "app", "image": "app"}]},
            },
        },
    }))?)
}

fn autoscaler(metric: &Value, target: &Value, max: usize) -> Result<HorizontalPodAutoscaler> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": "worker"},
        "spec": {
            "scaleTargetRef": target,
            "minReplicas": 1,
            "maxReplicas": max,
            "metrics": [metric],
            "behavior": {
                "scaleUp": {"policies": [{"type": "Percent", "value": 900, "periodSeconds": 15}]},
                "scaleDown": {"stabilizationWindowSeconds": 0},
            },
        },
    }))?)
}

/// Waits until the Deployment has so many Pods that run with a slot.
async fn wait_for_running(f: &Framework, count: usize) -> Result<()> {
    let runs = |pod: &&Pod| {
        pod.metadata.deletion_timestamp.is_none()
            && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
    };
    let holds = |pods: &[Pod]| pods.iter().filter(runs).count() == count && pods.iter().all(|pod| runs(&pod));
    f.wait_until_all::<Pod>(&format!("{count} Pods run"), holds).await.map(drop)
}

/// Waits for so many syncs of the HorizontalPodAutoscaler, and returns the replica counts that it wanted meanwhile.
async fn replicas_over_syncs(f: &Framework, syncs: usize) -> Result<BTreeSet<i32>> {
    let api: Api<Deployment> = f.api();
    let mut seen = BTreeSet::new();
    // The period of kube-controller-manager in these tests is 2 s.
    for _ in 0..syncs {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let replicas = api.get("worker").await?.spec.and_then(|spec| spec.replicas);
        seen.insert(replicas.context("no replicas")?);
    }
    Ok(seen)
}

#[tokio::test]
async fn a_deployment_takes_the_slots_that_are_left_and_gives_them_back() -> Result<()> {
    alone(async |_, f, _| {
        f.create_provider("vpn", 5).await?;
        f.create(deployment()?).await?;
        let metric = json!({
            "type": "Object",
            "object": {
                "describedObject": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "worker"},
                "metric": {"name": "vpno_claimable_slots", "selector": {"matchLabels": {"reserve": "1"}}},
                "target": {"type": "AverageValue", "averageValue": "1"},
            },
        });
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "worker"});
        f.create(autoscaler(&metric, &target, 20)?).await?;
        wait_for_running(f, 4).await?;
        ensure_eq("replicas while nothing changes", replicas_over_syncs(f, 10).await?, [4].into())?;

        // The reserve is there for others.
        f.create_active_mask("first").await?;
        wait_for_running(f, 3).await?;

        // A Mask with a higher priority gets a slot even where none is free.
        let mut urgent = Mask::new("urgent", Default::default());
        urgent.spec.priority = Some(10);
        let low = Mask::new("low", vpn_types::MaskSpec { priority: Some(-1), ..Default::default() });
        f.create(urgent).await?;
        f.wait_active("urgent").await?;
        wait_for_running(f, 2).await?;
        // It takes the reserve, which is then made up for.
        f.create(low).await?;
        f.wait_active("low").await?;
        wait_for_running(f, 1).await?;
        ensure_eq("replicas with others", replicas_over_syncs(f, 5).await?, [1].into())?;

        f.delete::<Mask>("first").await?;
        f.delete::<Mask>("urgent").await?;
        f.delete::<Mask>("low").await?;
        wait_for_running(f, 4).await
    })
    .await
}

#[tokio::test]
async fn the_contract_grows_with_demand_and_never_below_what_is_used() -> Result<()> {
    alone(async |_, f, _| {
        f.create_provider("vpn", 2).await?;
        let metric = json!({
            "type": "Object",
            "object": {
                "describedObject": {"apiVersion": "vpn.beebs.dev/v1", "kind": "MaskProvider", "name": "vpn"},
                "metric": {"name": "vpno_provider_slots_demanded"},
                "target": {"type": "AverageValue", "averageValue": "1"},
            },
        });
        let target = json!({"apiVersion": "vpn.beebs.dev/v1", "kind": "MaskProvider", "name": "vpn"});
        f.create(autoscaler(&metric, &target, 5)?).await?;
        for number in 0..7 {
            f.create_mask(&format!("mask-{number}")).await?;
        }
        let active = |count: usize| {
            move |all: &[MaskConsumer]| all.iter().filter(|one| e2e::wait::is_active(one)).count() == count
        };
        f.wait_until_all::<MaskConsumer>("five slots, as the contract has", active(5)).await?;
        for number in 0..6 {
            f.delete::<Mask>(&format!("mask-{number}")).await?;
        }
        let slots = |wanted: i64| move |provider: &MaskProvider| provider.spec.max_slots as i64 == wanted;
        f.wait_until("vpn", "the contract shrinks to what is used", slots(1)).await?;
        ensure_eq("the last Mask", e2e::wait::is_active(&f.wait_active("mask-6").await?), true)?;
        Ok(())
    })
    .await
}
