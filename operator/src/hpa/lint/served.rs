//! What the operator's metrics API serves: which metric of which object, and the labels that its selector may have.

use super::{
    edit::{describe_target, keep_labels},
    finding::{
        Finding,
        Level::{Error, Warning},
    },
    labels::known_labels,
};
use crate::{
    hpa::{
        autoscaler::{Autoscaler, Metric, Source},
        meaning::{self, Meaning},
    },
    model::DEFAULT_RESOURCE,
};

/// Returns the findings about the object and the selector of a metric of this operator.
pub fn findings(autoscaler: &Autoscaler, metric: &Metric, meaning: Meaning) -> Vec<Finding> {
    let mut found = Vec::new();
    // A trigger of KEDA asks another server.
    if metric.trigger.is_none() {
        found.extend(object(autoscaler, metric, meaning));
        found.extend(labels(metric, meaning));
    }
    found.extend(series(autoscaler, metric, meaning));
    found
}

/// Whether the metric exists for the object that it describes, and whether that object is the right one.
fn object(autoscaler: &Autoscaler, metric: &Metric, meaning: Meaning) -> Option<Finding> {
    let Metric { name, described, .. } = metric;
    let base = meaning::base(name).unwrap_or_default();
    let of_capacity = matches!(meaning, Meaning::Fits | Meaning::Remaining | Meaning::Available);
    let (only, exists) = match described.as_ref().map(|it| it.kind.as_str()) {
        None if of_capacity => ("for a Service, as a metric of type Object", false),
        None => return other_workload(autoscaler, metric, meaning),
        Some(kind) if of_capacity => ("for a Service", kind == "Service"),
        Some(kind) if meaning == Meaning::Claimable => {
            ("for a workload", !["MaskProvider", "Namespace", "Pod", "Service"].contains(&kind))
        }
        Some(kind) if base.starts_with("provider_") => ("for a MaskProvider", kind == "MaskProvider"),
        Some(_) if base.starts_with("tag_") => ("as a metric of type External", false),
        Some(kind) => ("for a Namespace", kind == "Namespace"),
    };
    if exists {
        return other_object(autoscaler, metric, meaning);
    }
    let instead = described.as_ref().map_or_else(String::new, |it| format!(", not for {} {}", it.kind, it.name));
    let why = format!(
        "The metrics API of this operator has {name} only {only}{instead}. Unless another server serves it, \
         the metric has no value."
    );
    Some(Finding::new(Warning, "not-served", why).with(describe_target(autoscaler, metric, meaning)))
}

/// Whether a metric that counts the replicas of one object describes another one.
fn other_object(autoscaler: &Autoscaler, metric: &Metric, meaning: Meaning) -> Option<Finding> {
    let counts_its_replicas = match autoscaler.target.is_provider() {
        true => meaning == Meaning::Demanded,
        false => meaning == Meaning::Claimable,
    };
    let (described, scaled) = (metric.described.as_ref()?, &autoscaler.target);
    if !counts_its_replicas || (&described.kind, &described.name) == (&scaled.kind, &scaled.name) {
        return None;
    }
    let why = format!(
        "{} describes {} {}, but {} {} is scaled.",
        metric.name, described.kind, described.name, scaled.kind, scaled.name
    );
    Some(Finding::new(Warning, "other-object", why).with(describe_target(autoscaler, metric, meaning)))
}

/// Whether the selector of an External metric names another workload than the one that is scaled.
fn other_workload(autoscaler: &Autoscaler, metric: &Metric, meaning: Meaning) -> Option<Finding> {
    if meaning != Meaning::Claimable || autoscaler.target.is_provider() {
        return None;
    }
    let value = |label: &str| metric.labels.iter().find(|(key, _)| key == label)?.1.as_deref();
    let scaled = &autoscaler.target;
    let workload = value("workload")?;
    let resource = value("resource").unwrap_or(DEFAULT_RESOURCE);
    let is_other = workload != scaled.name || scaled.resource().is_some_and(|it| it != resource);
    is_other.then(|| {
        let why = format!(
            "The selector of {} names the workload {workload} of {resource}, but {} {} is scaled.",
            metric.name, scaled.kind, scaled.name
        );
        Finding::new(Warning, "other-object", why).with(describe_target(autoscaler, metric, meaning))
    })
}

/// Whether the selector of a metric asks for labels that it does not have.
fn labels(metric: &Metric, meaning: Meaning) -> Option<Finding> {
    let name = &metric.name;
    // The whole cluster has one value.
    if meaning == Meaning::Remaining {
        return None;
    }
    let (known, are_parameters) = known_labels(meaning, meaning::base(name).unwrap_or_default(), metric.source);
    if let Some((label, _)) = metric.labels.iter().find(|(label, _)| !known.contains(&label.as_str())) {
        let why = format!("{name} has no label {label}, so the metric has no value. It has {}.", known.join(", "));
        return Some(Finding::new(Error, "unknown-label", why).with(vec![keep_labels(metric, known, [])]));
    }
    let (label, _) = metric.labels.iter().find(|(_, value)| value.is_none()).filter(|_| are_parameters)?;
    let why = format!("{name} needs one value for the label {label}: matchLabels, or matchExpressions with In.");
    Some(Finding::new(Error, "unknown-label", why))
}

/// Which series a metric covers.
fn series(autoscaler: &Autoscaler, metric: &Metric, meaning: Meaning) -> Option<Finding> {
    let name = &metric.name;
    let has = |label: &str| metric.labels.iter().any(|(key, _)| key == label);
    let base = meaning::base(name).unwrap_or_default();
    let is_external = metric.source == Source::External;
    if is_external && base.starts_with("provider_") && !(has("provider") && has("namespace")) {
        let what = match metric.trigger {
            Some(_) => "The query must return one series.",
            None => "Kubernetes adds up all series of an External metric.",
        };
        let summed = metric.trigger.as_ref().is_some_and(|trigger| trigger.query.contains('('));
        return (!summed).then(|| {
            let why =
                format!("{name} has a series for each MaskProvider. {what} Select one by namespace and provider.");
            Finding::new(Warning, "several-series", why)
        });
    }
    if is_external && metric.trigger.is_none() && meaning == Meaning::Claimable && !has("workload") {
        let why = format!("{name} needs the label workload in its selector, the name of the workload.");
        let edits = describe_target(autoscaler, metric, meaning);
        return Some(Finding::new(Error, "missing-workload", why).with(edits));
    }
    if meaning == Meaning::Fits && metric.trigger.is_none() && !has("cpu") && !has("memory") {
        let why = format!("{name} needs the label cpu or memory in its selector, which is what a replica requests.");
        return Some(Finding::new(Error, "missing-request", why));
    }
    (is_external && base.starts_with("tag_") && !has("tag")).then(|| {
        let why = format!("{name} has a series for each tag. Select the tag of the MaskProviders that the Pods use.");
        Finding::new(Warning, "missing-tag", why)
    })
}
