//! The state of the cluster from watches.

use std::collections::{BTreeMap, BTreeSet};

use e2e::pods::usage::may_run;
use futures::{
    StreamExt,
    stream::{BoxStream, SelectAll},
};
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use vpn_types::{
    MaskConsumer, MaskConsumerPhase, MaskProvider, MaskReservation, OpenVPNServer, READY, SLOT_ASSIGNED,
    inject::{INJECTED_ANNOTATION, Injected, SLOT_GATE},
};

/// The namespace of the accounts in `e2e/demo/providers.yaml` and the servers in `e2e/demo/servers.yaml`.
pub const ACCOUNTS: &str = "accounts";
/// The namespace of the workloads.
pub const APPS: &str = "apps";

/// An event of one of the watches.
pub enum Update {
    Consumer(Box<Event<MaskConsumer>>),
    Reservation(Box<Event<MaskReservation>>),
    Provider(Box<Event<MaskProvider>>),
    Pod(Box<Event<Pod>>),
    Server(Box<Event<OpenVPNServer>>),
}

/// Watches each kind. A failed watch is restarted.
pub fn watch_all(client: &Client) -> SelectAll<BoxStream<'static, Update>> {
    let mut all = SelectAll::new();
    all.push(watch(client, APPS, Update::Consumer));
    all.push(watch(client, APPS, Update::Pod));
    all.push(watch(client, ACCOUNTS, Update::Reservation));
    all.push(watch(client, ACCOUNTS, Update::Provider));
    all.push(watch(client, ACCOUNTS, Update::Server));
    all
}

fn watch<K>(client: &Client, namespace: &str, seen: fn(Box<Event<K>>) -> Update) -> BoxStream<'static, Update>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + DeserializeOwned
        + Clone
        + std::fmt::Debug
        + Send
        + 'static,
{
    watcher(Api::<K>::namespaced(client.clone(), namespace), watcher::Config::default())
        .default_backoff()
        .filter_map(move |event| async move { event.ok().map(Box::new).map(seen) })
        .boxed()
}

/// The objects of one kind in one namespace, by name.
struct Store<K> {
    objects: BTreeMap<String, K>,
    /// The names in the list that is being received.
    listed: BTreeSet<String>,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), listed: BTreeSet::new() }
    }
}

impl<K: ResourceExt> Store<K> {
    fn take(&mut self, event: Event<K>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                self.listed.insert(object.name_any());
                self.objects.insert(object.name_any(), object);
            }
            Event::InitDone => self.objects.retain(|name, _| self.listed.contains(name)),
            Event::Apply(object) => drop(self.objects.insert(object.name_any(), object)),
            Event::Delete(object) => drop(self.objects.remove(&object.name_any())),
        }
    }
}

/// All objects, and the parts of earlier states that are needed later.
#[derive(Default)]
pub struct ClusterView {
    consumers: Store<MaskConsumer>,
    reservations: Store<MaskReservation>,
    providers: Store<MaskProvider>,
    pods: Store<Pod>,
    servers: Store<OpenVPNServer>,
    /// The revision at which a Pod with a node was first seen ended or deleted, by UID.
    ended: BTreeMap<String, u64>,
    /// The revision at which a MaskConsumer was first seen Active, by UID.
    activated: BTreeMap<String, u64>,
    /// The account of each MaskConsumer that was Active, by name.
    accounts: BTreeMap<String, String>,
    /// The maximum number of running Pods at the same time, by provider.
    most_users: BTreeMap<String, usize>,
}

impl ClusterView {
    pub fn take(&mut self, seen: Update) {
        match seen {
            Update::Consumer(event) => {
                if let Event::Apply(consumer) | Event::InitApply(consumer) = &*event
                    && is_active(consumer)
                {
                    self.activated.entry(uid(consumer)).or_insert(revision(consumer));
                    let account = slot(consumer).map(|(account, _)| account.to_owned());
                    self.accounts.extend(account.map(|account| (consumer.name_any(), account)));
                }
                self.consumers.take(*event);
            }
            Update::Reservation(event) => self.reservations.take(*event),
            Update::Provider(event) => self.providers.take(*event),
            Update::Server(event) => self.servers.take(*event),
            Update::Pod(event) => {
                let ended = match &*event {
                    Event::Delete(pod) => Some(pod),
                    Event::Apply(pod) => Some(pod).filter(|pod| is_bound(pod) && !may_run(pod)),
                    _ => None,
                };
                if let Some(pod) = ended {
                    self.ended.entry(uid(pod)).or_insert(revision(pod));
                }
                self.pods.take(*event);
                self.count_users();
            }
        }
    }

    pub fn consumers(&self) -> impl Iterator<Item = &MaskConsumer> {
        self.consumers.objects.values()
    }

