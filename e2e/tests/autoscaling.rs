//! The metrics API, asked by kubectl and by the HorizontalPodAutoscalers of a real kube-controller-manager. Each test has
//! its own cluster, because a cluster has one server for an API group.

#[path = "autoscaling/capacity.rs"]
mod capacity;
#[path = "autoscaling/front_proxy.rs"]
mod front_proxy;
#[path = "autoscaling/keda/mod.rs"]
mod keda;
#[path = "autoscaling/pass_through.rs"]
mod pass_through;
#[path = "autoscaling/simulator.rs"]
mod simulator;
#[path = "autoscaling/walkthroughs.rs"]
mod walkthroughs;
#[path = "autoscaling/yardstick.rs"]
mod yardstick;

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, ControlPlaneOptions, Framework, Layout, Operator, OperatorOptions,
    operator::{chart, metrics_api::wait_until_available},
    testing::{
        documents::blocks,
        figures::{memory_kib, report},
        framework::{ensure_eq, local_cluster},
    },
    wait::{Kind, TIMEOUT},
};
use futures::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::runtime::watcher::watch_object;
use serde_json::{Value, json};

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

/// Reads a path of the metrics API until its first value is this one: its process has its own watches.
async fn wait_for_value(f: &Framework, path: &str, value: &str) -> Result<Value> {
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    loop {
        let answer = raw(f, path).await;
        if answer.as_ref().is_ok_and(|answer| answer["items"][0]["value"] == value) {
            return answer;
        }
        ensure!(tokio::time::Instant::now() < deadline, "{path} is not {value}: {answer:?}");
        tokio::time::sleep(SYNC / 10).await;
    }
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
    alone(async |cluster, f, _| {
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
            let used = format!("{path}/maskproviders.vpn.beebs.dev/vpn/vpno_provider_slots_used");
            let used = wait_for_value(f, &used, "1").await?;
            ensure_eq("one item", used["items"].as_array().map(Vec::len), Some(1))?;
            ensure_eq(
                "described",
                &used["items"][0]["describedObject"],
                &json!({
                    "kind": "MaskProvider", "namespace": ns, "name": "vpn", "apiVersion": "vpn.beebs.dev/v1",
                }),
            )?;
            let masks = format!("{path}/metrics/vpno_masks?metricLabelSelector=phase%3DActive");
            wait_for_value(f, &masks, "1").await?;
            let claimable =
                format!("{path}/deployments.apps/none/vpno_claimable_slots?metricLabelSelector=reserve%3D1");
            wait_for_value(f, &claimable, "1").await?;
        }
        let external = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{ns}");
        let free = format!("{external}/vpno_provider_slots_free?labelSelector=provider%3Dvpn");
        let free = wait_for_value(f, &free, "2").await?;
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

        // The API groups have a server, so the chart does not take them.
        let install = ["install", "other", chart::DIR, "--dry-run=server", "--set=metricsApi.external=true"];
        let refused = cluster.run_helm(&install).await.err().context("helm took the APIService of somebody else")?;
        let why = "APIService v1beta1.external.metrics.k8s.io belongs to Service vpn-operator/vpn-operator-metrics-api";
        ensure!(format!("{refused:#}").contains(why), "{refused:#}");
        Ok(())
    })
    .await
}

/// The document with the walkthroughs.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../operator/docs/autoscaling.md");

/// Applies the objects in a section of the document.
async fn apply(f: &Framework, heading: &str) -> Result<()> {
    let objects = blocks(&std::fs::read_to_string(DOCUMENT)?, Some(heading), "yaml");
    ensure!(!objects.is_empty(), "no objects under {heading}");
    apply_text(f, &objects.join("---\n")).await
}

