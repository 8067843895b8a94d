//! Reads a HorizontalPodAutoscaler.

use k8s_openapi::{
    api::autoscaling::v2::{
        CrossVersionObjectReference, HorizontalPodAutoscaler, MetricIdentifier, MetricSpec, MetricTarget,
    },
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
    required(&reference.kind, "spec.scaleTargetRef.kind")?;
    required(&reference.name, "spec.scaleTargetRef.name")?;
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
    let MetricSpec { type_, object, external, pods, resource, container_resource } = spec;
    let path = format!("spec.metrics[{index}]");
    let fields = [
        ("Object", "object", object.is_some()),
        ("External", "external", external.is_some()),
        ("Pods", "pods", pods.is_some()),
        ("Resource", "resource", resource.is_some()),
        ("ContainerResource", "containerResource", container_resource.is_some()),
    ];
    let Some((_, field, _)) = fields.iter().find(|(name, ..)| *name == type_) else {
        return Err(format!(
            "{path}.type: expected Object, External, Pods, Resource or ContainerResource, but found {type_:?}"
        ));
    };
    if let Some((_, other, _)) = fields.iter().find(|(name, _, is_set)| *is_set && *name != type_) {
        return Err(format!("{path}.{other}: expected only {field}, because type is {type_}"));
    }
    let absent = || format!("{path}.{field}: expected it, because type is {type_}");
    let at = format!("{path}.{field}");
    let no_selector = |name: String| MetricIdentifier { name, selector: None };
    let (source, metric, described, target) = match *field {
        "object" => {
            let it = object.ok_or_else(absent)?;
            let CrossVersionObjectReference { api_version, kind, name } = it.described_object;
            required(&kind, &format!("{at}.describedObject.kind"))?;
            required(&name, &format!("{at}.describedObject.name"))?;
            (Source::Object, it.metric, Some(Target { api_version, kind, name }), it.target)
        }
        "external" => {
            let it = external.ok_or_else(absent)?;
            (Source::External, it.metric, None, it.target)
        }
        "pods" => {
            let it = pods.ok_or_else(absent)?;
            (Source::Pods, it.metric, None, it.target)
        }
        "resource" => {
            let it = resource.ok_or_else(absent)?;
            (Source::Other, no_selector(it.name), None, it.target)
        }
        _ => {
            let it = container_resource.ok_or_else(absent)?;
            required(&it.container, &format!("{at}.container"))?;
            (Source::Other, no_selector(it.name), None, it.target)
        }
    };
    let name_path = if source == Source::Other { format!("{at}.name") } else { format!("{at}.metric.name") };
    required(&metric.name, &name_path)?;
    let goal = goal(&target, source, &format!("{at}.target"))?;
    let labels = labels(metric.selector);
    Ok(Metric { path: at, source, name: metric.name, described, labels, goal, trigger: None })
}

/// The API server accepts neither an empty string here nor an absent field, which reads as an empty string.
fn required(text: &str, path: &str) -> Result<(), String> {
    if text.is_empty() { Err(format!("{path}: expected it")) } else { Ok(()) }
}

fn goal(target: &MetricTarget, source: Source, path: &str) -> Result<Goal, String> {
    let read = |field: &str, value: &Option<Quantity>| {
        let text = value.as_ref().ok_or_else(|| format!("{path}.{field}: expected a quantity such as 1 or 500m"))?;
        quantity::milli(&text.0)
            .ok_or_else(|| format!("{path}.{field}: expected a quantity such as 1 or 500m, but found {:?}", text.0))
    };
    // The API server accepts a type that disagrees with the fields, and for External the controller then prefers
    // averageValue. Such a manifest says two things, so it is refused here.
    let goal = match target.type_.as_str() {
        "Value" => read("value", &target.value).map(Goal::Value),
        "AverageValue" => read("averageValue", &target.average_value).map(Goal::AverageValue),
        "Utilization" => match target.average_utilization {
            Some(percent) if percent > 0 => Ok(Goal::Utilization),
            _ => Err(format!("{path}.averageUtilization: expected a percentage above 0")),
        },
        other => Err(format!("{path}.type: expected Value, AverageValue or Utilization, but found {other:?}")),
    }?;
    let expected = match (source, goal) {
        (Source::Pods, Goal::Value(_) | Goal::Utilization) => "AverageValue, because the metric is of type Pods",
        (Source::Object | Source::External, Goal::Utilization) => {
            "Value or AverageValue, because only CPU and memory have a utilization"
        }
        (Source::Other, Goal::Value(_)) => "Utilization or AverageValue, because the metric is CPU or memory",
        _ => return Ok(goal),
    };
    Err(format!("{path}.type: expected {expected}"))
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
