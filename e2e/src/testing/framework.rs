//! The framework for tests of the operator: a namespace, objects in it, and waits for their state.
//!
//! As in the end-to-end tests of Kubernetes, tests call it `f`.

use std::{fmt::Debug, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use k8s_openapi::api::{
    core::v1::{Pod, Secret},
    events::v1::Event,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy},
};
use serde_json::{Value, json};
use tokio::time::timeout;
use vpn_types::{
    Mask, MaskConsumer, MaskProvider, MaskProviderSpec, MaskProviderVerifySpec, MaskReservation, MaskSpec, OWNER_LABEL,
};

use crate::{
    cluster::{Cluster, Namespace, shared},
    operator::{self, Operator},
    wait::{Kind, TIMEOUT, await_condition, is_active, is_ready, ready_condition, wait_until_all},
};

/// A namespace for one test, in a cluster with a running operator.
pub struct Framework {
    /// The namespace.
    pub namespace: Namespace,
    /// The client of this test, as administrator.
    pub client: Client,
}

impl Framework {
    /// Runs a test in a new namespace, with the operator that all tests of this process share.
    pub async fn test(prefix: &str, body: impl AsyncFnOnce(&Self) -> Result<()>) -> Result<()> {
        match local_cluster().await? {
            Some(cluster) => Self::run(cluster, operator::shared().await?, prefix, body).await,
            None => Ok(()),
        }
    }

    /// Runs a test in a new namespace of `cluster`, with the operator `operator`.
    pub async fn run(
        cluster: &Cluster,
        operator: &Operator,
        prefix: &str,
        body: impl AsyncFnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        let f = Self::new(cluster, prefix).await?;
        f.add_logs(operator);
        f.dump_on_error(body(&f)).await
    }

    /// Creates a namespace.
    pub async fn new(cluster: &Cluster, prefix: &str) -> Result<Self> {
        Ok(Self { namespace: Namespace::create(cluster, prefix).await?, client: cluster.client()? })
    }

    /// Adds the logs of the running processes of an operator to the dump.
    pub fn add_logs(&self, operator: &Operator) {
        operator.logs().for_each(|log| self.namespace.add_log(log));
    }

    /// Runs a test, and prints the state of the namespace when it fails.
    pub async fn dump_on_error(&self, test: impl Future<Output = Result<()>>) -> Result<()> {
        self.namespace.dump_on_error(test.await)
    }

