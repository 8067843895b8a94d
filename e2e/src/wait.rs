//! Waits based on watches, and predicates for them.

use std::{collections::HashSet, fmt::Debug, time::Duration};

use anyhow::{Context, Result, anyhow};
use futures::StreamExt;
use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{WatchStreamExt, wait, watcher},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, sleep, timeout};
use vpn_types::{MaskConsumer, MaskConsumerPhase, READY};

/// The timeout of every wait, long enough for a busy machine. Only a failing test reaches it.
pub const TIMEOUT: Duration = Duration::from_secs(120);
/// The delay before a failed request is sent again.
const RETRY: Duration = Duration::from_millis(100);

/// A namespaced kind.
pub trait Kind:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}
impl<K> Kind for K
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    K: Serialize + DeserializeOwned,
{
}

/// Like [`kube::runtime::wait::await_condition`], but a request that fails does not end the wait: the API server of a
/// test restarts, and refuses requests for a kind whose schema has just changed.
///
/// # Errors
/// When a request still fails after [`TIMEOUT`].
pub async fn await_condition<K>(api: Api<K>, name: &str, condition: impl wait::Condition<K>) -> Result<Option<K>>
where
    K: Clone + Debug + Send + DeserializeOwned + Resource + 'static,
{
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let holds = |object: Option<&K>| condition.matches_object(object);
        match wait::await_condition(api.clone(), name, holds).await {
            Err(_) if Instant::now() < deadline => sleep(RETRY).await,
            result => return Ok(result?),
        }
    }
}

/// Waits until `holds` is true for the list of all objects in `api`.
pub async fn wait_until_all<K: Kind>(
    api: Api<K>,
    limit: Duration,
    what: &str,
    holds: impl Fn(&[K]) -> bool,
) -> Result<Vec<K>> {
    let (reader, writer) = kube::runtime::reflector::store();
    let stream = watcher(api, watcher::Config::default()).default_backoff().reflect(writer);
    // Events that are already available are handled together, because with hundreds of objects each snapshot is
    // expensive.
    let mut stream = Box::pin(stream.ready_chunks(1024));
    let snapshot = || reader.state().iter().map(|object| (**object).clone()).collect::<Vec<K>>();
    let mut failure = None;
    let wait = async {
        let mut listed = false;
        while let Some(events) = stream.next().await {
            for event in events {
                match event {
                    Ok(event) => listed |= matches!(event, watcher::Event::InitDone),
                    // The watch starts again by itself.
                    Err(error) => failure = Some(error),
                }
            }
            if listed && holds(&snapshot()) {
                return anyhow::Ok(());
            }
        }
        Err(anyhow!("the watch ended"))
    };
    match timeout(limit, wait).await {
        Ok(result) => result.map(|()| snapshot()),
        Err(_) => {
            let last = serde_yaml::to_string(&snapshot())?;
            let failure = failure.map(|error| format!("; the watch failed: {error}")).unwrap_or_default();
            Err(anyhow!("not so after {limit:?}: {what}{failure}\n{last}"))
        }
    }
}

/// Waits until exactly `count` objects match. Stores only names, to have little effect on what is measured.
pub async fn wait_for_count<K: Kind>(
    api: Api<K>,
    limit: Duration,
    what: &str,
    count: usize,
    holds: impl Fn(&K) -> bool,
) -> Result<()> {
    let mut stream = Box::pin(watcher(api, watcher::Config::default()).default_backoff());
    let (mut listed, mut those, mut last_error) = (false, HashSet::new(), None);
    let wait = async {
        while !listed || those.len() != count {
            match stream.next().await.context("the watch ended")? {
                Ok(watcher::Event::Init) => those.clear(),
                Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) if holds(&object) => {
                    those.insert(object.name_any());
                }
                Ok(
                    watcher::Event::InitApply(object) | watcher::Event::Apply(object) | watcher::Event::Delete(object),
                ) => {
                    those.remove(&object.name_any());
                }
                Ok(watcher::Event::InitDone) => listed = true,
                // The watch starts again by itself.
                Err(error) => last_error = Some(error),
            }
        }
        anyhow::Ok(())
    };
    match timeout(limit, wait).await {
        Ok(result) => result,
        Err(_) => {
            let error = last_error.map_or_else(String::new, |error| format!(" (the last error: {error})"));
            Err(anyhow!("{} rather than {count} after {limit:?}: {what}{error}", those.len()))
        }
    }
}

/// Whether a MaskConsumer has a slot.
pub fn is_active(consumer: &MaskConsumer) -> bool {
    consumer.status.as_ref().and_then(|status| status.phase) == Some(MaskConsumerPhase::Active)
}

/// Whether the `Ready` condition is `True`.
pub fn is_ready<K: Kind>(object: &K) -> bool {
    ready_condition(object).is_some_and(|ready| ready.status == "True")
}

/// The `Ready` condition.
pub fn ready_condition<K: Kind>(object: &K) -> Option<Condition> {
    let object = serde_json::to_value(object).ok()?;
    let conditions = object["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|condition| condition["type"] == READY)?;
    serde_json::from_value(ready.clone()).ok()
}
