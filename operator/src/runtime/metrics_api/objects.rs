//! Metrics of Pods and Services: those that Pods expose, and the capacity of the cluster that is left for them.
//!
//! Invariant: nothing is asked unless a client asks, only Pods with the annotations in namespaces with the label are
//! asked, and only at their own addresses.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::{Api, Client, api::ListParams, core::Selector as KubeSelector};
use moka::future::Cache;
use vpn_types::pod_metrics::{METRICS_NAMES_ANNOTATION, POD_METRICS_ENABLED, POD_METRICS_LABEL};

use super::capacity::Capacity;
use crate::{
    metrics_api::{
        names::{PODS, SERVICES},
        request::{CustomQuery, Objects},
        values::{NoValue, Value, describe},
    },
    model::LabelMatcher,
    runtime::watch::error_chain,
    scrape::{Scraper, Target, is_enabled},
};

/// How long Pods, Services and namespaces that were read are used.
const KEEP: Duration = Duration::from_secs(5);
/// The maximum number of answers of each sort.
const MAX_ANSWERS: u64 = 1024;
/// The maximum number of Pods for one answer.
const MAX_PODS: usize = 1000;
/// How many Pods are asked at once for one answer.
const AT_ONCE: usize = 8;

/// A Pod, and where to ask it, or why it cannot be asked.
struct FoundPod {
    name: String,
    target: Result<Option<Target>, String>,
}

/// Answers questions for metrics of Pods and Services.
#[derive(Clone)]
pub struct ObjectMetrics {
    client: Client,
    scraper: Arc<Scraper>,
    namespaces: Cache<String, bool>,
    /// Pods by namespace and label selector, or by namespace and name.
    pods: Cache<(String, PodQuery), Arc<Vec<FoundPod>>>,
    /// The selectors of Services by namespace and name; `None` if there is no such Service.
    services: Cache<(String, String), Option<BTreeMap<String, String>>>,
    capacity: Option<Capacity>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum PodQuery {
    Name(String),
    Labels(String),
}

impl ObjectMetrics {
    /// Creates it without any answers. With `capacity`, it answers for the capacity of the cluster too.
    pub fn new(client: Client, capacity: Option<Capacity>) -> Self {
        Self {
            client,
            scraper: Arc::default(),
            namespaces: Cache::builder().max_capacity(MAX_ANSWERS).time_to_live(KEEP).build(),
            pods: Cache::builder().max_capacity(MAX_ANSWERS).time_to_live(KEEP).build(),
            services: Cache::builder().max_capacity(MAX_ANSWERS).time_to_live(KEEP).build(),
            capacity,
        }
    }

    /// Returns the values of a metric of Pods or of a Service, or `None` for other resources.
    pub async fn values(&self, query: &CustomQuery) -> Option<Result<Vec<Value>, NoValue>> {
        let CustomQuery { namespace, resource, objects, metric, .. } = query;
        let found = match (&**resource, objects) {
            // Autoscalers can handle missing values of some Pods.
            (PODS, Objects::Named(name)) => self.of_pods(query, PodQuery::Name(name.clone())).await,
            (PODS, Objects::Selected(labels)) => self.of_pods(query, PodQuery::Labels(text(labels.matcher()))).await,
            (SERVICES, Objects::Named(name)) => {
                self.of_service(query, name).await.map(|value| vec![(name.clone(), value)])
            }
            (SERVICES, Objects::Selected(_)) => {
                Err(NoValue::UnknownMetric(format!("{metric} needs the name of a Service")))
            }
            _ => return None,
        };
        let value = |(name, value): (String, f64)| Value {
            object: Some(describe(resource, namespace, &name)),
            metric: metric.clone(),
            labels: BTreeMap::new(),
            value,
        };
        Some(found.map(|found| found.into_iter().map(value).collect()))
    }

    async fn of_pods(&self, query: &CustomQuery, pods: PodQuery) -> Result<Vec<(String, f64)>, NoValue> {
        self.ask(query, pods).await?.values(&query.metric)
    }

    async fn of_service(&self, query: &CustomQuery, name: &str) -> Result<f64, NoValue> {
        let CustomQuery { namespace, metric, selector, .. } = query;
        let key = (namespace.clone(), name.to_owned());
        let read = async {
            let api = Api::<Service>::namespaced(self.client.clone(), namespace);
            let found = api.get_opt(name).await.map_err(|error| error_chain(&error))?;
            Ok::<_, String>(found.map(|service| service.spec.and_then(|spec| spec.selector).unwrap_or_default()))
        };
        let labels = self.services.try_get_with(key, read).await.map_err(|why| unavailable(&why))?;
        let labels = labels.ok_or_else(|| NoValue::UnknownMetric(format!("there is no Service {namespace}/{name}")))?;
        if let Some(capacity) = &self.capacity
            && let Some(value) = capacity.value(namespace, &labels, metric, selector)
        {
            return value;
        }
        if labels.is_empty() {
            return Err(NoValue::UnknownMetric(format!("Service {namespace}/{name} selects no Pods")));
        }
        let answers = self.ask(query, PodQuery::Labels(KubeSelector::from_iter(labels).to_string())).await?;
        // A sum without one of the Pods would look like less load.
        match answers.silent {
            Some(why) => Err(NoValue::Unavailable(format!("the sum of {metric} is not known; {why}"))),
            None => Ok(answers.values(metric)?.into_iter().map(|(_, value)| value).sum()),
        }
    }

