//! A recording of all changes in a namespace, and the check that no account ever had more users than slots.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};
use vpn_types::{MaskConsumer, MaskProvider};

use crate::{
    pods::usage::{may_run, restarts},
    wait::{Kind, TIMEOUT, is_active},
};

/// The delay before a failed watch is restarted.
const PAUSE: Duration = Duration::from_millis(100);

/// An object at one moment.
#[derive(Clone, Debug)]
pub enum Object {
    /// A Pod.
    Pod(Box<Pod>),
    /// A MaskConsumer.
    Consumer(Box<MaskConsumer>),
    /// A MaskProvider.
    Provider(Box<MaskProvider>),
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub struct Change {
    /// The `resourceVersion`. The API server takes it from etcd, where it is one sequence for all kinds. So it is the order
    /// of all writes.
    pub version: u64,
    /// Whether the object was deleted. Then `object` is its last state.
    pub deleted: bool,
    /// The object.
    pub object: Object,
}

/// A recording of Pods, MaskConsumers and MaskProviders, from the moment it was started.
pub struct History {
    client: Client,
    namespace: Option<String>,
    changes: Vec<Change>,
    received: mpsc::UnboundedReceiver<Result<Change>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for History {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl History {
    /// Starts recording in one namespace, or in all.
    pub async fn start(client: &Client, namespace: Option<&str>) -> Result<Self> {
        let (sender, received) = mpsc::unbounded_channel();
        let (client, namespace) = (client.clone(), namespace.map(str::to_owned));
        let mut history = Self { client, namespace, changes: Vec::new(), received, tasks: Vec::new() };
        history.follow(&sender, |pod| Object::Pod(Box::new(pod))).await?;
        history.follow(&sender, |consumer| Object::Consumer(Box::new(consumer))).await?;
        history.follow(&sender, |provider| Object::Provider(Box::new(provider))).await?;
        Ok(history)
    }

    fn api<K: Kind>(&self) -> Api<K> {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    async fn follow<K: Kind>(
        &mut self,
        sender: &mpsc::UnboundedSender<Result<Change>>,
        wrap: fn(K) -> Object,
    ) -> Result<()> {
        let mut watched = Watched { api: self.api::<K>(), version: String::new(), alive: BTreeMap::new(), wrap };
        self.changes.extend(watched.list().await?);
        let sender = sender.clone();
        self.tasks.push(tokio::spawn(async move {
            loop {
                match watched.watch(&sender).await {
                    Ok(()) => {}
                    // The API server is not reachable.
                    Err(error) if !is_answer(&error) => sleep(PAUSE).await,
                    Err(error) => {
                        drop(sender.send(Err(error)));
                        return;
                    }
                }
            }
        }));
        Ok(())
    }

    /// Waits for this number of further changes.
    pub async fn wait_for_changes(&mut self, count: usize) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        for seen in 0..count {
            let next = timeout_at(deadline, self.received.recv()).await;
            let next = next.with_context(|| format!("{seen} changes instead of {count}"))?;
            self.changes.push(next.context("the watches ended")??);
        }
        Ok(())
    }

    /// The number of MaskConsumers, by UID.
    pub fn consumers(&self) -> usize {
        let consumers = self.changes.iter().filter(|change| matches!(change.object, Object::Consumer(_)));
        consumers.map(|change| change.object.uid()).collect::<BTreeSet<_>>().len()
    }

    /// Returns all changes in order, after each watch has delivered everything up to now.
    pub async fn changes(&mut self) -> Result<&[Change]> {
        // The watches must have delivered the current state of every object, and the deletion of every other one.
        let mut current: BTreeMap<String, u64> = BTreeMap::new();
        for object in self.api::<Pod>().list(&ListParams::default()).await? {
            note(&mut current, &object)?;
        }
        for object in self.api::<MaskConsumer>().list(&ListParams::default()).await? {
            note(&mut current, &object)?;
        }
        for object in self.api::<MaskProvider>().list(&ListParams::default()).await? {
            note(&mut current, &object)?;
        }
        let deadline = Instant::now() + TIMEOUT;
        while !self.has_reached(&current) {
            let next = timeout_at(deadline, self.received.recv()).await.context("the watches lag")?;
            self.changes.push(next.context("the watches ended")??);
        }
        while let Ok(next) = self.received.try_recv() {
            self.changes.push(next?);
        }
        self.changes.sort_by_key(|change| change.version);
        Ok(&self.changes)
    }

    fn has_reached(&self, current: &BTreeMap<String, u64>) -> bool {
        let mut latest: BTreeMap<String, (u64, bool)> = BTreeMap::new();
        for change in &self.changes {
            let state = latest.entry(change.object.uid()).or_default();
            *state = (*state).max((change.version, change.deleted));
        }
        let alive = latest.iter().filter(|(_, (_, gone))| !gone);
        let ended = alive.filter(|(uid, _)| !current.contains_key(*uid)).count() == 0;
        ended && current.iter().all(|(uid, version)| latest.get(uid).is_some_and(|(seen, _)| seen >= version))
    }

    /// Returns the maximum number of slots in use at the same time, by UID of the MaskProvider. Fails if it ever
    /// exceeded the limit.
    ///
    /// A MaskConsumer uses a slot from its assignment until its last Pod has ended. That is stricter than the contract, which
    /// counts only Pods. `maxSlots` takes effect with the generation in `status.observedGeneration`.
    pub async fn check_slot_limits(&mut self) -> Result<BTreeMap<String, usize>> {
        let mut holders = Holders::default();
        for change in self.changes().await? {
            holders.take_in(change)?;
        }
        Ok(holders.most)
    }
}

/// The watch of one kind.
struct Watched<K> {
    api: Api<K>,
    version: String,
    /// By UID.
    alive: BTreeMap<String, K>,
    wrap: fn(K) -> Object,
}

impl<K: Kind> Watched<K> {
    /// Lists the objects and returns what changed since the last event. Changes in between are lost.
    async fn list(&mut self) -> Result<Vec<Change>> {
        let list = self.api.list(&ListParams::default()).await?;
        self.version = list.metadata.resource_version.clone().context("a list without resourceVersion")?;
        let mut changes = Vec::new();
        let mut before = std::mem::take(&mut self.alive);
        for object in list {
            let uid = object.uid().context("no uid")?;
            if before.remove(&uid).and_then(|before| before.resource_version()) != object.resource_version() {
                changes.push(change(object.clone(), false, self.wrap)?);
            }
            self.alive.insert(uid, object);
        }
        for mut gone in before.into_values() {
            gone.meta_mut().resource_version = Some(self.version.clone());
            changes.push(change(gone, true, self.wrap)?);
        }
        Ok(changes)
    }

    async fn list_anew(&mut self, sender: &mpsc::UnboundedSender<Result<Change>>) -> Result<()> {
        for change in self.list().await? {
            sender.send(Ok(change))?;
        }
        Ok(())
    }

    async fn watch(&mut self, sender: &mpsc::UnboundedSender<Result<Change>>) -> Result<()> {
        let mut events = match self.api.watch(&WatchParams::default(), &self.version).await {
            Err(kube::Error::Api(status)) if status.code == 410 => return self.list_anew(sender).await,
            begun => begun?.boxed(),
        };
        while let Some(event) = events.try_next().await? {
            let (object, gone) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                WatchEvent::Deleted(object) => (object, true),
                WatchEvent::Bookmark(_) => continue,
                // A restarted API server does not have older versions.
                WatchEvent::Error(status) if status.code == 410 => return self.list_anew(sender).await,
                WatchEvent::Error(status) => bail!("{status:?}"),
            };
            self.version = object.resource_version().context("an event without resourceVersion")?;
            let uid = object.uid().context("no uid")?;
            if gone {
                self.alive.remove(&uid);
            } else {
                self.alive.insert(uid, object.clone());
            }
            sender.send(change(object, gone, self.wrap))?;
        }
        Ok(())
    }
}

/// Whether the API server rejected the request. Otherwise it did not answer.
fn is_answer(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<kube::Error>() {
        // While it starts, it does not serve all resources yet.
        Some(kube::Error::Api(status)) => !matches!(status.code, 429 | 500..),
        Some(_) => false,
        None => true,
    }
}

fn note<K: Kind>(current: &mut BTreeMap<String, u64>, object: &K) -> Result<()> {
    current.insert(object.uid().context("no uid")?, version(object)?);
    Ok(())
}

fn version<K: Kind>(object: &K) -> Result<u64> {
    Ok(object.resource_version().context("no resourceVersion")?.parse()?)
}

fn change<K: Kind>(object: K, deleted: bool, wrap: fn(K) -> Object) -> Result<Change> {
    Ok(Change { version: version(&object)?, deleted, object: wrap(object) })
}

impl Object {
    /// The object's UID.
    pub fn uid(&self) -> String {
        match self {
            Self::Pod(object) => object.uid(),
            Self::Consumer(object) => object.uid(),
            Self::Provider(object) => object.uid(),
        }
        .unwrap_or_default()
    }
}

#[derive(Default)]
struct Holders {
    /// By UID of the provider: UIDs of the MaskConsumers that are committed to it.
    committed: BTreeMap<String, BTreeSet<String>>,
    /// By UID of the Pod: the UIDs of provider and MaskConsumer when the Pod was first seen. The Pod uses its slot even after
    /// the garbage collector has removed its owner reference.
    users: BTreeMap<String, (String, String)>,
    running: BTreeSet<String>,
    /// The number of container restarts of each Pod, by UID.
    restarts: BTreeMap<String, i32>,
    /// The provider of each MaskConsumer that was ever committed.
    provider_of: BTreeMap<String, String>,
    /// The last MaskConsumer that was assigned the Secret with that namespace and name.
    reader_of: BTreeMap<(Option<String>, String), String>,
    limits: BTreeMap<String, usize>,
    most: BTreeMap<String, usize>,
}

impl Holders {
    fn take_in(&mut self, change: &Change) -> Result<()> {
        let uid = change.object.uid();
        match &change.object {
            Object::Provider(provider) => {
                let (slots, generation) = (provider.spec.max_slots, provider.metadata.generation);
                let in_force = provider.status.as_ref().and_then(|status| status.observed_generation) == generation;
                let limit = self.limits.entry(uid).or_default();
                *limit = if in_force { slots } else { slots.max(*limit) };
            }
            Object::Consumer(consumer) => {
                let assigned = consumer.status.as_ref().and_then(|status| status.provider.as_ref());
                if let Some(assigned) = assigned {
                    self.provider_of.insert(uid.clone(), assigned.uid.clone());
                    self.reader_of.insert((consumer.namespace(), assigned.secret.clone()), uid.clone());
                    let committed = self.committed.entry(assigned.uid.clone()).or_default();
                    if is_active(consumer) {
                        committed.insert(uid.clone());
                    }
                }
                if change.deleted || assigned.is_none() {
                    for committed in self.committed.values_mut() {
                        committed.remove(&uid);
                    }
                }
            }
            Object::Pod(pod) => {
                if !self.users.contains_key(&uid) {
                    let Some(consumer) = self.consumer_of(pod) else { return Ok(()) };
                    let provider = self.provider_of.get(&consumer).cloned().unwrap_or_default();
                    self.users.insert(uid.clone(), (provider, consumer));
                }
                // A restarted container ran since the last event, even if neither status shows it.
                let before = self.restarts.insert(uid.clone(), restarts(pod)).unwrap_or(0);
                if restarts(pod) > before {
                    self.running.insert(uid.clone());
                    self.check(change)?;
                }
                if change.deleted || !may_run(pod) {
                    self.running.remove(&uid);
                } else {
                    self.running.insert(uid);
                }
            }
        }
        self.check(change)
    }

