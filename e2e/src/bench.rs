//! What a test of the operator works with: a namespace, fixtures in it, and waits on watches.

use std::{fmt::Debug, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use futures::TryStreamExt;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Pod, Secret},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy},
    runtime::{WatchStreamExt, wait::await_condition, watcher},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::timeout;
use vpn_types::{
    Mask, MaskConsumer, MaskConsumerPhase, MaskProvider, MaskProviderSpec, MaskProviderVerifySpec, MaskSpec, READY,
    owner_reference_for,
};

use crate::{Cluster, Namespace, Operator, operator, shared};

/// How long anything may take on a busy machine: it matters only when a test fails.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A kind in a namespace.
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
impl<K> Kind for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// A namespace with an operator at work.
pub struct Bench {
    /// The namespace.
    pub namespace: Namespace,
    /// The client of this test, as admin.
    pub client: Client,
}

impl Bench {
    /// Runs a test in a namespace of its own, with the operator that all tests of this process share.
    pub async fn test(prefix: &str, body: impl AsyncFnOnce(&Self) -> Result<()>) -> Result<()> {
        Self::run(shared::cluster().await?, operator::shared().await?, prefix, body).await
    }

    /// The same with a cluster and an operator of the test's own.
    pub async fn run(
        cluster: &Cluster,
        operator: &Operator,
        prefix: &str,
        body: impl AsyncFnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        let bench = Self { namespace: Namespace::create(cluster, prefix).await?, client: cluster.client()? };
        operator.logs().for_each(|log| bench.namespace.add_log(log));
        let result = body(&bench).await;
        if result.is_err() {
            eprintln!("{}", bench.namespace.dump());
        }
        result
    }

    /// The namespace's name.
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// A kind in the namespace.
    pub fn api<K: Kind>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), self.name())
    }

    /// kubectl in the namespace.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.namespace.kubectl(args).await
    }

    /// Creates an object.
    pub async fn create<K: Kind>(&self, object: K) -> Result<K> {
        let created = self.api::<K>().create(&PostParams::default(), &object).await;
        created.with_context(|| format!("cannot create {}", object.name_any()))
    }

    /// Changes an object by a merge patch.
    pub async fn patch<K: Kind>(&self, name: &str, patch: Value) -> Result<K> {
        Ok(self.api().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?)
    }

    /// Deletes an object, without waiting.
    pub async fn delete<K: Kind>(&self, name: &str) -> Result<()> {
        self.delete_with::<K>(name, PropagationPolicy::Background).await
    }

    /// Deletes an object, without waiting.
    pub async fn delete_with<K: Kind>(&self, name: &str, propagation: PropagationPolicy) -> Result<()> {
        let params = DeleteParams { propagation_policy: Some(propagation), ..DeleteParams::default() };
        self.api::<K>().delete(name, &params).await.with_context(|| format!("cannot delete {name}"))?;
        Ok(())
    }

    /// Makes the Secret `{provider}-credentials`.
    pub async fn credentials(&self, provider: &str) -> Result<Secret> {
        let data = json!({ "VPN_SERVICE_PROVIDER": "custom", "OPENVPN_USER": "me", "OPENVPN_PASSWORD": "secret" });
        self.create(serde_json::from_value(json!({
            "metadata": { "name": format!("{provider}-credentials") },
            "stringData": data,
        }))?)
        .await
    }

    /// Makes a provider of this namespace only, with its Secret, that needs no verification, and waits until it is
    /// usable.
    pub async fn provider(&self, name: &str, slots: usize) -> Result<MaskProvider> {
        self.provider_with(name, slots, |_| {}).await
    }

    /// The same with changes.
    pub async fn provider_with(
        &self,
        name: &str,
        slots: usize,
        change: impl FnOnce(&mut MaskProviderSpec),
    ) -> Result<MaskProvider> {
        self.credentials(name).await?;
        let mut provider = self.new_provider(name, slots);
        change(&mut provider.spec);
        self.create(provider).await?;
        self.until(name, "a usable provider", |provider: &MaskProvider| is_ready(provider)).await
    }

    /// A provider, not yet created.
    pub fn new_provider(&self, name: &str, slots: usize) -> MaskProvider {
        let spec = MaskProviderSpec {
            secret: format!("{name}-credentials"),
            max_slots: slots,
            namespaces: Some(vec![self.name().to_owned()]),
            verify: Some(MaskProviderVerifySpec { skip: Some(true), ..Default::default() }),
            ..Default::default()
        };
        MaskProvider::new(name, spec)
    }

    /// Makes a Mask that takes any provider.
    pub async fn mask(&self, name: &str) -> Result<Mask> {
        self.create(Mask::new(name, MaskSpec::default())).await
    }

    /// Makes a Mask that takes providers with one of these tags.
    pub async fn mask_tagged(&self, name: &str, tags: &[&str]) -> Result<Mask> {
        let providers = Some(tags.iter().map(|&tag| tag.to_owned()).collect());
        self.create(Mask::new(name, MaskSpec { providers, ..Default::default() })).await
    }

    /// Makes a Mask and waits until it has its slot.
    pub async fn active_mask(&self, name: &str) -> Result<MaskConsumer> {
        self.mask(name).await?;
        self.active(name).await
    }

    /// Waits until a MaskConsumer has a slot.
    pub async fn active(&self, name: &str) -> Result<MaskConsumer> {
        self.until(name, "an Active MaskConsumer", is_active).await
    }

    /// Waits until an object says this as the reason of its `Ready` condition.
    pub async fn says<K: Kind>(&self, name: &str, reason: &str) -> Result<K> {
        self.until(name, reason, |object: &K| ready_condition(object).is_some_and(|ready| ready.reason == reason)).await
    }

    /// Waits until an object is there and as it should be.
    pub async fn until<K: Kind>(&self, name: &str, what: &str, holds: impl Fn(&K) -> bool) -> Result<K> {
        let api = self.api::<K>();
        match timeout(LIMIT, await_condition(api.clone(), name, |object: Option<&K>| object.is_some_and(&holds))).await
        {
            Ok(object) => object?.context("await_condition gave nothing"),
            Err(_) => {
                let last = serde_yaml::to_string(&api.get_opt(name).await?)?;
                Err(anyhow!("{} {name} is not so after {LIMIT:?}: {what}\n{last}", K::kind(&())))
            }
        }
    }

    /// Waits until an object is gone, or is another one of the same name.
    pub async fn gone<K: Kind>(&self, object: &K) -> Result<()> {
        let (name, uid) = (object.name_any(), object.uid());
        let api = self.api::<K>();
        let gone = |now: Option<&K>| now.is_none_or(|now| now.uid() != uid);
        if timeout(LIMIT, await_condition(api.clone(), &name, gone)).await.is_err() {
            let last = serde_yaml::to_string(&api.get_opt(&name).await?)?;
            return Err(anyhow!("{} {name} is still there after {LIMIT:?}\n{last}", K::kind(&())));
        }
        Ok(())
    }

    /// Waits until all objects of a kind in the namespace, together, are as they should be.
    pub async fn until_all<K: Kind>(&self, what: &str, holds: impl Fn(&[K]) -> bool) -> Result<Vec<K>> {
        until_all(self.api(), LIMIT, what, holds).await
    }

    /// Runs a Pod and waits until its containers run.
    pub async fn run_pod(&self, pod: Pod) -> Result<Pod> {
        let name = pod.name_any();
        self.create(pod).await?;
        self.until(&name, "a running Pod", |pod: &Pod| {
            pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
        })
        .await
    }
}