    /// Asks the Pods that have the metric.
    async fn ask(&self, query: &CustomQuery, pods: PodQuery) -> Result<Answers, NoValue> {
        let CustomQuery { namespace, metric, selector, .. } = query;
        if !self.allows(namespace).await? {
            return Err(NoValue::UnknownMetric(format!(
                "the server could not find the metric {metric}: namespace {namespace} does not have the label \
                 {POD_METRICS_LABEL}={POD_METRICS_ENABLED}"
            )));
        }
        let pods = self.find(namespace, pods).await?;
        let ask = async |pod: usize| {
            let pod = &pods[pod];
            let answer = match &pod.target {
                Ok(Some(target)) if target.settings.names.iter().any(|name| **name == *metric) => {
                    let samples = self.scraper.samples(target).await;
                    let sum = samples.map(|samples| samples.sum(metric, selector.matcher()));
                    sum.map_or_else(
                        |why| Answer::Silent(why.to_string()),
                        |sum| sum.map_or(Answer::None, Answer::Value),
                    )
                }
                Ok(_) => Answer::None,
                Err(why) => Answer::NotAsked(why.clone()),
            };
            (pod.name.clone(), answer)
        };
        let all: Vec<_> = stream::iter(0..pods.len()).map(ask).buffer_unordered(AT_ONCE).collect().await;
        let mut answers = Answers::default();
        for (name, answer) in all {
            let about = |why: String| Some(format!("Pod {name}: {why}"));
            match answer {
                Answer::Value(value) => answers.found.push((name, value)),
                Answer::None => {}
                Answer::NotAsked(why) => answers.not_asked = about(why),
                Answer::Silent(why) => answers.silent = about(why),
            }
        }
        answers.found.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(answers)
    }

    async fn allows(&self, namespace: &str) -> Result<bool, NoValue> {
        let read = async {
            let api = Api::<Namespace>::all(self.client.clone());
            let found = api.get_metadata_opt(namespace).await.map_err(|error| error_chain(&error))?;
            let labels = found.and_then(|found| found.metadata.labels).unwrap_or_default();
            Ok::<_, String>(is_enabled(&labels))
        };
        self.namespaces.try_get_with(namespace.to_owned(), read).await.map_err(|why| unavailable(&why))
    }

    async fn find(&self, namespace: &str, query: PodQuery) -> Result<Arc<Vec<FoundPod>>, NoValue> {
        let read = async {
            let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
            // From the cache of kube-apiserver.
            let params = ListParams::default().match_any();
            let params = match &query {
                PodQuery::Name(name) => params.fields(&format!("metadata.name={name}")),
                PodQuery::Labels(labels) => params.labels(labels),
            };
            let list = api.list(&params).await.map_err(|error| error_chain(&error))?;
            let found = list.items.into_iter().take(MAX_PODS).map(|pod| FoundPod {
                target: Target::of(&pod).map_err(|why| why.to_string()),
                name: pod.metadata.name.unwrap_or_default(),
            });
            Ok::<_, String>(Arc::new(found.collect::<Vec<_>>()))
        };
        let key = (namespace.to_owned(), query.clone());
        self.pods.try_get_with(key, read).await.map_err(|why| unavailable(&why))
    }
}

/// What one Pod says.
enum Answer {
    Value(f64),
    /// It does not have the metric.
    None,
    /// It cannot be asked, for example because it does not run.
    NotAsked(String),
    /// It was asked, and gave no answer that can be used.
    Silent(String),
}

/// What the Pods say. Of those without a value, one reason of each sort is kept.
#[derive(Default)]
struct Answers {
    found: Vec<(String, f64)>,
    not_asked: Option<String>,
    silent: Option<String>,
}

impl Answers {
    /// Returns the values by the names of the Pods, at least one.
    fn values(self, metric: &str) -> Result<Vec<(String, f64)>, NoValue> {
        if !self.found.is_empty() {
            return Ok(self.found);
        }
        // A Pod that was asked has the metric. What the others have is not known.
        Err(match (self.silent, self.not_asked) {
            (Some(why), _) => NoValue::NotFound(format!("there is no value of {metric}; {why}")),
            (None, Some(why)) => NoValue::UnknownMetric(format!("there is no value of {metric}; {why}")),
            (None, None) => NoValue::UnknownMetric(format!(
                "there is no value of {metric}: no Pod that matches names it in the annotation {METRICS_NAMES_ANNOTATION}"
            )),
        })
    }
}

fn text(labels: &LabelMatcher) -> String {
    KubeSelector::from_iter(labels.expressions().iter().cloned()).to_string()
}

fn unavailable(why: &Arc<String>) -> NoValue {
    NoValue::Unavailable(format!("the API server cannot be asked: {why}"))
}