    fn consumer_of(&self, pod: &Pod) -> Option<String> {
        let owner = pod.owner_references().iter().find(|owner| owner.kind == "MaskConsumer");
        if let Some(owner) = owner {
            return Some(owner.uid.clone());
        }
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let sources = containers.flat_map(|container| container.env_from.iter().flatten());
        let by_env = sources.filter_map(|source| source.secret_ref.as_ref().map(|secret| &secret.name));
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let by_volume = volumes.filter_map(|volume| volume.secret.as_ref()?.secret_name.as_ref());
        let mut secrets = by_env.chain(by_volume);
        secrets.find_map(|secret| self.reader_of.get(&(pod.namespace(), secret.clone())).cloned())
    }

    fn check(&mut self, change: &Change) -> Result<()> {
        let mut held = self.committed.clone();
        for uid in &self.running {
            if let Some((provider, consumer)) = self.users.get(uid) {
                held.entry(provider.clone()).or_default().insert(consumer.clone());
            }
        }
        for (provider, holders) in held {
            let most = self.most.entry(provider.clone()).or_default();
            *most = holders.len().max(*most);
            let limit = self.limits.get(&provider).copied().unwrap_or_default();
            ensure!(
                holders.len() <= limit,
                "provider {provider} allows {limit} users and has {holders:?} at version {}",
                change.version
            );
        }
        Ok(())
    }
}
