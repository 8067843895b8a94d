//! A real Prometheus Operator generates the configuration of a Prometheus from the chart's PodMonitors and its
//! PrometheusRule. With this configuration, a real Prometheus discovers the Pods of the operator.
//!
//! These tests are ignored unless they are asked for, because they build both programs (`e2e/prometheus-operator` and
//! `e2e/prometheus`): `cargo test -p e2e --test metrics discovery -- --ignored`.

mod comparison;
mod prometheus_operator;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, ControlPlaneOptions, Framework, ProcessSpec, Prometheus,
    host::{go, notice},
    operator::{
        chart::{self, RELEASE},
        executable,
        webhook::free_port,
    },
    testing::{
        framework::{ensure_eq, local_cluster},
        prometheus::{Programs, Sample},
    },
    wait::TIMEOUT,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use vpn_types::SERVER_LABEL;

use crate::{
    CHART, RULES, alerts_fire, found, known,
    world::{NODE, World, render},
};

const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/prometheus");
/// They leave out service discovery for other platforms, so that less has to be built.
const TAGS: [&str; 2] = ["remove_all_sd", "enable_kubernetes_sd"];

/// The kinds of the chart that the Prometheus Operator reads.
const KINDS: [&str; 3] = ["PodMonitor", "PrometheusRule", "ServiceMonitor"];

/// Returns the programs of the current Prometheus.
async fn programs() -> Result<Programs> {
    // The tests of this process run at the same time, and share one build.
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    let build = || {
        notice("building Prometheus, if that is not done yet: 4 minutes of processor time");
        go::tools_with_tags(Path::new(MODULE), "prometheus", &TAGS)
    };
    let built = BUILT.get_or_try_init(async || tokio::task::spawn_blocking(build).await?).await?;
    Ok(Programs::in_dir(built.clone()))
}

/// Returns the objects that the Prometheus Operator reads.
fn monitoring(objects: Vec<Value>) -> impl Iterator<Item = Value> {
    objects.into_iter().filter(|object| KINDS.iter().any(|kind| object["kind"] == *kind))
}

/// Returns such objects of the chart with all of its options, and of the chart `openvpn`.
async fn all_monitoring(cluster: &Cluster) -> Result<Vec<Value>> {
    let mut args = vec!["--set=prometheus.podMonitors=true".to_owned(), chart::SERVERS.to_owned()];
    args.extend(chart::METRICS_API.map(str::to_owned));
    args.extend(chart::injection_args(None));
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let combined = ["--set=prometheus.podMonitors=true", "--set=combined.enabled=true"];
    let openvpn = ["--set=exporterService.enabled=true", "--set=serviceMonitor.enabled=true"];
    let mut objects: Vec<_> = monitoring(render(cluster).await?).collect();
    for more in [
        chart::render(cluster, &args).await?,
        chart::render(cluster, &combined).await?,
        chart::render_openvpn(cluster, &openvpn).await?,
    ] {
        let known = |object: &Value| objects.iter().any(|known| known == object);
        let new: Vec<_> = monitoring(more).filter(|object| !known(object)).collect();
        objects.extend(new);
    }
    Ok(objects)
}

#[tokio::test]
#[ignore = "builds Prometheus: 4 minutes of processor time"]
async fn the_alerts_fire_in_the_current_prometheus_when_they_should() -> Result<()> {
    alerts_fire(&programs().await?)
}

#[tokio::test]
#[ignore = "builds Prometheus and the Prometheus Operator: 8 minutes of processor time"]
async fn the_scrape_configurations_are_those_of_the_prometheus_operator() -> Result<()> {
    if local_cluster().await?.is_none() {
        return Ok(());
    }
    let programs = programs().await?;
    let cluster = Cluster::connect(ControlPlaneOptions::default()).await?;
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": RELEASE } });
    let objects = all_monitoring(&cluster).await?;
    let of_kind = |kind: &str| objects.iter().filter(|object| object["kind"] == kind).cloned().collect::<Vec<_>>();
    let generated = prometheus_operator::generate(&cluster, &[&[namespace][..], &objects].concat()).await?;
    let monitors = of_kind("PodMonitor");
    for name in ["masks", "servers", "metrics-api", "webhook", "openvpn"].map(|part| format!("{RELEASE}-{part}")) {
        ensure!(monitors.iter().any(|monitor| monitor["metadata"]["name"] == name), "no PodMonitor {name}");
    }
    comparison::compare(&generated, &monitors)?;
    let service_monitors = of_kind("ServiceMonitor");
    ensure_eq("ServiceMonitors", service_monitors.len(), 1)?;
    ensure!(generated.job("serviceMonitor/vpn-operator/openvpn/0").is_some(), "no job for {service_monitors:?}");
    let (success, text) = programs.promtool(&["check", "config", &generated.file.to_string_lossy()], "")?;
    ensure!(success, "{text}");
    cluster.stop().await
}