async fn apply_text(f: &Framework, text: &str) -> Result<()> {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    std::fs::write(file.path(), text)?;
    f.kubectl(&["apply", "-f", file.path().to_str().context("no text")?]).await.map(drop)
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

/// The period of HorizontalPodAutoscalers in the kube-controller-manager of these tests.
const SYNC: Duration = Duration::from_secs(2);

/// Watches a Deployment for so many syncs of its HorizontalPodAutoscaler, and returns all replica counts that it has
/// meanwhile.
async fn replicas_over_syncs(f: &Framework, deployment: &str, syncs: u32) -> Result<BTreeSet<i32>> {
    seen_over_syncs(f, deployment, syncs, replicas).await
}

/// The replicas of a Deployment.
fn replicas(deployment: &Deployment) -> Option<i32> {
    deployment.spec.as_ref()?.replicas
}

/// Watches the target of a HorizontalPodAutoscaler for so many syncs, and returns all values that it has meanwhile.
async fn seen_over_syncs<K: Kind>(
    f: &Framework,
    name: &str,
    syncs: u32,
    value: impl Fn(&K) -> Option<i32>,
) -> Result<BTreeSet<i32>> {
    let end = tokio::time::Instant::now() + SYNC * syncs;
    let mut watch = std::pin::pin!(watch_object(f.api::<K>(), name));
    let mut seen = BTreeSet::new();
    while let Ok(next) = tokio::time::timeout_at(end, watch.next()).await {
        seen.extend(value(&next.context("the watch ended")??.context("it is gone")?));
    }
    Ok(seen)
}

/// Returns the values of the target of a HorizontalPodAutoscaler that differ from the one before, from the first change
/// on, until `done` is true for them.
async fn changes<K: Kind>(
    f: &Framework,
    name: &str,
    value: impl Fn(&K) -> Option<i32>,
    done: impl Fn(&[i32]) -> bool,
) -> Result<Vec<i32>> {
    let mut seen: Vec<i32> = Vec::new();
    let mut watch = std::pin::pin!(watch_object(f.api::<K>(), name));
    while seen.is_empty() || !done(&seen[1..]) {
        let next =
            tokio::time::timeout(TIMEOUT, watch.next()).await.with_context(|| format!("no more than {seen:?}"))?;
        if let Some(value) = next.context("the watch ended")??.as_ref().and_then(&value)
            && seen.last() != Some(&value)
        {
            seen.push(value);
        }
    }
    Ok(seen.split_off(1))
}

/// Asks the process itself, past the API server, and returns the HTTP status. The response is read to its end, so that
/// its connection can be used again.
async fn status(client: &kube::Client, path: &str, user: Option<&str>) -> Result<u16> {
    let mut request = http::Request::get(path);
    if let Some(user) = user {
        request = request.header("X-Remote-User", user).header("X-Remote-Group", "system:masters");
    }
    let response = client.send(request.body(kube::client::Body::empty())?).await?;
    let status = response.status().as_u16();
    response.into_body().collect().await?;
    Ok(status)
}

/// Sends so many queries at once, and returns how long each took.
async fn at_once(client: &kube::Client, path: &str, count: usize) -> Result<Vec<Duration>> {
    let ask = |_| async {
        let began = std::time::Instant::now();
        ensure_eq("status", status(client, path, None).await?, 200)?;
        anyhow::Ok(began.elapsed())
    };
    futures::stream::iter(0..count).map(ask).buffer_unordered(count).try_collect().await
}

#[tokio::test]
async fn only_known_users_with_permission_get_metrics() -> Result<()> {
    alone(async |cluster, f, operator| {
        f.create_provider("vpn", 3).await?;
        let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/vpno_provider_slots", f.name());

        // A user who may read the metrics of another namespace only.
        f.kubectl(&["create", "role", "reader", "--verb=list", "--resource=vpno_provider_slots.external.metrics.k8s.io"])
            .await?;
        f.kubectl(&["create", "rolebinding", "reader", "--role=reader", "--user=jane"]).await?;
        let elsewhere = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/vpno_provider_slots";
        f.kubectl(&["get", "--raw", &path, "--as=jane"]).await?;
        let refused = f.kubectl(&["get", "--raw", elsewhere, "--as=jane"]).await;
        ensure!(format!("{:#}", refused.err().context("answered")?).contains("forbidden"));

        // Past the API server: by certificate, with a name that only the front proxy may give, and by nobody.
        let Cluster::Local(local) = cluster else { return Ok(()) };
        let mut config = local.admin().config.clone();
        config.cluster_url = operator.metrics_api().context("no metrics API")?.parse()?;
        config.accept_invalid_certs = true;
        let admin = kube::Client::try_from(config.clone())?;
        ensure_eq("an administrator", status(&admin, &path, None).await?, 200)?;
        config.auth_info = Default::default();
        let nobody = kube::Client::try_from(config)?;
        ensure_eq("without credentials", status(&nobody, &path, None).await?, 403)?;
        ensure_eq("with a made-up name", status(&nobody, &path, Some("kubernetes-admin")).await?, 403)?;
        ensure_eq("health", status(&nobody, "/healthz", None).await?, 200)?;
        ensure_eq("readiness", status(&nobody, "/readyz", None).await?, 200)?;

        // A slow machine does not complete 1,000 TLS handshakes in time, so only some connections are opened at once.
        for count in (50..1000).step_by(50) {
            at_once(&admin, "/healthz", count).await?;
        }
        // How long 1,000 queries at once take, beside the health check of the same server.
        let mut p99 = Vec::new();
        for path in ["/healthz", &path, "/healthz", &path] {
            let mut times = at_once(&admin, path, 1000).await?;
            times.sort();
            p99.push(times[989]);
        }
        let memory = operator.pids().map(|pid| memory_kib(pid, "VmHWM:")).collect::<Result<Vec<_>>>()?;
        report(&format!(
            "1,000 queries at once, p99: /healthz {:?}, metric {:?}, /healthz {:?}, metric {:?}; ratio {:.2}; peak memory of \
             the operator's processes {memory:?} KiB",
            p99[0],
            p99[1],
            p99[2],
            p99[3],
            p99[3].as_secs_f64() / p99[2].as_secs_f64()
        ));
        Ok(())
    })
    .await
}
