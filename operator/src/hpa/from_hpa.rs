//! Reads a HorizontalPodAutoscaler.

use k8s_openapi::{
    api::autoscaling::v2::{HorizontalPodAutoscaler, MetricIdentifier, MetricSpec, MetricTarget},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::LabelSelector},
};

use super::{
    autoscaler::{Autoscaler, Goal, Metric, Source, Target},
    quantity, rules,
};

/// Where `behavior` is.
const BEHAVIOR: &str = "spec.behavior";

/// Fills in the defaults.
pub fn convert(from: HorizontalPodAutoscaler) -> Result<Autoscaler, String> {
    let spec = from.spec;
    let reference = spec.scale_target_ref;
    let metrics = spec.metrics.into_iter().flatten().enumerate();
    Ok(Autoscaler {
        kind: "HorizontalPodAutoscaler",
        name: from.metadata.name.unwrap_or_else(|| "without a name".into()),
        target: Target { api_version: reference.api_version, kind: reference.kind, name: reference.name },
        min: spec.min_replicas.unwrap_or(1),
        max: spec.max_replicas,
        metrics: metrics.map(|(index, spec)| metric(index, spec)).collect::<Result<_, _>>()?,
        behavior: spec.behavior.map(|it| rules::behavior(it, BEHAVIOR)).transpose()?,
        behavior_path: BEHAVIOR,
        keda: None,
    })
}

fn metric(index: usize, spec: MetricSpec) -> Result<Metric, String> {
    let path = format!("spec.metrics[{index}]");
    let absent = |field: &str| format!("{path}.{field}: expected it, because type is {}", spec.type_);
    let no_selector = |name: String| MetricIdentifier { name, selector: None };
    let (source, field, metric, target) = match spec.type_.as_str() {
        "Object" => {
            let it = spec.object.ok_or_else(|| absent("object"))?;
            (Source::Object, "object", it.metric, it.target)
        }
        "External" => {
            let it = spec.external.ok_or_else(|| absent("external"))?;
            (Source::External, "external", it.metric, it.target)
        }
        "Pods" => {
            let it = spec.pods.ok_or_else(|| absent("pods"))?;
            (Source::Pods, "pods", it.metric, it.target)
        }
        "Resource" => {
            let it = spec.resource.ok_or_else(|| absent("resource"))?;
            (Source::Other, "resource", no_selector(it.name), it.target)
        }
        "ContainerResource" => {
            let it = spec.container_resource.ok_or_else(|| absent("containerResource"))?;
            (Source::Other, "containerResource", no_selector(it.name), it.target)
        }
        other => {
            return Err(format!(
                "{path}.type: expected Object, External, Pods, Resource or ContainerResource, but found {other:?}"
            ));
        }
    };
    let path = format!("{path}.{field}");
    let goal = goal(&target, &format!("{path}.target"))?;
    if source == Source::Pods && !matches!(goal, Goal::AverageValue(_)) {
        return Err(format!("{path}.target.type: expected AverageValue, because the metric is of type Pods"));
    }
    Ok(Metric { path, source, name: metric.name, labels: labels(metric.selector), goal, trigger: None })
}

fn goal(target: &MetricTarget, path: &str) -> Result<Goal, String> {
    let read = |field: &str, value: &Option<Quantity>| {
        let text = value.as_ref().ok_or_else(|| format!("{path}.{field}: expected a quantity such as 1 or 500m"))?;
        quantity::milli(&text.0)
            .ok_or_else(|| format!("{path}.{field}: expected a quantity such as 1 or 500m, but found {:?}", text.0))
    };
    // The controller prefers averageValue, whatever the type says, except for objects. The API server wants them to
    // agree.
    match target.type_.as_str() {
        "Value" => read("value", &target.value).map(Goal::Value),
        "AverageValue" => read("averageValue", &target.average_value).map(Goal::AverageValue),
        "Utilization" => Ok(Goal::Utilization),
        other => Err(format!("{path}.type: expected Value, AverageValue or Utilization, but found {other:?}")),
    }
}

fn labels(selector: Option<LabelSelector>) -> Vec<(String, Option<String>)> {
    let Some(LabelSelector { match_labels, match_expressions }) = selector else { return Vec::new() };
    let equal = match_labels.into_iter().flatten().map(|(key, value)| (key, Some(value)));
    let expressions = match_expressions.into_iter().flatten().map(|it| match it.values.as_deref() {
        Some([one]) if it.operator == "In" => (it.key, Some(one.clone())),
        _ => (it.key, None),
    });
    equal.chain(expressions).collect()
}
