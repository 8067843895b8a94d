//! The walkthrough with KEDA, with its real operator and its real metrics server.
//!
//! These tests are ignored unless they are asked for, because they build KEDA (`e2e/keda`):
//! `cargo test -p e2e --test autoscaling keda -- --ignored`.

mod processes;
mod triggers;

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, ControlPlaneOptions, Framework, Layout, Operator, OperatorOptions,
    operator::{self, chart, metrics_api},
    testing::{
        documents::blocks,
        framework::{ensure_eq, local_cluster},
    },
    wait::{TIMEOUT, is_active},
};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskSpec};

use crate::{DOCUMENT, apply_text, failure, pass_through, raw, replicas_over_syncs, wait_for_running};
use processes::{Keda, NAMESPACE, SERVICE, Setup};

/// The section of the document.
const HEADING: &str = "## With KEDA";
/// The namespace in the document.
const MEDIA: &str = "media";

/// Returns the values and the ScaledObject of the document, for the namespace of the test.
fn document(f: &Framework) -> Result<(String, String)> {
    let found = blocks(&std::fs::read_to_string(DOCUMENT)?, Some(HEADING), "yaml");
    let [values, object] = found.try_into().ok().context("not two blocks")?;
    Ok((values.replace(MEDIA, f.name()), object.replace(MEDIA, f.name())))
}

/// Returns the variable of the metrics API that names the workloads, and the address of its `/metrics`, as the chart
/// renders them with the values of the document.
async fn rendered(cluster: &Cluster, values: &str) -> Result<(String, String)> {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    std::fs::write(file.path(), values)?;
    let objects = chart::render(cluster, &["--values", file.path().to_str().context("no text")?]).await?;
    let of = |kind: &str| {
        let found =
            |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == "vpn-operator-metrics-api";
        objects.iter().find(found).with_context(|| format!("the chart has no {kind}"))
    };
    let named = |list: &Value, name: &str, key: &str| {
        let one = list.as_array().into_iter().flatten().find(|one| one["name"] == name);
        one.map(|one| one[key].clone()).with_context(|| format!("no {name} in {list}"))
    };
    let env = &of("Deployment")?["spec"]["template"]["spec"]["containers"][0]["env"];
    let claims = named(env, "METRICS_API_CLAIMS", "value")?.as_str().context("no text")?.to_owned();
    let service = of("Service")?;
    let (name, namespace) = (&service["metadata"]["name"], &service["metadata"]["namespace"]);
    let port = named(&service["spec"]["ports"], "metrics", "port")?;
    let host = format!("{}.{}.svc", name.as_str().context("no name")?, namespace.as_str().context("no namespace")?);
    Ok((claims, format!("{host}:{port}")))
}

/// Runs a test with KEDA, an operator and a webhook in a cluster of their own. The body gets the ScaledObject of the
/// document, with the address of this `/metrics` instead of a Service.
async fn with_keda(
    setup: Setup,
    body: impl AsyncFnOnce(&Cluster, &Framework, &Keda, &str) -> Result<()>,
) -> Result<()> {
    if local_cluster().await?.is_none() {
        return Ok(());
    }
    let cluster = Cluster::connect(ControlPlaneOptions::default()).await?;
    let f = Framework::new(&cluster, MEDIA).await?;
    let (values, object) = document(&f)?;
    let (claims, service) = rendered(&cluster, &values).await?;
    ensure!(object.contains(&service), "{object} does not name {service}");
    let keda = Keda::start(&cluster, setup).await?;
    let options = OperatorOptions::new(Layout::Combined).injection(1).env("METRICS_API_CLAIMS", &claims);
    let options = match setup {
        Setup::Alone => options.metrics_service(),
        Setup::Behind => {
            operator::install(&cluster).await?;
            pass_through::apply(&cluster, &in_front(&cluster).await?).await?;
            options
                .metrics_api()
                .env("METRICS_API_PASS_THROUGH_EXTERNAL", &format!("https://localhost:{}", keda.port))
                .env("METRICS_API_PASS_THROUGH_EXTERNAL_CA", &keda.ca.display().to_string())
        }
    };
    let operator = Operator::start_with(&cluster, options).await?;
    f.add_logs(&operator);
    for process in [&keda.operator, &keda.adapter] {
        f.namespace.add_log(&process.spec().log);
    }
    f.dump_on_error(async {
        let address = operator.metrics_service().context("no metrics API")?;
        metrics_api::wait_until_available(&cluster).await?;
        body(&cluster, &f, &keda, &object.replace(&service, &address)).await
    })
    .await?;
    operator.stop().await?;
    cluster.stop().await
}

/// The permissions of a metrics API in front of KEDA.
async fn in_front(cluster: &Cluster) -> Result<String> {
    let external = "--set=metricsApi.passThrough.external";
    let values = [
        format!("{external}.service.namespace={NAMESPACE}"),
        format!("{external}.service.name={SERVICE}"),
        format!("{external}.caSecret=keda-ca"),
    ];
    let values: Vec<_> = chart::METRICS_API.map(str::to_owned).into_iter().chain(values).collect();
    chart::render_rights(cluster, &values).await
}

/// Applies the Deployment of the first walkthrough, and a ScaledObject.
async fn apply(f: &Framework, object: &str) -> Result<()> {
    let text = blocks(&std::fs::read_to_string(DOCUMENT)?, Some("## Take the slots that are left"), "yaml").concat();
    let (deployment, _) = text.split_once("---\n").context("one object")?;
    apply_text(f, deployment).await?;
    apply_text(f, object).await
}

