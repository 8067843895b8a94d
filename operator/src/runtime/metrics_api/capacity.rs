//! The capacity of the cluster, from watches on Nodes and Pods.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::Selector as KubeSelector,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use crate::{
    capacity::{
        Available, Cluster, Consumers, NodeView, PodView, QuantityError, Query, Resources, Totals, millis, units,
    },
    metrics_api::{selector::Selector, values::NoValue},
    model::{CAPACITY_LABELS, LabelMatcher, ObjectKey},
    runtime::watch::error_chain,
};

/// The capacity of the cluster.
#[derive(Clone)]
pub struct Capacity(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    cluster: Cluster,
    /// Whether the first lists of Nodes and of Pods are complete.
    nodes_synced: bool,
    pods_synced: bool,
}

/// A view that counts for the capacity.
trait Counted: Sized {
    /// Handles a complete list.
    fn replace(known: &mut Known, all: Vec<Self>);
    /// Handles a new or changed object.
    fn apply(self, known: &mut Known);
    /// Handles the deletion of an object.
    fn remove(known: &mut Known, key: &ObjectKey);
}

impl Counted for NodeView {
    fn replace(known: &mut Known, all: Vec<Self>) {
        known.cluster.replace_nodes(all);
        known.nodes_synced = true;
    }

    fn apply(self, known: &mut Known) {
        known.cluster.apply_node(self);
    }

    fn remove(known: &mut Known, key: &ObjectKey) {
        known.cluster.remove_node(&key.name);
    }
}

impl Counted for PodView {
    fn replace(known: &mut Known, all: Vec<Self>) {
        known.cluster.replace_pods(all);
        known.pods_synced = true;
    }

    fn apply(self, known: &mut Known) {
        known.cluster.apply_pod(self);
    }

    fn remove(known: &mut Known, key: &ObjectKey) {
        known.cluster.remove_pod(key);
    }
}

impl Capacity {
    /// Starts the watches, which run until the process ends.
    pub fn watch(client: &Client) -> Self {
        let capacity = Self(Arc::default());
        tokio::spawn(capacity.clone().follow(Api::<Node>::all(client.clone()), NodeView::of));
        tokio::spawn(capacity.clone().follow(Api::<Pod>::all(client.clone()), PodView::of));
        capacity
    }

    async fn follow<K, V>(self, api: Api<K>, view: fn(&K) -> Option<V>)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
        V: Counted,
    {
        let mut listing = Vec::new();
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listing.clear(),
                Ok(Event::InitApply(object)) => listing.extend(view(&object)),
                Ok(Event::InitDone) => self.change(|known| V::replace(known, std::mem::take(&mut listing))),
                Ok(Event::Apply(object)) => {
                    view(&object).into_iter().for_each(|view| self.change(|known| view.apply(known)));
                }
                Ok(Event::Delete(object)) => {
                    let key = ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any());
                    self.change(|known| V::remove(known, &key));
                }
                Err(error) => {
                    let (kind, error) = (K::kind(&()), error_chain(&error));
                    tracing::warn!(error, "watch on objects of kind {kind} interrupted, restarting it");
                }
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Returns the value of a metric for the Pods of a Service with these labels, or `None` if it is none of capacity.
    pub fn value(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        metric: &str,
        selector: &Selector,
    ) -> Option<Result<f64, NoValue>> {
        let is_total = Totals::default().metrics().iter().any(|(name, _)| *name == metric);
        let is_available = Available::default().metrics().iter().any(|(name, _)| *name == metric);
        if !is_total && !is_available {
            return None;
        }
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.nodes_synced || !known.pods_synced {
            return Some(Err(NoValue::Unavailable("the first lists of Nodes and Pods are not complete".to_owned())));
        }
        if is_total {
            return value_of(&known.cluster.totals().metrics(), metric).map(Ok);
        }
        match query(namespace, labels, metric, selector) {
            Ok(query) => value_of(&known.cluster.available(&query).metrics(), metric).map(Ok),
            Err(why) => Some(Err(NoValue::BadRequest(why))),
        }
    }
}