#[tokio::test]
#[ignore = "builds Prometheus and the Prometheus Operator: 8 minutes of processor time"]
async fn prometheus_discovers_the_pods_and_knows_what_the_operator_does() -> Result<()> {
    if local_cluster().await?.is_none() {
        return Ok(());
    }
    let programs = programs().await?;
    let cluster = Cluster::connect(ControlPlaneOptions::default()).await?;
    let f = Framework::new(&cluster, "discovery").await?;
    let test = async {
        let world = World::start(&cluster, &f).await?;
        let generated = prometheus_operator::generate(&cluster, &all_monitoring(&cluster).await?).await?;
        let prometheus = Prometheus::start_with(&cluster, &programs, &generated.file).await?;
        f.namespace.add_log(prometheus.log());
        found(&prometheus).await?;
        let jobs: Vec<_> = world.parts.iter().map(|part| format!("podMonitor/{RELEASE}/{}/0", part.name)).collect();
        comparison::compare_targets(&prometheus, &jobs, &world.targets).await?;
        known(&f, &world, &prometheus, &programs).await?;
        rules(&prometheus).await?;
        a_server(&cluster, &f, &prometheus).await?;
        changes(&cluster, &world, &prometheus).await?;
        world.stop().await
    };
    f.dump_on_error(test).await?;
    cluster.stop().await
}

/// Prometheus discovers an OpenVPN server in another namespace, and adds its name.
async fn a_server(cluster: &Cluster, f: &Framework, prometheus: &Prometheus) -> Result<()> {
    let (port, dir) = (free_port()?, cluster.state_dir().join("exporter"));
    std::fs::create_dir(&dir)?;
    let spec = ProcessSpec::new("exporter", executable(cluster).await?, dir.join("log"))
        .arg("openvpn-exporter")
        .flag("web.listen-address", format_args!("127.0.0.1:{port}"))
        .path_flag("openvpn.management", &dir.join("management.sock"))
        .path_flag("config-dir", &dir)
        .path_flag("run-dir", &dir);
    let exporter = cluster.run(spec).await?;
    f.namespace.add_log(&exporter.spec().log);
    let pod = json!({
        "metadata": { "name": "home-0", "labels": { SERVER_LABEL: "home" } },
        "spec": {
            "hostNetwork": true,
            "nodeSelector": { "kubernetes.io/hostname": NODE },
            "tolerations": [{ "operator": "Exists" }],
            "containers": [
                { "name": "openvpn", "image": "any", "ports": [{ "name": "openvpn", "containerPort": 1194 }] },
                { "name": "exporter", "image": "any", "ports": [{ "name": "metrics", "containerPort": port }] },
            ],
        },
    });
    f.create::<Pod>(serde_json::from_value(pod)?).await?;
    let labels = format!("{{server=\"home\",namespace=\"{}\",pod=\"home-0\",container=\"exporter\"}}", f.name());
    prometheus.wait_until_value(&format!("up{labels}"), 1.0).await?;
    // OpenVPN itself does not run here.
    prometheus.wait_until_value(&format!("openvpn_up{labels}"), 0.0).await
}

/// Prometheus evaluates each alert of the chart without errors.
async fn rules(prometheus: &Prometheus) -> Result<()> {
    let names = |groups: &Value, name: &str| -> Vec<String> {
        let groups = groups["groups"].as_array().into_iter().flatten();
        let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
        rules.filter_map(|rule| Some(rule[name].as_str()?.to_owned())).collect()
    };
    let file: Value = serde_yaml::from_str(&std::fs::read_to_string(Path::new(CHART).join(RULES))?)?;
    let evaluated = |answer: &Value| names(answer, "health").iter().all(|health| health == "ok");
    let loaded = prometheus.wait_for_answer("/api/v1/rules", "an evaluation of all rules", evaluated).await?;
    let alerts = names(&file, "alert");
    ensure!(!alerts.is_empty(), "{RULES} has no alerts");
    ensure_eq("the alerts", names(&loaded, "name"), alerts)
}

/// Prometheus follows Pods that come and go. Nothing changes its configuration.
async fn changes(cluster: &Cluster, world: &World<'_>, prometheus: &Prometheus) -> Result<()> {
    let pods = |samples: &[Sample]| -> BTreeSet<String> {
        samples.iter().filter(|sample| sample.value == 1.0).filter_map(|up| up.labels.get("pod").cloned()).collect()
    };
    let delete = async |pod: &str| {
        let namespace = format!("--namespace={RELEASE}");
        cluster.run_kubectl(&["delete", "pod", pod, &namespace, "--now"]).await.map(drop)
    };
    let before = pods(&prometheus.query("up").await?);
    let (part, pod) = world.standby_with_pod("consumers").await?;
    let more = before.iter().cloned().chain([pod.name_any()]).collect();
    prometheus.wait_until("up", "the new Pod", |samples| pods(samples) == more).await?;

    // The process still answers. It is the Pod that counts.
    delete(&pod.name_any()).await?;
    prometheus.wait_until("up", "no deleted Pod", |samples| pods(samples) == before).await?;
    ensure_eq("the standby", &*part.process.stop(TIMEOUT).await?, "exit code 0")?;

    // A Deployment replaces its Pod by one with another name.
    let old = before.iter().find(|name| name.contains("-providers-")).context("no Pod of this controller")?;
    delete(old).await?;
    let job = format!("up{{job=\"{RELEASE}/{RELEASE}-providers\"}}");
    let replaced = |samples: &[Sample]| pods(samples).len() == 1 && !pods(samples).contains(old);
    prometheus.wait_until(&job, "the Pod that replaces it", replaced).await.map(drop)
}
