//! A workload that takes the capacity that the rest of the cluster leaves.

use anyhow::{Result, ensure};
use e2e::testing::{documents::blocks, framework::ensure_eq};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::{DOCUMENT, alone, apply_text, failure, raw, replicas_over_syncs, wait_for_running};

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