    pub fn consumer(&self, name: &str) -> Option<&MaskConsumer> {
        self.consumers.objects.get(name)
    }

    pub fn reservations(&self) -> impl Iterator<Item = &MaskReservation> {
        self.reservations.objects.values()
    }

    pub fn providers(&self) -> impl Iterator<Item = &MaskProvider> {
        self.providers.objects.values()
    }

    pub fn servers(&self) -> impl Iterator<Item = &OpenVPNServer> {
        self.servers.objects.values()
    }

    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.objects.values()
    }

    pub fn pod(&self, name: &str) -> Option<&Pod> {
        self.pods.objects.get(name)
    }

    /// Returns the MaskConsumer with the slot of a Pod.
    pub fn consumer_of(&self, pod: &Pod) -> Option<&MaskConsumer> {
        self.consumer(&mask_of(pod)?)
    }

    /// Returns the revision at which the kubelet reported the end of the Pod with this UID, or at which the Pod was
    /// deleted. One etcd stores all kinds, so revisions order writes across kinds.
    pub fn ended_at(&self, pod_uid: &str) -> Option<u64> {
        self.ended.get(pod_uid).copied()
    }

    /// Returns the revision at which the MaskConsumer with this UID became Active.
    pub fn active_at(&self, consumer_uid: &str) -> Option<u64> {
        self.activated.get(consumer_uid).copied()
    }

    /// Returns the maximum number of running Pods at the same time.
    pub fn most_users(&self, provider: &str) -> usize {
        self.most_users.get(provider).copied().unwrap_or_default()
    }

    /// Counts users by their Pods, not by statuses: a VPN service counts sessions of Pods.
    fn count_users(&mut self) {
        for name in self.providers.objects.keys() {
            let uses = |pod: &&Pod| runs(pod) && mask_of(pod).and_then(|mask| self.accounts.get(&mask)) == Some(name);
            let users = self.pods.objects.values().filter(uses).count();
            let most = self.most_users.entry(name.clone()).or_default();
            *most = users.max(*most);
        }
    }
}

/// Returns the name of the Mask of a Pod, and of its MaskConsumer.
fn mask_of(pod: &Pod) -> Option<String> {
    let injected = pod.annotations().get(INJECTED_ANNOTATION)?;
    Some(serde_json::from_str::<Injected>(injected).ok()?.secret)
}

/// Whether the Pod waits for a slot.
pub fn waits(pod: &Pod) -> bool {
    let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref());
    gates.is_some_and(|gates| gates.iter().any(|gate| gate.name == SLOT_GATE))
}

/// Whether the Pod is running, with a slot that is not being released.
pub fn is_served(view: &ClusterView, pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && phase(pod) == Some("Running")
        && view.consumer_of(pod).is_some_and(is_active)
}

pub fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

/// Returns the message of the Pod about its slot.
pub fn told(pod: &Pod) -> Option<&str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == SLOT_ASSIGNED)?.message.as_deref()
}

/// Whether the MaskConsumer has a slot and is not being deleted.
pub fn is_active(consumer: &MaskConsumer) -> bool {
    consumer.metadata.deletion_timestamp.is_none()
        && consumer.status.as_ref().and_then(|status| status.phase) == Some(MaskConsumerPhase::Active)
}

/// Whether a container of the Pod may run.
pub fn runs(pod: &Pod) -> bool {
    let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let ended = statuses.is_some_and(|all| {
        all.iter().all(|container| container.state.as_ref().is_some_and(|state| state.terminated.is_some()))
    });
    bound && !ended && !matches!(phase(pod), Some("Succeeded" | "Failed"))
}

pub fn uid(object: &impl ResourceExt) -> String {
    object.uid().unwrap_or_default()
}

fn revision(object: &impl ResourceExt) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// Whether slots of the account can be assigned.
pub fn is_usable(provider: &MaskProvider) -> bool {
    let conditions = provider.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == READY && condition.status == "True")
}

/// Returns the account and the number of the slot that a MaskConsumer has.
pub fn slot(consumer: &MaskConsumer) -> Option<(&str, usize)> {
    let provider = consumer.status.as_ref()?.provider.as_ref()?;
    Some((&provider.name, provider.slot))
}

/// Returns the waiting Pods by their place in line.
pub fn places(view: &ClusterView) -> BTreeMap<usize, String> {
    let place = |pod: &Pod| {
        let (_, place) = told(pod)?.split_once("place ")?;
        Some((place.split(' ').next()?.parse().ok()?, pod.name_any()))
    };
    view.pods().filter(|pod| waits(pod)).filter_map(place).collect()
}

fn is_bound(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
}
