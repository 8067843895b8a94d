//! The metrics API, asked by kubectl and by the HorizontalPodAutoscalers of a real kube-controller-manager. Each test has
//! its own cluster, because a cluster has one server for an API group.

#[path = "autoscaling/keda/mod.rs"]
mod keda;
#[path = "autoscaling/pass_through.rs"]
mod pass_through;
#[path = "autoscaling/yardstick.rs"]
mod yardstick;

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, ControlPlaneOptions, Framework, Layout, Operator, OperatorOptions,
    operator::{chart, executable, metrics_api::wait_until_available},
    testing::{
        documents::blocks,
        figures::{memory_kib, report},
        framework::{ensure_eq, local_cluster},
    },
    wait::TIMEOUT,
};
use futures::StreamExt;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::runtime::watcher::watch_object;
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
    let end = tokio::time::Instant::now() + SYNC * syncs;
    let mut watch = std::pin::pin!(watch_object(f.api::<Deployment>(), deployment));
    let mut seen = BTreeSet::new();
    while let Ok(next) = tokio::time::timeout_at(end, watch.next()).await {
        let deployment = next.context("the watch ended")??.context("it is gone")?;
        seen.extend(deployment.spec.and_then(|spec| spec.replicas));
    }
    Ok(seen)
}

#[tokio::test]
async fn a_deployment_takes_the_slots_that_are_left_and_gives_them_back() -> Result<()> {
    alone(async |_, f, _| {
        f.create_provider("vpn", 5).await?;
        apply(f, "## Take the slots that are left").await?;
        wait_for_running(f, 4).await?;
        ensure_eq("replicas while nothing changes", replicas_over_syncs(f, "worker", 10).await?, [4].into())?;

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
        ensure_eq("replicas with others", replicas_over_syncs(f, "worker", 5).await?, [1].into())?;

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
        apply(f, "## Let the contract follow the demand").await?;
        for number in 0..7 {
            f.create_mask(&format!("mask-{number}")).await?;
        }
        let active = |count: usize| {
            move |all: &[MaskConsumer]| all.iter().filter(|one| e2e::wait::is_active(one)).count() == count
        };
        f.wait_until_all::<MaskConsumer>("five slots, as the contract has", active(5)).await?;
        let at_once = r#"{"spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}}"#;
        f.kubectl(&["patch", "hpa", "contract", "--type=merge", "--patch", at_once]).await?;
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

/// An HPA that multiplies its replicas by the free slots: it oscillates.
const ON_FREE_SLOTS: &str = "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: worker}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: worker}
  minReplicas: 1
  maxReplicas: 20
  metrics:
    - type: External
      external:
        metric:
          name: vpno_provider_slots_free
          selector:
            matchLabels: {provider: vpn}
        target: {type: Value, value: '2'}
  behavior:
    scaleUp:
      policies: [{type: Percent, value: 900, periodSeconds: 2}]
    scaleDown:
      stabilizationWindowSeconds: 0
";

/// Returns the replica counts that `vpn-operator hpa simulate` predicts for a manifest, one after the other.
async fn simulated(cluster: &Cluster, manifest: &str, slots: usize, count: usize) -> Result<Vec<i32>> {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    std::fs::write(file.path(), manifest)?;
    let mut command = tokio::process::Command::new(executable(cluster).await?);
    command.args(["hpa", "simulate", file.path().to_str().context("no text")?, "--slots", &slots.to_string()]);
    command.args(["--sync-period", "2s", "--duration", "60s", "--pod-delay", "0s", "--output", "csv"]);
    let output = command.output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let replicas = text.lines().skip(1).map(|line| Ok(line.split(',').nth(3).context(line.to_owned())?.parse()?));
    let mut replicas = replicas.collect::<Result<Vec<i32>>>()?;
    replicas.dedup();
    replicas.truncate(count);
    Ok(replicas)
}

/// Returns the replica counts of the Deployment that differ from the one before, from the first change on, until `done`
/// is true for them.
async fn observed(f: &Framework, done: impl Fn(&[i32]) -> bool) -> Result<Vec<i32>> {
    let mut seen: Vec<i32> = Vec::new();
    let mut watch = std::pin::pin!(watch_object(f.api::<Deployment>(), "worker"));
    while seen.is_empty() || !done(&seen[1..]) {
        let next =
            tokio::time::timeout(TIMEOUT, watch.next()).await.with_context(|| format!("no more than {seen:?}"))?;
        let deployment = next.context("the watch ended")??;
        if let Some(replicas) = deployment.and_then(|one| one.spec?.replicas)
            && seen.last() != Some(&replicas)
        {
            seen.push(replicas);
        }
    }
    Ok(seen.split_off(1))
}

#[tokio::test]
async fn the_simulator_predicts_what_the_controller_does() -> Result<()> {
    alone(async |cluster, f, _| {
        f.create_provider("vpn", 20).await?;
        let text =
            blocks(&std::fs::read_to_string(DOCUMENT)?, Some("## Take the slots that are left"), "yaml").concat();
        let (deployment, good) = text.split_once("---\n").context("one object")?;
        apply_text(f, deployment).await?;
        wait_for_running(f, 1).await?;

        let wanted = simulated(cluster, ON_FREE_SLOTS, 20, 6).await?;
        ensure_eq("the simulator", &wanted[..], &[10, 20, 1, 10, 20, 1][..])?;
        // How far and how fast it swings depends on when Pods start and slots are released, that it does so does not.
        let falls_twice = |seen: &[i32]| seen.windows(2).filter(|pair| pair[1] < pair[0]).count() == 2;
        let swings = observed(f, falls_twice);
        tokio::try_join!(apply_text(f, ON_FREE_SLOTS), swings).context("an HPA on free slots settles")?;

        let wanted = simulated(cluster, good, 20, 6).await?;
        f.kubectl(&["delete", "hpa", "worker"]).await?;
        f.kubectl(&["scale", "deployment/worker", "--replicas=1"]).await?;
        wait_for_running(f, 1).await?;
        let (_, seen) = tokio::try_join!(apply_text(f, good), observed(f, |seen| seen.len() == wanted.len()))?;
        ensure_eq("an HPA on claimable slots", &seen, &wanted)?;
        ensure_eq("then nothing changes", replicas_over_syncs(f, "worker", 20).await?, [19].into())
    })
    .await
}

/// Asks the process itself, past the API server, and returns the HTTP status.
async fn status(client: &kube::Client, path: &str, user: Option<&str>) -> Result<u16> {
    let mut request = http::Request::get(path);
    if let Some(user) = user {
        request = request.header("X-Remote-User", user).header("X-Remote-Group", "system:masters");
    }
    let response = client.send(request.body(kube::client::Body::empty())?).await?;
    Ok(response.status().as_u16())
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

        // How long 1,000 queries at once take, beside the health check of the same server.
        let mut p99 = Vec::new();
        for path in ["/healthz", &path, "/healthz", &path] {
            let ask = |_| async {
                let began = std::time::Instant::now();
                ensure_eq("status", status(&admin, path, None).await?, 200)?;
                anyhow::Ok(began.elapsed())
            };
            let times = futures::stream::iter(0..1000).map(ask).buffer_unordered(1000).collect::<Vec<_>>().await;
            let mut times = times.into_iter().collect::<Result<Vec<_>>>()?;
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

/// The rest of the cluster: kwok's node has 1,000 CPUs.
#[tokio::test]
async fn a_workload_fills_what_the_rest_of_the_cluster_leaves() -> Result<()> {
    alone(async |_, f, _| {
        let text = std::fs::read_to_string(DOCUMENT)?;
        let hpa = blocks(&text, Some("## Fill the rest of the cluster"), "yaml").concat();
        let labels = r#"cpu: "1", memory: 512Mi, reserve-cpu: "30""#;
        ensure!(hpa.contains(labels), "{hpa}");
        let hpa = hpa.replace(labels, r#"cpu: "100", reserve-cpu: "250""#);
        apply_text(f, BATCH).await?;
        apply_text(f, &hpa).await?;
        wait_for_running(f, 7).await?;
        ensure_eq("replicas while nothing changes", replicas_over_syncs(f, "batch", 5).await?, [7].into())?;
        let value = format!(
            "/apis/custom.metrics.k8s.io/v1beta2/namespaces/{}/services/batch/cpu_capacity_available\
             ?metricLabelSelector=reserve-cpu%3D250",
            f.name()
        );
        ensure_eq("millicores", raw(f, &value).await?["items"][0]["value"].as_str(), Some("750000"))?;
        let without = failure(f, &value.replace("cpu_capacity_available", "replicas_that_fit")).await?;
        ensure!(without.contains("needs the label cpu or memory"), "{without}");

        // What others request is theirs. The HPA gives it back when its window of stabilization ends, 5 minutes by default.
        let at_once = r#"{"spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}}"#;
        f.kubectl(&["patch", "hpa", "batch", "--type=merge", "--patch", at_once]).await?;
        f.create::<Pod>(serde_json::from_value(json!({
            "metadata": {"name": "other"},
            "spec": {"containers": [{
                "name": "app", "image": "app", "resources": {"requests": {"cpu": "300"}, "limits": {"cpu": "300"}},
            }]},
        }))?)
        .await?;
        // The other one runs too.
        wait_for_running(f, 5).await?;
        ensure_eq("replicas with others", replicas_over_syncs(f, "batch", 3).await?, [4].into())
    })
    .await
}

const BATCH: &str = "
apiVersion: v1
kind: Service
metadata: {name: batch}
spec:
  selector: {app: batch}
  ports: [{port: 80}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: batch}
spec:
  selector:
    matchLabels: {app: batch}
  template:
    metadata:
      labels: {app: batch}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - {name: app, image: app, resources: {requests: {cpu: '100'}, limits: {cpu: '100'}}}
";
