//! Changes of a manifest.

use serde_yaml::{Mapping, Value};

use super::labels::known_labels;
use crate::{
    hpa::{
        autoscaler::{Autoscaler, Metric, Source},
        meaning::{self, Meaning},
    },
    model::{CLAIM_PARAMETERS, DEFAULT_RESOURCE},
};

/// A field and its new value, or none to remove it.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    path: String,
    value: Option<Value>,
}

impl Edit {
    /// Sets a field, such as `spec.metrics[0].object.target`.
    pub fn set(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { path: path.into(), value: Some(value.into()) }
    }

    /// Removes a field.
    pub fn remove(path: impl Into<String>) -> Self {
        Self { path: path.into(), value: None }
    }

    /// Changes the manifest. Absent mappings are added, absent items of lists are not.
    pub fn apply(&self, manifest: &mut Value) {
        let (parents, field) = self.path.rsplit_once('.').unwrap_or(("", &self.path));
        let mut at = manifest;
        for part in parents.split('.').filter(|part| !part.is_empty()) {
            let (key, index) = match part.split_once('[') {
                Some((key, index)) => (key, index.trim_end_matches(']').parse::<usize>().ok()),
                None => (part, None),
            };
            let Some(fields) = fields(at) else { return };
            at = fields.entry(key.into()).or_insert(Value::Null);
            if let Some(index) = index {
                let Some(item) = at.get_mut(index) else { return };
                at = item;
            }
        }
        let Some(fields) = fields(at) else { return };
        match &self.value {
            Some(value) => drop(fields.insert(field.into(), value.clone())),
            None => drop(fields.shift_remove(field)),
        }
    }
}

/// Returns the fields of a mapping. What is none becomes one.
fn fields(value: &mut Value) -> Option<&mut Mapping> {
    if !value.is_mapping() {
        *value = Value::Mapping(Mapping::new());
    }
    value.as_mapping_mut()
}

/// Returns the edits that replace a metric by another one of this operator with AverageValue 1.
pub fn average_of_one(autoscaler: &Autoscaler, metric: &Metric, name: &str) -> Vec<Edit> {
    let path = &metric.path;
    let new = meaning::renamed(&metric.name, name);
    if let Some(trigger) = &metric.trigger {
        let (query, target) = (trigger.query_key, trigger.target_key);
        return vec![
            Edit::set(format!("{path}.metadata.{query}"), trigger.query.replace(&metric.name, &new)),
            Edit::set(format!("{path}.metadata.{target}"), "1"),
            Edit::set(format!("{path}.metricType"), "AverageValue"),
        ];
    }
    let target = mapping([("type", "AverageValue"), ("averageValue", "1")]);
    let mut edits = vec![Edit::set(format!("{path}.target"), target)];
    if new != metric.name {
        edits.push(Edit::set(format!("{path}.metric.name"), new));
        edits.extend(meaning::meaning(name).into_iter().flat_map(|meaning| {
            let edits = describe_target(autoscaler, metric, meaning);
            if edits.is_empty() {
                vec![keep_labels(metric, known_labels(meaning, name, metric.source).0, [])]
            } else {
                edits
            }
        }));
    }
    edits
}

/// Returns the edits that make a metric with this meaning describe what is scaled, or none if it describes something
/// else.
pub fn describe_target(autoscaler: &Autoscaler, metric: &Metric, meaning: Meaning) -> Vec<Edit> {
    let (path, reference) = (&metric.path, &autoscaler.target);
    let (labels, _) = known_labels(meaning, meaning::base(&metric.name).unwrap_or_default(), metric.source);
    match (metric.source, meaning) {
        (Source::Object, Meaning::Claimable | Meaning::Demanded)
            if reference.is_provider() == (meaning == Meaning::Demanded) =>
        {
            let version = reference.api_version.iter().map(|version| ("apiVersion", version.as_str()));
            let fields = version.chain([("kind", reference.kind.as_str()), ("name", reference.name.as_str())]);
            vec![Edit::set(format!("{path}.describedObject"), mapping(fields)), keep_labels(metric, labels, [])]
        }
        (Source::External, Meaning::Claimable) if !reference.is_provider() => {
            let resource = reference.resource().filter(|it| *it != DEFAULT_RESOURCE);
            let resource = resource.map(|resource| ("resource", resource));
            let workload = [("workload", reference.name.as_str())].into_iter().chain(resource);
            vec![keep_labels(metric, CLAIM_PARAMETERS, workload)]
        }
        // The capacity is that for the Pods of a Service.
        (Source::Object, Meaning::Fits) => vec![
            Edit::set(format!("{path}.describedObject.apiVersion"), "v1"),
            Edit::set(format!("{path}.describedObject.kind"), "Service"),
            keep_labels(metric, labels, []),
        ],
        _ => Vec::new(),
    }
}

/// Returns the edit that leaves only these labels in the selector of a metric, and adds others.
pub fn keep_labels<'a>(
    metric: &'a Metric,
    known: &[&str],
    others: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Edit {
    let kept = metric.labels.iter().filter(|(key, _)| known.contains(&key.as_str()));
    let kept = kept.filter_map(|(key, value)| Some((key.as_str(), value.as_deref()?)));
    let labels: Vec<_> = others.into_iter().chain(kept).collect();
    let path = format!("{}.metric.selector", metric.path);
    match labels.is_empty() {
        true => Edit::remove(path),
        false => Edit::set(path, Value::Mapping([("matchLabels".into(), mapping(labels))].into_iter().collect())),
    }
}

fn mapping<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Value {
    Value::Mapping(fields.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
}
