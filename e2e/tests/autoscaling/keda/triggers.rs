//! Other triggers of the ScaledObject in the document.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::{
    ProcessSpec, Prometheus,
    operator::{chart, executable, wait_for_log, webhook::free_port},
    testing::{documents::blocks, framework::ensure_eq},
    wait::TIMEOUT,
};
use serde_json::{Value, json};
use tokio::process::Command;
use vpn_types::Mask;

use super::{MEDIA, give_back, processes::Setup, take_slots, with_keda};
use crate::{DOCUMENT, apply_text, replicas_over_syncs, wait_for_running};

#[tokio::test]
#[ignore = "builds KEDA: 16 minutes of processor time"]
async fn keda_asks_prometheus() -> Result<()> {
    with_keda(Setup::Alone, async |cluster, f, _, object| {
        let mut object: Value = serde_yaml::from_str(object)?;
        let url = object["spec"]["triggers"][0]["metadata"]["url"].as_str().context("no URL")?;
        let address = url.trim_start_matches("http://").trim_end_matches("/metrics");
        let scrape = json!({
            "job_name": "metrics-api", "honor_labels": true, "static_configs": [{"targets": [address]}],
        });
        let rules = Path::new(chart::DIR).join("rules/vpn-operator.yaml");
        let prometheus = Prometheus::start(cluster, &[scrape], &rules).await?;

        let text = blocks(&std::fs::read_to_string(DOCUMENT)?, Some("## With Prometheus"), "yaml");
        let trigger = text.get(1).context("no trigger")?.replace(MEDIA, f.name());
        let there = "http://prometheus-operated.monitoring.svc:9090";
        ensure!(trigger.contains(there), "{trigger} does not name {there}");
        let trigger: Value = serde_yaml::from_str(&trigger.replace(there, &prometheus.url()))?;
        object["spec"]["triggers"] = trigger["triggers"].clone();

        take_slots(f, &object.to_string()).await?;
        give_back(f).await?;

        // Without a value, nothing changes.
        prometheus.stop().await?;
        f.delete::<Mask>("urgent-0").await?;
        ensure_eq("replicas without Prometheus", replicas_over_syncs(f, "worker", 10).await?, [2].into())
    })
    .await
}

/// A workload that needs no slot.
const FOLLOWER: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: worker}
spec:
  selector:
    matchLabels: {app: worker}
  template:
    metadata:
      labels: {app: worker}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: app, image: app}]
";

#[tokio::test]
#[ignore = "builds KEDA: 16 minutes of processor time"]
async fn keda_follows_a_metric_that_is_set_by_hand() -> Result<()> {
    with_keda(Setup::Alone, async |cluster, f, _, object| {
        let port = free_port()?;
        let log = cluster.state_dir().join("fake-metric.log");
        let spec = ProcessSpec::new("fake-metric", executable(cluster).await?, log).arg("fake-metric");
        let fake = cluster.run(spec.flag("port", port)).await?;
        wait_for_log(&fake, "serving prom_fake_value").await?;

        let text = std::fs::read_to_string(DOCUMENT)?;
        let (url, location) = ("http://fake-metric.fake.svc:8080/metrics", "prom_fake_value");
        for part in [url, location] {
            ensure!(text.contains(&format!("`{part}`")), "the document does not name {part}");
        }
        let mut object: Value = serde_yaml::from_str(object)?;
        let trigger = &mut object["spec"]["triggers"][0]["metadata"];
        trigger["url"] = json!(format!("http://127.0.0.1:{port}/metrics"));
        trigger["valueLocation"] = json!(location);
        trigger["targetValue"] = json!("10");
        apply_text(f, FOLLOWER).await?;
        apply_text(f, &object.to_string()).await?;
        for (value, replicas) in [("50", 5), ("20", 2)] {
            let url = format!("http://127.0.0.1:{port}/value");
            let set = Command::new("curl").args(["--fail", "--silent", "-d", value, &url]).status().await?;
            ensure!(set.success(), "curl: {set}");
            wait_for_running(f, replicas).await?;
        }
        fake.stop(TIMEOUT).await.map(drop)
    })
    .await
}