/// Applies a ScaledObject, which takes four of five slots and then changes nothing.
async fn take_slots(f: &Framework, object: &str) -> Result<()> {
    f.create_provider("vpn", 5).await?;
    apply(f, object).await?;
    wait_for_running(f, 4).await?;
    ensure_eq("replicas while nothing changes", replicas_over_syncs(f, "worker", 20).await?, [4].into())
}

/// Creates two Masks that go first. One of them takes the reserve, and the replicas make up for it.
async fn give_back(f: &Framework) -> Result<()> {
    urgent(f, 2).await?;
    f.wait_active("urgent-0").await?;
    f.wait_active("urgent-1").await?;
    wait_for_running(f, 2).await
}

/// Masks that go before the workload.
async fn urgent(f: &Framework, count: usize) -> Result<()> {
    for number in 0..count {
        f.create(Mask::new(&format!("urgent-{number}"), MaskSpec { priority: Some(10), ..Default::default() })).await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "builds KEDA: 16 minutes of processor time"]
async fn keda_takes_the_slots_that_are_left_and_scales_to_zero() -> Result<()> {
    with_keda(Setup::Alone, async |_, f, _, object| {
        take_slots(f, object).await?;

        give_back(f).await?;
        ensure_eq("replicas with others", replicas_over_syncs(f, "worker", 5).await?, [2].into())?;
        f.delete::<Mask>("urgent-0").await?;
        f.delete::<Mask>("urgent-1").await?;
        wait_for_running(f, 4).await?;

        // KEDA itself scales to zero and back.
        let zero = json!({"spec": {"minReplicaCount": 0, "cooldownPeriod": 4, "pollingInterval": 2}});
        f.kubectl(&["patch", "scaledobject", "worker", "--type=merge", "--patch", &zero.to_string()]).await?;
        urgent(f, 5).await?;
        let replicas = |wanted: i32| {
            move |deployment: &Deployment| deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(wanted)
        };
        f.wait_until("worker", "no replicas", replicas(0)).await?;
        for number in 0..5 {
            f.wait_active(&format!("urgent-{number}")).await?;
        }
        ensure_eq("replicas without slots", replicas_over_syncs(f, "worker", 5).await?, [0].into())?;
        for number in 0..5 {
            f.delete::<Mask>(&format!("urgent-{number}")).await?;
        }
        wait_for_running(f, 4).await
    })
    .await
}

#[tokio::test]
#[ignore = "builds KEDA: 16 minutes of processor time"]
async fn keda_lets_the_contract_follow_the_demand() -> Result<()> {
    with_keda(Setup::Alone, async |_, f, _, object| {
        f.create_provider("vpn", 2).await?;
        apply_text(f, &contract(f, object)?).await?;
        for number in 0..7 {
            f.create_mask(&format!("mask-{number}")).await?;
        }
        let active = |all: &[MaskConsumer]| all.iter().filter(|one| is_active(one)).count() == 5;
        f.wait_until_all::<MaskConsumer>("five slots, as the contract has", active).await?;
        for number in 0..6 {
            f.delete::<Mask>(&format!("mask-{number}")).await?;
        }
        let slots = |wanted: usize| move |provider: &MaskProvider| provider.spec.max_slots == wanted;
        f.wait_until("vpn", "the contract shrinks to what is used", slots(1)).await?;
        // If its slot had a higher number, it gets another one.
        f.wait_active("mask-6").await.map(drop)
    })
    .await
}

/// Returns the ScaledObject for the contract: the one of the document, with what the text below it says.
fn contract(f: &Framework, object: &str) -> Result<String> {
    let text = std::fs::read_to_string(DOCUMENT)?;
    let target = "{apiVersion: vpn.beebs.dev/v1, kind: MaskProvider, name: vpn}";
    let value = r#"vpno_provider_slots_demanded{namespace="media",provider="vpn"}"#;
    for part in [target, value] {
        ensure!(text.contains(&format!("`{part}`")), "the document does not name {part}");
    }
    let mut object: Value = serde_yaml::from_str(object)?;
    let spec = &mut object["spec"];
    spec["scaleTargetRef"] = serde_yaml::from_str(target)?;
    spec["maxReplicaCount"] = json!(5);
    spec["triggers"][0]["metadata"]["valueLocation"] = json!(value.replace(MEDIA, f.name()));
    Ok(object.to_string())
}

#[tokio::test]
#[ignore = "builds KEDA: 16 minutes of processor time"]
async fn keda_scales_behind_the_metrics_api() -> Result<()> {
    with_keda(Setup::Behind, async |_, f, keda, object| {
        take_slots(f, object).await?;

        // Both are read at one place.
        let external = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{}", f.name());
        let own = raw(f, &format!("{external}/vpno_provider_slots?labelSelector=provider%3Dvpn")).await?;
        ensure_eq("our metric", own["items"][0]["value"].as_str(), Some("5"))?;
        let scaled: Value = serde_json::from_str(&f.kubectl(&["get", "scaledobject/worker", "--output=json"]).await?)?;
        let metric = scaled["status"]["externalMetricNames"][0].as_str().context("no metric")?;
        let metric = metric.replace('"', "%22").replace('{', "%7B").replace('}', "%7D");
        let path = format!("{external}/{metric}");
        let of_keda = raw(f, &format!("{path}?labelSelector=scaledobject.keda.sh%2Fname%3Dworker")).await?;
        ensure_eq("KEDA's metric", of_keda["items"][0]["value"].as_str(), Some("4"))?;

        // Without KEDA, our own metrics are as before.
        keda.adapter.stop(TIMEOUT).await?;
        let message = failure(f, &path).await?;
        ensure!(message.contains("ServiceUnavailable") && message.contains("gives no answer"), "{message}");
        raw(f, &format!("{external}/vpno_provider_slots")).await.map(drop)
    })
    .await
}