fn value_of(metrics: &[(&str, u64)], metric: &str) -> Option<f64> {
    metrics.iter().find(|(name, _)| *name == metric).map(|(_, value)| *value as f64)
}

/// Returns the query that the labels of a selector describe, such as `cpu=1,memory=512Mi,reserve-cpu=30`.
fn query(
    namespace: &str,
    labels: &BTreeMap<String, String>,
    metric: &str,
    selector: &Selector,
) -> Result<Query, String> {
    let values = selector.values()?;
    if let Some(unknown) = values.keys().find(|key| !CAPACITY_LABELS.contains(key)) {
        return Err(format!("unknown label {unknown}: {metric} knows {}", CAPACITY_LABELS.join(", ")));
    }
    let amount = |label: &str, parse: fn(&str) -> Result<u64, QuantityError>| {
        let text = values.get(label);
        text.map_or(Ok(0), |text| parse(text).map_err(|why| format!("{label}={text}: {why}")))
    };
    let resources = |cpu: &str, memory: &str| {
        Ok::<_, String>(Resources { cpu_millis: amount(cpu, millis)?, memory_bytes: amount(memory, units)? })
    };
    let replica = resources("cpu", "memory")?;
    if metric == "replicas_that_fit" && replica == Resources::default() {
        return Err(format!("{metric} needs the label cpu or memory, what a replica requests"));
    }
    let consumers = match values.get("priority-below") {
        Some(text) => {
            let value = text.parse().map_err(|_| format!("priority-below={text}: expected a whole number"))?;
            Consumers::BelowPriority(value)
        }
        None if labels.is_empty() => return Err("the Service selects no Pods; set the label priority-below".to_owned()),
        None => Consumers::Selected {
            namespace: namespace.into(),
            labels: LabelMatcher::new(KubeSelector::from_iter(labels.clone())),
        },
    };
    Ok(Query { consumers, reserve: resources("reserve-cpu", "reserve-memory")?, replica })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    fn of(metric: &str, selector: &str) -> Result<Query, String> {
        query("media", &[("app".to_owned(), "a".to_owned())].into(), metric, &Selector::parse(selector).unwrap())
    }

    #[test]
    fn a_query_is_described_by_labels() {
        let query = of("replicas_that_fit", "cpu=500m,memory=1Gi,reserve-cpu=30").unwrap();
        assert_eq!(query.replica, Resources { cpu_millis: 500, memory_bytes: 1 << 30 });
        assert_eq!(query.reserve, Resources { cpu_millis: 30_000, memory_bytes: 0 });
        assert!(matches!(query.consumers, Consumers::Selected { namespace, .. } if &*namespace == "media"));
        let query = of("cpu_capacity_available", "priority-below=-5").unwrap();
        assert_eq!(query.consumers, Consumers::BelowPriority(-5));
        for (metric, selector) in [
            ("replicas_that_fit", ""),
            ("replicas_that_fit", "cpu=x"),
            ("replicas_that_fit", "cpu=1,other=2"),
            ("cpu_capacity_available", "priority-below=high"),
            ("cpu_capacity_available", "cpu!=1"),
        ] {
            assert!(of(metric, selector).is_err(), "{metric} {selector}");
        }
    }

    #[test]
    fn before_the_first_lists_there_is_no_capacity() {
        let capacity = Capacity(Arc::default());
        let value = |metric: &str| capacity.value("media", &BTreeMap::new(), metric, &Selector::default());
        assert!(matches!(value("cpu_capacity_remaining"), Some(Err(NoValue::Unavailable(_)))));
        assert_eq!(value("vpno_masks"), None);
        capacity.change(|known| (known.nodes_synced, known.pods_synced) = (true, true));
        assert_eq!(value("cpu_capacity_remaining"), Some(Ok(0.0)));
        assert!(matches!(value("replicas_that_fit"), Some(Err(NoValue::BadRequest(_)))));
    }
}
