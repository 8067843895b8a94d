//! Reads a ScaledObject of KEDA.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::autoscaling::v2::HorizontalPodAutoscalerBehavior, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::Deserialize;
use serde_yaml::Value;

use super::{
    autoscaler::{Autoscaler, Goal, Keda, Metric, Source, Target, Trigger},
    meaning, quantity, rules,
};

/// Where `behavior` is.
const BEHAVIOR: &str = "spec.advanced.horizontalPodAutoscalerConfig.behavior";

/// The annotations that pause a ScaledObject, and whether they do so even with the value `false`.
const PAUSED: [(&str, bool); 4] = [
    ("autoscaling.keda.sh/paused-replicas", true),
    ("autoscaling.keda.sh/paused", false),
    ("autoscaling.keda.sh/paused-scale-in", false),
    ("autoscaling.keda.sh/paused-scale-out", false),
];

/// A ScaledObject. The fields that do not decide on the number of replicas are here to be known.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaledObject {
    #[serde(rename = "apiVersion")]
    _api_version: Value,
    #[serde(rename = "kind")]
    _kind: Value,
    metadata: ObjectMeta,
    spec: Spec,
    #[serde(rename = "status")]
    _status: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    scale_target_ref: Reference,
    min_replica_count: Option<i32>,
    max_replica_count: Option<i32>,
    idle_replica_count: Option<i32>,
    polling_interval: Option<u32>,
    cooldown_period: Option<u32>,
    #[serde(rename = "initialCooldownPeriod")]
    _initial_cooldown_period: Option<u32>,
    triggers: Vec<TriggerSpec>,
    fallback: Option<Fallback>,
    advanced: Option<Advanced>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    api_version: Option<String>,
    kind: Option<String>,
    name: String,
    #[serde(rename = "envSourceContainerName")]
    _env_source_container_name: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TriggerSpec {
    #[serde(rename = "type")]
    type_: String,
    #[serde(rename = "name")]
    _name: Option<String>,
    metric_type: Option<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    #[serde(rename = "authenticationRef")]
    _authentication_ref: Option<Value>,
    #[serde(rename = "useCachedMetrics")]
    _use_cached_metrics: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fallback {
    #[serde(rename = "failureThreshold")]
    _failure_threshold: i32,
    #[serde(rename = "replicas")]
    _replicas: i32,
    #[serde(rename = "behavior")]
    _behavior: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Advanced {
    #[serde(rename = "restoreToOriginalReplicaCount")]
    _restore_to_original_replica_count: Option<bool>,
    horizontal_pod_autoscaler_config: Option<Config>,
    scaling_modifiers: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(rename = "name")]
    _name: Option<String>,
    behavior: Option<HorizontalPodAutoscalerBehavior>,
}

/// Fills in the defaults of KEDA.
pub fn convert(from: ScaledObject) -> Result<Autoscaler, String> {
    let spec = from.spec;
    if spec.advanced.as_ref().is_some_and(|it| it.scaling_modifiers.is_some()) {
        return Err("spec.advanced.scalingModifiers: formulas over triggers are not supported".into());
    }
    let behavior = spec.advanced.and_then(|it| it.horizontal_pod_autoscaler_config).and_then(|it| it.behavior);
    let min = spec.min_replica_count.unwrap_or(0);
    let triggers = spec.triggers.into_iter().enumerate().map(|(index, it)| trigger(index, it));
    let (metrics, activations) = triggers.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    let annotations = from.metadata.annotations.unwrap_or_default();
    // As KEDA does, with the values that Go reads as false. What is no boolean counts as true.
    let is_false = |value: &String| ["0", "f", "F", "FALSE", "false", "False"].contains(&value.as_str());
    let paused = PAUSED
        .into_iter()
        .find(|(name, any_value)| annotations.get(*name).is_some_and(|value| *any_value || !is_false(value)));
    let paused = paused.map(|(name, _)| name);
    let reference = spec.scale_target_ref;
    Ok(Autoscaler {
        kind: "ScaledObject",
        name: from.metadata.name.unwrap_or_else(|| "without a name".into()),
        target: Target {
            api_version: reference.api_version.or_else(|| Some("apps/v1".into())),
            kind: reference.kind.unwrap_or_else(|| "Deployment".into()),
            name: reference.name,
        },
        min: min.max(1),
        max: spec.max_replica_count.unwrap_or(100),
        metrics,
        behavior: behavior.map(|it| rules::behavior(it, BEHAVIOR)).transpose()?,
        behavior_path: BEHAVIOR,
        keda: Some(Keda {
            min,
            idle: spec.idle_replica_count,
            polling: spec.polling_interval.unwrap_or(30).into(),
            cooldown: spec.cooldown_period.unwrap_or(300).into(),
            activations,
            fallback: spec.fallback.is_some(),
            paused,
        }),
    })
}

/// Returns the metric of a trigger, and the value above which it is active.
fn trigger(index: usize, from: TriggerSpec) -> Result<(Metric, f64), String> {
    let path = format!("spec.triggers[{index}]");
    let keys = match from.type_.as_str() {
        "prometheus" => ("query", "threshold", "activationThreshold"),
        "metrics-api" => ("valueLocation", "targetValue", "activationTargetValue"),
        "kubernetes-workload" => ("podSelector", "value", "activationValue"),
        _ => {
            let goal = Goal::Utilization;
            let (source, labels, trigger) = (Source::Other, Vec::new(), None);
            return Ok((Metric { path, source, name: from.type_, described: None, labels, goal, trigger }, 0.0));
        }
    };
    let (query_key, target_key, activation_key) = keys;
    let text = |key: &str| {
        from.metadata
            .get(key)
            .ok_or_else(|| format!("{path}.metadata.{key}: expected it, because type is {}", from.type_))
    };
    let number = |key: &str, text: &str| {
        quantity::milli(text).ok_or_else(|| format!("{path}.metadata.{key}: expected a number, but found {text:?}"))
    };
    let query = text(query_key)?.clone();
    let target = number(target_key, text(target_key)?)?;
    let activation =
        from.metadata.get(activation_key).map(|text| number(activation_key, text)).transpose()?.unwrap_or(0);
    let goal = match from.metric_type.as_deref() {
        None | Some("AverageValue") => Goal::AverageValue(target),
        Some("Value") => Goal::Value(target),
        Some(other) => return Err(format!("{path}.metricType: expected AverageValue or Value, but found {other:?}")),
    };
    let name = meaning::find(&query).unwrap_or(&from.type_).to_owned();
    let labels = labels(&query);
    let trigger = Some(Trigger { query_key, query, target_key });
    let metric = Metric { path, source: Source::External, name, described: None, labels, goal, trigger };
    Ok((metric, activation as f64 / 1000.0))
}

/// Returns the labels in the braces of a query.
fn labels(query: &str) -> Vec<(String, Option<String>)> {
    let Some((_, rest)) = query.split_once('{') else { return Vec::new() };
    let inside = rest.split_once('}').map_or(rest, |(inside, _)| inside);
    let label = |item: &str| {
        let (key, value) = item.split_once('=')?;
        let key = key.trim().trim_end_matches(['!', '~']).to_owned();
        Some((key, value.strip_prefix('"').and_then(|it| it.strip_suffix('"')).map(str::to_owned)))
    };
    inside.split(',').filter_map(label).collect()
}
