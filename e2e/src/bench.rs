//! What a test of the operator works with: a namespace, fixtures in it, and waits on watches.

use std::{fmt::Debug, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use k8s_openapi::api::{
    core::v1::{Pod, Secret},
    events::v1::Event,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy},
    runtime::wait::await_condition,
};
use serde_json::{Value, json};
use tokio::time::timeout;
use vpn_types::{
    Mask, MaskConsumer, MaskProvider, MaskProviderSpec, MaskProviderVerifySpec, MaskReservation, MaskSpec,
};

pub use crate::observe::{Kind, LIMIT, is_active, is_ready, ready_condition, until_all};
use crate::{Cluster, Namespace, Operator, operator, shared};

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
        match our_cluster().await? {
            Some(cluster) => Self::run(cluster, operator::shared().await?, prefix, body).await,
            None => Ok(()),
        }
    }

    /// The same with a cluster and an operator of the test's own.
    pub async fn run(
        cluster: &Cluster,
        operator: &Operator,
        prefix: &str,
        body: impl AsyncFnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        let bench = Self::new(cluster, prefix).await?;
        bench.add_logs(operator);
        bench.dump_on_error(body(&bench)).await
    }

    /// A new namespace.
    pub async fn new(cluster: &Cluster, prefix: &str) -> Result<Self> {
        Ok(Self { namespace: Namespace::create(cluster, prefix).await?, client: cluster.client()? })
    }

    /// Adds the logs of an operator, as it runs now, to the dump.
    pub fn add_logs(&self, operator: &Operator) {
        operator.logs().for_each(|log| self.namespace.add_log(log));
    }

    /// Runs a test and dumps the state of the namespace when it fails.
    pub async fn dump_on_error(&self, test: impl Future<Output = Result<()>>) -> Result<()> {
        let result = test.await;
        if result.is_err() {
            eprintln!("{}", self.namespace.dump());
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
        // An account of its own: two that log in as one would be told of each other.
        let user = format!("{provider}@{}", self.name());
        let data = json!({ "VPN_SERVICE_PROVIDER": "custom", "OPENVPN_USER": user, "OPENVPN_PASSWORD": "secret" });
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

    /// Waits until an Event about an object, or one that was of that name, has this reason and all these words.
    pub async fn told<K: Kind>(&self, name: &str, reason: &str, words: &[&str]) -> Result<()> {
        let tells = |event: &Event| {
            let about = event.regarding.clone().unwrap_or_default();
            (about.kind.as_deref(), about.name.as_deref()) == (Some(&*K::kind(&())), Some(name))
                && event.reason.as_deref() == Some(reason)
                && event.note.as_ref().is_some_and(|note| words.iter().all(|word| note.contains(word)))
        };
        let what = format!("an Event {reason} {words:?} about {} {name}", K::kind(&()));
        self.until_all::<Event>(&what, |all| all.iter().any(tells)).await.map(drop)
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

    /// Deletes all Masks and providers, and waits until nothing is left of them.
    pub async fn clear(&self, limit: Duration) -> Result<()> {
        self.api::<Mask>().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        self.api::<MaskProvider>().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        until_all(self.api::<Mask>(), limit, "no Mask", <[_]>::is_empty).await?;
        until_all(self.api::<MaskConsumer>(), limit, "no MaskConsumer", <[_]>::is_empty).await?;
        until_all(self.api::<MaskReservation>(), limit, "no MaskReservation", <[_]>::is_empty).await?;
        until_all(self.api::<MaskProvider>(), limit, "no MaskProvider", <[_]>::is_empty).await?;
        Ok(())
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

/// The [shared cluster](shared::cluster), if it is ours: another may have an operator already, and has no nodes of
/// kwok.
pub async fn our_cluster() -> Result<Option<&'static Cluster>> {
    let cluster = shared::cluster().await?;
    if !cluster.is_ours() {
        eprintln!("not tested: the cluster is not one started by the tests");
    }
    Ok(Some(cluster).filter(|cluster| cluster.is_ours()))
}

/// Fails unless two values are equal, naming them.
pub fn same<T: PartialEq + Debug>(what: &str, is: T, should: T) -> Result<()> {
    ensure!(is == should, "{what}: is {is:?}, should be {should:?}");
    Ok(())
}
