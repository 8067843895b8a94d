//! The values of metrics, from a [`Snapshot`].
//!
//! Invariant: a metric of an object has exactly one value, or none. A value that is not known is an error, never 0.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use vpn_types::MaskConsumerPhase;

use super::{
    names::{
        CLAIMABLE, MASK_PROVIDERS, NAMESPACE, NAMESPACES, PODS, SERVICES, TAG, unknown_custom, unknown_external,
        without_prefix,
    },
    request::{CustomQuery, Objects},
    selector::Selector,
};
use crate::{
    metrics::{Claim, PROVIDER, ProviderGauge, ProviderSlots, Snapshot, WorkloadKey},
    model::{CLAIM_LABELS, DEFAULT_RESOURCE, ObjectKey, WORKLOADS},
    state::Workload,
};

/// The object that a value describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedObject {
    /// The API version, such as `apps/v1`.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// The namespace. Absent for a namespace itself.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

/// A value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// The object. Absent for external metrics.
    pub object: Option<DescribedObject>,
    /// The name of the metric.
    pub metric: String,
    /// The labels of the metric.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoValue {
    /// There is no such object, or it has no value.
    NotFound(String),
    /// Nothing here has such a metric.
    UnknownMetric(String),
    /// A selector is wrong.
    BadRequest(String),
    /// It cannot be known now.
    Unavailable(String),
}

/// Answers questions about metrics.
pub struct Values<'a> {
    /// The snapshot.
    pub snapshot: &'a Snapshot,
    /// The prefix of the names of metrics.
    pub prefix: &'a str,
    /// The time of the snapshot.
    pub now: DateTime<Utc>,
}