    /// The name of the namespace.
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// A client for a kind in the namespace.
    pub fn api<K: Kind>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), self.name())
    }

    /// Runs kubectl in the namespace and returns its standard output.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.namespace.kubectl(args).await
    }

    /// Creates an object.
    pub async fn create<K: Kind>(&self, object: K) -> Result<K> {
        let created = self.api::<K>().create(&PostParams::default(), &object).await;
        created.with_context(|| format!("cannot create {}", object.name_any()))
    }

    /// Applies a merge patch to an object.
    pub async fn patch<K: Kind>(&self, name: &str, patch: Value) -> Result<K> {
        Ok(self.api().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?)
    }

    /// Deletes an object, without waiting for its end.
    pub async fn delete<K: Kind>(&self, name: &str) -> Result<()> {
        self.delete_with::<K>(name, PropagationPolicy::Background).await
    }

    /// Deletes an object with a propagation policy, without waiting for its end.
    pub async fn delete_with<K: Kind>(&self, name: &str, propagation: PropagationPolicy) -> Result<()> {
        let params = DeleteParams { propagation_policy: Some(propagation), ..DeleteParams::default() };
        self.api::<K>().delete(name, &params).await.with_context(|| format!("cannot delete {name}"))?;
        Ok(())
    }

    /// Creates the Secret `{provider}-credentials`.
    pub async fn create_credentials(&self, provider: &str) -> Result<Secret> {
        // Each provider has its own account, because the operator reports providers that share one.
        let user = format!("{provider}@{}", self.name());
        let data = json!({ "VPN_SERVICE_PROVIDER": "custom", "OPENVPN_USER": user, "OPENVPN_PASSWORD": "secret" });
        self.create(serde_json::from_value(json!({
            "metadata": { "name": format!("{provider}-credentials") },
            "stringData": data,
        }))?)
        .await
    }

    /// Creates a MaskProvider with its Secret, and waits until it is ready. It serves only this namespace and skips
    /// verification.
    pub async fn create_provider(&self, name: &str, slots: usize) -> Result<MaskProvider> {
        self.create_provider_with(name, slots, |_| {}).await
    }

    /// Does the same, but changes the spec first.
    pub async fn create_provider_with(
        &self,
        name: &str,
        slots: usize,
        change: impl FnOnce(&mut MaskProviderSpec),
    ) -> Result<MaskProvider> {
        self.create_credentials(name).await?;
        let mut provider = self.new_provider(name, slots);
        change(&mut provider.spec);
        self.create(provider).await?;
        self.wait_until(name, "a usable provider", |provider: &MaskProvider| is_ready(provider)).await
    }

    /// A MaskProvider that does not exist yet.
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

    /// Creates a Mask that accepts any provider.
    pub async fn create_mask(&self, name: &str) -> Result<Mask> {
        self.create(Mask::new(name, MaskSpec::default())).await
    }

    /// Creates a Mask that accepts providers with one of these tags.
    pub async fn create_mask_with_tags(&self, name: &str, tags: &[&str]) -> Result<Mask> {
        let providers = Some(tags.iter().map(|&tag| tag.to_owned()).collect());
        self.create(Mask::new(name, MaskSpec { providers, ..Default::default() })).await
    }

    /// Creates a Mask, and waits until its MaskConsumer has a slot.
    pub async fn create_active_mask(&self, name: &str) -> Result<MaskConsumer> {
        self.create_mask(name).await?;
        self.wait_active(name).await
    }

    /// Waits until a MaskConsumer has a slot.
    pub async fn wait_active(&self, name: &str) -> Result<MaskConsumer> {
        self.wait_until(name, "an Active MaskConsumer", is_active).await
    }

    /// Waits until the `Ready` condition of an object has this reason.
    pub async fn wait_for_reason<K: Kind>(&self, name: &str, reason: &str) -> Result<K> {
        self.wait_until(name, reason, |object: &K| ready_condition(object).is_some_and(|ready| ready.reason == reason))
            .await
    }

    /// Waits until an Event about an object of this name has this reason, and its note contains all `words`.
    pub async fn wait_for_event<K: Kind>(&self, name: &str, reason: &str, words: &[&str]) -> Result<()> {
        let tells = |event: &Event| {
            let about = event.regarding.clone().unwrap_or_default();
            (about.kind.as_deref(), about.name.as_deref()) == (Some(&*K::kind(&())), Some(name))
                && event.reason.as_deref() == Some(reason)
                && event.note.as_ref().is_some_and(|note| words.iter().all(|word| note.contains(word)))
        };
        let what = format!("an Event {reason} {words:?} about {} {name}", K::kind(&()));
        self.wait_until_all::<Event>(&what, |all| all.iter().any(tells)).await.map(drop)
    }

    /// Waits until an object exists and `holds` is true for it. `what` describes that in the error.
    pub async fn wait_until<K: Kind>(&self, name: &str, what: &str, holds: impl Fn(&K) -> bool) -> Result<K> {
        let api = self.api::<K>();
        match timeout(TIMEOUT, await_condition(api.clone(), name, |object: Option<&K>| object.is_some_and(&holds)))
            .await
        {
            Ok(object) => object?.context("await_condition gave nothing"),
            Err(_) => {
                let last = serde_yaml::to_string(&api.get_opt(name).await?)?;
                Err(anyhow!("{} {name} did not reach this state within {TIMEOUT:?}: {what}\n{last}", K::kind(&())))
            }
        }
    }

    /// Waits until an object is deleted. Another object with the same name does not count.
    pub async fn wait_deleted<K: Kind>(&self, object: &K) -> Result<()> {
        let (name, uid) = (object.name_any(), object.uid());
        let api = self.api::<K>();
        let gone = |now: Option<&K>| now.is_none_or(|now| now.uid() != uid);
        match timeout(TIMEOUT, await_condition(api.clone(), &name, gone)).await {
            Ok(result) => result.map(drop),
            Err(_) => {
                let last = serde_yaml::to_string(&api.get_opt(&name).await?)?;
                Err(anyhow!("{} {name} still exists after {TIMEOUT:?}\n{last}", K::kind(&())))
            }
        }
    }

    /// Waits until `holds` is true for the list of all objects of a kind in the namespace.
    pub async fn wait_until_all<K: Kind>(&self, what: &str, holds: impl Fn(&[K]) -> bool) -> Result<Vec<K>> {
        wait_until_all(self.api(), TIMEOUT, what, holds).await
    }

    /// Waits until there is no Mask, and nothing that the operator creates for one.
    pub async fn wait_for_no_masks(&self, limit: Duration) -> Result<()> {
        wait_until_all(self.api::<Mask>(), limit, "no Mask", <[_]>::is_empty).await?;
        wait_until_all(self.api::<MaskConsumer>(), limit, "no MaskConsumer", <[_]>::is_empty).await?;
        wait_until_all(self.api::<MaskReservation>(), limit, "no MaskReservation", <[_]>::is_empty).await?;
        let is_copy = |secret: &Secret| secret.labels().contains_key(OWNER_LABEL);
        let no_copy = |all: &[Secret]| !all.iter().any(is_copy);
        wait_until_all(self.api::<Secret>(), limit, "no copied Secret", no_copy).await.map(drop)
    }

    /// Deletes all Masks and MaskProviders, and waits until all of their objects are deleted.
    pub async fn clear(&self, limit: Duration) -> Result<()> {
        self.delete_all::<Mask>().await?;
        self.delete_all::<MaskProvider>().await?;
        self.wait_for_no_masks(limit).await?;
        wait_until_all(self.api::<MaskProvider>(), limit, "no MaskProvider", <[_]>::is_empty).await?;
        Ok(())
    }

    /// Deletes all objects of a kind. Continues if a connection breaks.
    async fn delete_all<K: Kind>(&self) -> Result<()> {
        let mut attempts = 3;
        loop {
            attempts -= 1;
            match self.api::<K>().delete_collection(&DeleteParams::default(), &ListParams::default()).await {
                Err(error) if attempts == 0 || matches!(error, kube::Error::Api(_)) => return Err(error.into()),
                Err(_) => {}
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Creates a Pod, and waits until it is running.
    pub async fn run_pod(&self, pod: Pod) -> Result<Pod> {
        let name = pod.name_any();
        self.create(pod).await?;
        self.wait_until(&name, "a running Pod", |pod: &Pod| {
            pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
        })
        .await
    }
}

/// The [shared cluster](shared::cluster), if this process started it. The cluster of a user may already have an operator,
/// and has no kwok nodes.
pub async fn local_cluster() -> Result<Option<&'static Cluster>> {
    let cluster = shared::cluster().await?;
    if !cluster.is_local() {
        eprintln!("skipped: the tests did not start this cluster");
    }
    Ok(Some(cluster).filter(|cluster| cluster.is_local()))
}

/// Fails unless two values are equal. `what` names them in the error.
pub fn ensure_eq<T: PartialEq + Debug>(what: &str, actual: T, expected: T) -> Result<()> {
    ensure!(actual == expected, "{what}: got {actual:?}, expected {expected:?}");
    Ok(())
}
