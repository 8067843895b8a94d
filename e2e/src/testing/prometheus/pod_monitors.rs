//! PodMonitors as scrape configurations, and the targets that Prometheus discovers with them.

use std::path::Path;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Map, Value, json};

/// Returns the scrape configurations of a PodMonitor, one for each endpoint, as the Prometheus Operator generates them.
/// Only the discovery differs: it reads the file `pods`, which has the [`targets`] in the PodMonitor's namespaces.
///
/// # Errors
/// If the PodMonitor lacks a field, or has one that this function does not translate.
pub fn scrape_configs(monitor: &Value, pods: &Path) -> Result<Vec<Value>> {
    let namespace = monitor["metadata"]["namespace"].as_str().context("a PodMonitor without a namespace")?;
    let name = monitor["metadata"]["name"].as_str().context("a PodMonitor without a name")?;
    let spec = monitor["spec"].as_object().context("a PodMonitor without a spec")?;
    known(spec, &["namespaceSelector", "podMetricsEndpoints", "selector"])?;
    let endpoints =
        spec.get("podMetricsEndpoints").and_then(Value::as_array).context("a PodMonitor without endpoints")?;
    let config = |(index, endpoint): (usize, &Value)| {
        let fields = endpoint.as_object().context("an endpoint that is no object")?;
        known(fields, &["honorLabels", "metricRelabelings", "port", "relabelings"])?;
        let port = endpoint["port"].as_str().context("an endpoint without the name of a port")?;
        let mut relabel = vec![
            json!({ "source_labels": ["job"], "target_label": "__tmp_prometheus_job_name" }),
            json!({
                "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)", "action": "drop",
            }),
        ];
        relabel.extend(selected(&monitor["spec"]["selector"])?);
        relabel.extend([
            json!({ "source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": port, "action": "keep" }),
            json!({ "source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace" }),
            json!({ "source_labels": ["__meta_kubernetes_pod_container_name"], "target_label": "container" }),
            json!({ "source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod" }),
            json!({ "target_label": "job", "replacement": format!("{namespace}/{name}") }),
            json!({ "target_label": "endpoint", "replacement": port }),
        ]);
        relabel.extend(relabelings(&endpoint["relabelings"])?);
        relabel.extend(only_shard());
        let mut config = json!({
            "job_name": format!("podMonitor/{namespace}/{name}/{index}"),
            "honor_labels": endpoint["honorLabels"].as_bool().unwrap_or(false),
            "file_sd_configs": [{ "files": [pods] }],
            "relabel_configs": relabel,
        });
        let of_metrics = relabelings(&endpoint["metricRelabelings"])?;
        if !of_metrics.is_empty() {
            config["metric_relabel_configs"] = json!(of_metrics);
        }
        Ok(config)
    };
    endpoints.iter().enumerate().map(config).collect()
}

/// Fails on fields that are not translated, so that none is lost silently.
fn known(fields: &Map<String, Value>, translated: &[&str]) -> Result<()> {
    match fields.keys().find(|field| !translated.contains(&field.as_str())) {
        Some(other) => bail!("the field {other} of a PodMonitor is not translated"),
        None => Ok(()),
    }
}

/// Keeps the Pods that a selector selects.
fn selected(selector: &Value) -> Result<Vec<Value>> {
    let mut rules = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        let key = sanitized(key);
        let value = value.as_str().context("a label that is not a string")?;
        rules.push(json!({
            "source_labels": [
                format!("__meta_kubernetes_pod_label_{key}"),
                format!("__meta_kubernetes_pod_labelpresent_{key}"),
            ],
            "regex": format!("({value});true"),
            "action": "keep",
        }));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = sanitized(expression["key"].as_str().context("an expression without a key")?);
        match expression["operator"].as_str() {
            Some("Exists") => rules.push(json!({
                "source_labels": [format!("__meta_kubernetes_pod_labelpresent_{key}")],
                "regex": "true",
                "action": "keep",
            })),
            other => bail!("the operator {other:?} of a selector is not translated"),
        }
    }
    Ok(rules)
}

/// Translates the relabelings of an endpoint.
fn relabelings(rules: &Value) -> Result<Vec<Value>> {
    let mut translated = Vec::new();
    for rule in rules.as_array().into_iter().flatten() {
        // The default in the custom resource.
        let mut fields = Map::from_iter([("action".to_owned(), json!("replace"))]);
        for (field, value) in rule.as_object().context("a relabeling that is no object")? {
            let name = match field.as_str() {
                "sourceLabels" => "source_labels",
                "targetLabel" => "target_label",
                "regex" | "replacement" | "action" => field,
                other => bail!("the field {other} of a relabeling is not translated"),
            };
            fields.insert(name.to_owned(), value.clone());
        }
        translated.push(Value::Object(fields));
    }
    Ok(translated)
}

/// Keeps the targets of the only shard, which are all targets.
fn only_shard() -> [Value; 3] {
    [
        json!({
            "source_labels": ["__address__", "__tmp_hash"], "target_label": "__tmp_hash",
            "regex": "(.+);", "replacement": "$1", "action": "replace",
        }),
        json!({ "source_labels": ["__tmp_hash"], "target_label": "__tmp_hash", "modulus": 1, "action": "hashmod" }),
        json!({ "source_labels": ["__tmp_hash", "__tmp_disable_sharding"], "regex": "0;|.+;.+", "action": "keep" }),
    ]
}

/// Returns the targets that Prometheus discovers with `kubernetes_sd_configs` and the role `pod`: one for each port of
/// each container, with the same labels.
pub fn targets(pods: &[Pod]) -> Value {
    let mut targets = Vec::new();
    for pod in pods {
        let status = pod.status.clone().unwrap_or_default();
        let Some(address) = status.pod_ip else { continue };
        let mut of_pod = Map::new();
        let mut label = |name: &str, value: &str| of_pod.insert(format!("__meta_kubernetes_{name}"), json!(value));
        label("namespace", &pod.namespace().unwrap_or_default());
        label("pod_name", &pod.name_any());
        label("pod_ip", &address);
        label("pod_phase", &status.phase.unwrap_or_default());
        for (key, value) in pod.labels() {
            let key = sanitized(key);
            label(&format!("pod_label_{key}"), value);
            label(&format!("pod_labelpresent_{key}"), "true");
        }
        for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
            for port in container.ports.iter().flatten() {
                let mut labels = of_pod.clone();
                labels.insert("__meta_kubernetes_pod_container_name".into(), json!(container.name));
                labels.insert("__meta_kubernetes_pod_container_port_name".into(), json!(port.name));
                targets.push(json!({ "targets": [format!("{address}:{}", port.container_port)], "labels": labels }));
            }
        }
    }
    Value::Array(targets)
}

/// Returns the name under which Prometheus has a label of a Kubernetes object.
fn sanitized(key: &str) -> String {
    key.replace(|other: char| !other.is_ascii_alphanumeric(), "_")
}