impl Values<'_> {
    /// Returns the values of a custom metric.
    ///
    /// # Errors
    ///
    /// If there is no such metric or object, or a selector is wrong.
    pub fn custom(&self, query: &CustomQuery) -> Result<Vec<Value>, NoValue> {
        let CustomQuery { namespace, resource, objects, metric, selector } = query;
        let name = without_prefix(self.prefix, metric);
        let gauge = PROVIDER.iter().find(|(known, ..)| *known == name);
        match (&**resource, gauge) {
            (MASK_PROVIDERS, Some(gauge)) => self.providers(query, gauge),
            (NAMESPACES, _) if NAMESPACE.contains(&name) => {
                let object = DescribedObject {
                    api_version: "v1".to_owned(),
                    kind: "Namespace".to_owned(),
                    namespace: None,
                    name: namespace.to_owned(),
                };
                let all = self.of_namespace(namespace, name, metric);
                // One value for the object: the sum of the series that the selector matches.
                let value = all.iter().filter(|value| selector.matches(&value.labels)).map(|value| value.value).sum();
                let labels = BTreeMap::new();
                Ok(vec![Value { object: Some(object), metric: metric.to_owned(), labels, value }])
            }
            (resource, _) if name == CLAIMABLE && ![MASK_PROVIDERS, NAMESPACES, PODS, SERVICES].contains(&resource) => {
                let Objects::Named(workload) = objects else {
                    return Err(NoValue::BadRequest(format!("{metric} needs the name of a workload")));
                };
                let values = selector.values().map_err(NoValue::BadRequest)?;
                let claim = claim(namespace, resource, workload, &values)?;
                let object = describe(resource, namespace, workload);
                Ok(vec![Value { object: Some(object), ..self.claimable(&claim, metric)? }])
            }
            (resource, _) => {
                Err(NoValue::UnknownMetric(unknown_custom(self.prefix, resource, metric).unwrap_or_default()))
            }
        }
    }

    /// Returns the values of an external metric for an object in a namespace: those of MaskProviders that the namespace
    /// may use, and those of the namespace itself.
    ///
    /// # Errors
    ///
    /// If there is no such metric, or the selector is wrong.
    pub fn external(&self, namespace: &str, metric: &str, selector: &Selector) -> Result<Vec<Value>, NoValue> {
        let name = without_prefix(self.prefix, metric);
        let mut values = match PROVIDER.iter().find(|(known, ..)| *known == name) {
            Some((_, _, value)) => {
                let labels = |key: &ObjectKey| labels([("namespace", &key.namespace), ("provider", &key.name)]);
                let all = self.usable_by(namespace);
                all.map(|(key, slots)| plain(metric, labels(key), value(slots))).collect()
            }
            None if NAMESPACE.contains(&name) => self.of_namespace(namespace, name, metric),
            None if TAG.contains(&name) => self.of_tags(namespace, name, metric),
            None if name == CLAIMABLE => {
                let values = selector.values().map_err(NoValue::BadRequest)?;
                let Some(workload) = values.get("workload") else {
                    let why = format!("{metric} needs a selector with the label workload, the name of a workload");
                    return Err(NoValue::BadRequest(why));
                };
                let resource = values.get("resource").copied().unwrap_or(DEFAULT_RESOURCE);
                let claim = claim(namespace, resource, workload, &values)?;
                let labels = values.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
                return Ok(vec![Value { labels, ..self.claimable(&claim, metric)? }]);
            }
            None => {
                return Err(NoValue::UnknownMetric(unknown_external(self.prefix, metric).unwrap_or_default()));
            }
        };
        values.retain(|value| selector.matches(&value.labels));
        Ok(values)
    }

    fn providers(&self, query: &CustomQuery, (_, _, value): &ProviderGauge) -> Result<Vec<Value>, NoValue> {
        let CustomQuery { namespace, objects, metric, selector, .. } = query;
        let is_wanted = |key: &ObjectKey, slots: &ProviderSlots| match objects {
            Objects::Named(name) => *key.name == **name,
            Objects::Selected(labels) => labels.matches(&slots.labels),
        };
        let all = self.snapshot.providers.iter().filter(|(key, _)| *key.namespace == *namespace);
        let found = all.filter(|(key, slots)| is_wanted(key, slots)).map(|(key, slots)| Value {
            object: Some(describe(MASK_PROVIDERS, namespace, &key.name)),
            metric: metric.clone(),
            labels: labels([("namespace", &key.namespace), ("provider", &key.name)]),
            value: value(slots) as f64,
        });
        let found: Vec<_> = found.filter(|value| selector.matches(&value.labels)).collect();
        match objects {
            Objects::Named(name) if found.is_empty() => Err(NoValue::NotFound(format!(
                "the server could not find the metric {metric} for {MASK_PROVIDERS} {name}: there is no such object in \
                 namespace {namespace}, or the selector of the metric does not match"
            ))),
            _ => Ok(found),
        }
    }

    fn of_namespace(&self, namespace: &str, name: &str, metric: &str) -> Vec<Value> {
        let namespace: Arc<str> = namespace.into();
        let masks = self.snapshot.namespaces.get(&namespace).cloned().unwrap_or_default();
        let value = |value| plain(metric, labels([("namespace", &namespace)]), value);
        match name {
            "masks_waiting" => vec![value(masks.waiting)],
            "masks_oldest_wait_seconds" => {
                let seconds = masks.waiting_since.map_or(0, |since| (self.now - since).num_seconds().max(0));
                vec![value(seconds.unsigned_abs())]
            }
            _ => {
                let all = MaskConsumerPhase::ALL.iter().copied();
                let of_phase = |phase: MaskConsumerPhase| {
                    let labels = labels([("namespace", &namespace), ("phase", &phase.as_str().into())]);
                    plain(metric, labels, masks.in_phase(phase))
                };
                all.map(of_phase).collect()
            }
        }
    }

    fn of_tags(&self, namespace: &str, name: &str, metric: &str) -> Vec<Value> {
        let mut free: BTreeMap<&Arc<str>, u64> = BTreeMap::new();
        for (_, slots) in self.usable_by(namespace) {
            let tags: BTreeSet<_> = slots.tags.iter().collect();
            for tag in tags {
                *free.entry(tag).or_default() += if slots.open { slots.free } else { 0 };
            }
        }
        let waiting = |tag: &Arc<str>| self.snapshot.tags.get(tag).map_or(0, |slots| slots.waiting);
        let value = |(tag, free): (&Arc<str>, u64)| {
            plain(metric, labels([("tag", tag)]), if name == TAG[0] { free } else { waiting(tag) })
        };
        free.into_iter().map(value).collect()
    }

    fn claimable(&self, claim: &Claim, metric: &str) -> Result<Value, NoValue> {
        let value = self.snapshot.claimable(claim).ok_or_else(|| {
            let tag = claim.tag.as_ref().map_or(String::new(), |tag| format!(" with tag {tag}"));
            NoValue::NotFound(format!("no MaskProvider{tag} serves namespace {}", claim.workload.namespace))
        })?;
        Ok(plain(metric, BTreeMap::new(), value))
    }

    /// Returns the providers that a namespace may use.
    fn usable_by(&self, namespace: &str) -> impl Iterator<Item = (&ObjectKey, &ProviderSlots)> {
        let allows = move |slots: &ProviderSlots| {
            slots.namespaces.as_ref().is_none_or(|all| all.iter().any(|allowed| **allowed == *namespace))
        };
        self.snapshot.providers.iter().filter(move |(_, slots)| allows(slots))
    }
}

