//! Tests of whole manifests.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod algorithm;
mod findings;
mod properties;

use super::{Manifest, Options, controller::Settings, read, simulate, verdict};
use crate::hpa::verdict::Verdict;

/// Returns a HorizontalPodAutoscaler for a Deployment with one Object metric.
pub fn object(metric: &str, target: &str, min: i32, max: i32, behavior: &str) -> Manifest {
    let (object, labels) = match metric {
        _ if metric.contains("provider_") => {
            ("apiVersion: vpn.beebs.dev/v1, kind: MaskProvider, name: p", "namespace: default")
        }
        _ if metric.contains("masks_") => ("apiVersion: v1, kind: Namespace, name: default", "namespace: default"),
        _ if metric.contains("_capacity_") || metric == "replicas_that_fit" => {
            ("apiVersion: v1, kind: Service, name: app", "cpu: '1'")
        }
        _ => ("apiVersion: apps/v1, kind: Deployment, name: app", "tag: default"),
    };
    let described = format!("describedObject: {{{object}}}");
    let metric = format!("{{name: {metric}, selector: {{matchLabels: {{{labels}}}}}}}");
    one(&format!(
        "apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: app}}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: app}}
  minReplicas: {min}
  maxReplicas: {max}
  metrics:
  - type: Object
    object: {{metric: {metric}, {described}, target: {target}}}
{behavior}"
    ))
}

/// Returns a ScaledObject with one trigger.
pub fn scaled_object(spec: &str, query: &str, trigger: &str) -> Manifest {
    one(&format!(
        "apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {{name: app}}
spec:
  scaleTargetRef: {{name: app}}
{spec}
  triggers:
  - type: prometheus
{trigger}
    metadata:
      serverAddress: http://prometheus:9090
      query: {query}
      threshold: \"1\"
"
    ))
}

pub fn one(text: &str) -> Manifest {
    let mut documents = read("test.yaml", text).unwrap();
    assert_eq!(documents.manifests.len(), 1);
    documents.manifests.remove(0)
}

pub fn value(target: u32) -> String {
    format!("{{type: Value, value: {target}}}")
}

pub fn average(target: &str) -> String {
    format!("{{type: AverageValue, averageValue: {target}}}")
}

/// `behavior` without a stabilization window.
pub const AT_ONCE: &str = "  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}";

/// `behavior` as it is recommended.
pub const GOOD: &str =
    "  behavior: {scaleUp: {tolerance: 0}, scaleDown: {tolerance: 0, stabilizationWindowSeconds: 0}}";

pub fn options(slots: u32) -> Options {
    Options {
        slots,
        start: None,
        duration: 1800,
        sync_period: 15,
        reserve: None,
        pod_delay: 10,
        metric_delay: 0,
        events: Vec::new(),
        definitions: Vec::new(),
        settings: Settings::default(),
    }
}

/// Returns the replicas after each change.
pub fn path(manifest: &Manifest, options: &Options) -> Vec<i32> {
    let run = simulate(&manifest.autoscaler, options).unwrap();
    let first = run.changes.first().map(|change| change.from);
    first.into_iter().chain(run.changes.iter().map(|change| change.to)).collect()
}

pub fn judge(manifest: &Manifest, options: &Options) -> Verdict {
    let run = simulate(&manifest.autoscaler, options).unwrap();
    verdict(&manifest.autoscaler, options, &run)
}
