//! Changes of a manifest.

use serde_yaml::{Mapping, Value};

use crate::hpa::{
    autoscaler::{Autoscaler, Metric, Source},
    meaning::{self, Meaning},
};

/// A field and its new value.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    path: String,
    value: Value,
}

impl Edit {
    /// Sets a field, such as `spec.metrics[0].object.target`.
    pub fn set(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { path: path.into(), value: value.into() }
    }

    /// Changes the manifest. Absent mappings are added, absent items of lists are not.
    pub fn apply(&self, manifest: &mut Value) {
        let mut at = manifest;
        for part in self.path.split('.') {
            let (key, index) = match part.split_once('[') {
                Some((key, index)) => (key, index.trim_end_matches(']').parse::<usize>().ok()),
                None => (part, None),
            };
            if !at.is_mapping() {
                *at = Value::Mapping(Mapping::new());
            }
            let Value::Mapping(fields) = at else { return };
            at = fields.entry(key.into()).or_insert(Value::Null);
            if let Some(index) = index {
                let Some(item) = at.get_mut(index) else { return };
                at = item;
            }
        }
        *at = self.value.clone();
    }
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
        let reference = &autoscaler.target;
        let to = |suffix: &str| format!("{path}.{suffix}");
        match (metric.source, meaning::meaning(name)) {
            // The capacity is that for the Pods of a Service.
            (Source::Object, Some(Meaning::Fits)) => {
                edits.push(Edit::set(to("describedObject.apiVersion"), "v1"));
                edits.push(Edit::set(to("describedObject.kind"), "Service"));
            }
            // The others describe what is scaled.
            (Source::Object, _) => {
                let version = reference.api_version.iter().map(|version| ("apiVersion", version.as_str()));
                let fields = version.chain([("kind", reference.kind.as_str()), ("name", reference.name.as_str())]);
                edits.push(Edit::set(to("describedObject"), mapping(fields)));
            }
            (Source::External, Some(Meaning::Claimable)) => {
                let resource = match &*reference.kind {
                    "Deployment" => None,
                    "StatefulSet" => Some(("resource", "statefulsets.apps")),
                    _ => Some(("resource", "replicasets.apps")),
                };
                let tag = metric.labels.iter().find(|(key, _)| key == "tag");
                let tag = tag.and_then(|(_, tag)| tag.as_deref()).map(|tag| ("tag", tag));
                let labels = [("workload", reference.name.as_str())].into_iter().chain(resource).chain(tag);
                edits.push(Edit::set(to("metric.selector.matchLabels"), mapping(labels)));
            }
            _ => {}
        }
    }
    edits
}

fn mapping<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Value {
    Value::Mapping(fields.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
}