/// Parses a claim in the form of labels, such as `namespace=media,workload=downloader,tag=eu,reserve=2`.
///
/// # Errors
///
/// If a label is missing, unknown or wrong.
pub fn parse_claim(text: &str) -> Result<Claim, String> {
    let selector = Selector::parse(text)?;
    let mut values = selector.values()?;
    let namespace = values.remove("namespace").ok_or("it needs the label namespace")?;
    let workload = values.get("workload").copied().ok_or("it needs the label workload, the name of a workload")?;
    let resource = values.get("resource").copied().unwrap_or(DEFAULT_RESOURCE);
    claim(namespace, resource, workload, &values).map_err(|why| match why {
        NoValue::NotFound(why) | NoValue::UnknownMetric(why) | NoValue::BadRequest(why) | NoValue::Unavailable(why) => {
            why
        }
    })
}

/// Returns the claim that the labels of a selector describe.
fn claim(namespace: &str, resource: &str, name: &str, values: &BTreeMap<&str, &str>) -> Result<Claim, NoValue> {
    if let Some(unknown) = values.keys().find(|key| !CLAIM_LABELS.contains(key)) {
        let why = format!("unknown label {unknown}: {CLAIMABLE} knows tag, reserve and priority");
        return Err(NoValue::BadRequest(why));
    }
    let number = |label: &str| values.get(label).map(|text| (label.to_owned(), *text));
    let bad = |(label, text): (String, &str)| NoValue::BadRequest(format!("{label}={text}: expected a whole number"));
    let reserve = number("reserve").map(|(label, text)| text.parse().map_err(|_| bad((label, text)))).transpose()?;
    let priority = number("priority").map(|(label, text)| text.parse().map_err(|_| bad((label, text)))).transpose()?;
    Ok(Claim {
        workload: WorkloadKey {
            namespace: namespace.into(),
            workload: Workload { resource: resource.into(), name: name.into() },
        },
        tag: values.get("tag").map(|tag| Arc::from(*tag)),
        reserve: reserve.unwrap_or(0),
        priority,
    })
}

/// Returns the reference to an object of a resource.
pub fn describe(resource: &str, namespace: &str, name: &str) -> DescribedObject {
    let (api_version, kind) = match resource {
        MASK_PROVIDERS => ("vpn.beebs.dev/v1", "MaskProvider"),
        PODS => ("v1", "Pod"),
        SERVICES => ("v1", "Service"),
        other => match WORKLOADS.iter().find(|(resource, ..)| *resource == other) {
            Some((_, api_version, kind)) => (*api_version, *kind),
            // A resource does not tell its kind.
            None => (other.split_once('.').map_or("", |(_, group)| group), other),
        },
    };
    DescribedObject {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: Some(namespace.to_owned()),
        name: name.to_owned(),
    }
}

fn plain(metric: &str, labels: BTreeMap<String, String>, value: u64) -> Value {
    Value { object: None, metric: metric.to_owned(), labels, value: value as f64 }
}

fn labels<const N: usize>(labels: [(&str, &Arc<str>); N]) -> BTreeMap<String, String> {
    labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_string())).collect()
}

#[cfg(test)]
mod tests;