/// Waits until all objects that `api` reaches, together, are as they should be.
pub async fn until_all<K: Kind>(
    api: Api<K>,
    limit: Duration,
    what: &str,
    holds: impl Fn(&[K]) -> bool,
) -> Result<Vec<K>> {
    let (reader, writer) = kube::runtime::reflector::store();
    let mut stream = Box::pin(watcher(api, watcher::Config::default()).default_backoff().reflect(writer));
    let snapshot = || reader.state().iter().map(|object| (**object).clone()).collect::<Vec<K>>();
    let wait = async {
        let mut listed = false;
        while let Some(event) = stream.try_next().await? {
            listed |= matches!(event, watcher::Event::InitDone);
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
            Err(anyhow!("not so after {limit:?}: {what}\n{last}"))
        }
    }
}

/// A Pod that uses the slot of a MaskConsumer as the README tells: by its Secret, and owned by it. It takes `grace`
/// seconds to stop.
pub fn user_pod(name: &str, consumer: &MaskConsumer, grace: u32) -> Result<Pod> {
    let mut pod = stranger_pod(name, consumer, grace)?;
    pod.metadata.owner_references = Some(vec![owner_reference_for(consumer)]);
    Ok(pod)
}

/// The same, but without an owner reference.
pub fn stranger_pod(name: &str, consumer: &MaskConsumer, grace: u32) -> Result<Pod> {
    let secret = secret_of(consumer)?;
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "terminationGracePeriodSeconds": grace,
            "containers": [{
                "name": "main",
                "image": "any",
                "envFrom": [{ "secretRef": { "name": secret } }],
            }],
        },
    }))?)
}

/// The name of the Secret with the credentials.
pub fn secret_of(consumer: &MaskConsumer) -> Result<String> {
    let status = consumer.status.as_ref();
    let provider = status.and_then(|status| status.provider.as_ref()).context("no provider assigned")?;
    Ok(provider.secret.clone())
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

/// Fails unless two values are equal, naming them.
pub fn same<T: PartialEq + Debug>(what: &str, is: T, should: T) -> Result<()> {
    ensure!(is == should, "{what}: is {is:?}, should be {should:?}");
    Ok(())
}
