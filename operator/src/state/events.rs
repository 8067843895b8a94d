//! Applies watch events and responses of the API server to the stores.

use std::sync::Arc;

use super::{Acknowledged, Change, ClusterState, Epoch, Object, PodView, Store, StoreChange, Versioned, WatchEvent};
use crate::model::{Kind, ObjectKey, Uid};

/// Evaluates an expression for the store of a kind.
macro_rules! with_store {
    ($state:expr, $kind:expr, |$store:ident, $wrap:ident| $body:expr) => {
        match $kind {
            Kind::Mask => with_store!(@ $state.masks, StoreChange::Mask, $store, $wrap, $body),
            Kind::Consumer => with_store!(@ $state.consumers, StoreChange::Consumer, $store, $wrap, $body),
            Kind::Reservation => with_store!(@ $state.reservations, StoreChange::Reservation, $store, $wrap, $body),
            Kind::Provider => with_store!(@ $state.providers, StoreChange::Provider, $store, $wrap, $body),
            Kind::Secret => with_store!(@ $state.copies, StoreChange::Copy, $store, $wrap, $body),
            Kind::Pod => with_store!(@ $state.verification_pods, StoreChange::VerificationPod, $store, $wrap, $body),
            Kind::InjectedPod => with_store!(@ $state.injected_pods, StoreChange::InjectedPod, $store, $wrap, $body),
            Kind::Server => with_store!(@ $state.servers, StoreChange::Server, $store, $wrap, $body),
            Kind::Client => with_store!(@ $state.clients, StoreChange::Client, $store, $wrap, $body),
            Kind::ServerSecret => with_store!(@ $state.server_secrets, StoreChange::ServerSecret, $store, $wrap, $body),
            Kind::ConfigMap => with_store!(@ $state.config_maps, StoreChange::ServerObject, $store, $wrap, $body),
            Kind::Service => with_store!(@ $state.services, StoreChange::ServerObject, $store, $wrap, $body),
            Kind::Deployment => with_store!(@ $state.deployments, StoreChange::ServerObject, $store, $wrap, $body),
            Kind::PodDisruptionBudget => with_store!(@ $state.pod_disruption_budgets, StoreChange::ServerObject, $store, $wrap, $body),
            Kind::ServerPod => with_store!(@ $state.server_pods, StoreChange::ServerPod, $store, $wrap, $body),
        }
    };
    (@ $field:expr, $variant:expr, $store:ident, $wrap:ident, $body:expr) => {{
        let ($store, $wrap) = (&mut $field, $variant);
        $body
    }};
}

/// Evaluates an expression for an object and the store of its kind. Pods of users have no such store.
macro_rules! with_object {
    ($state:expr, $object:expr, |$store:ident, $view:ident, $wrap:ident| $body:expr, $other:expr) => {
        match $object {
            Object::Mask($view) => with_store!(@ $state.masks, StoreChange::Mask, $store, $wrap, $body),
            Object::Consumer($view) => with_store!(@ $state.consumers, StoreChange::Consumer, $store, $wrap, $body),
            Object::Reservation($view) => {
                with_store!(@ $state.reservations, StoreChange::Reservation, $store, $wrap, $body)
            }
            Object::Provider(view) => {
                let $view = *view;
                with_store!(@ $state.providers, StoreChange::Provider, $store, $wrap, $body)
            }
            Object::Copy($view) => with_store!(@ $state.copies, StoreChange::Copy, $store, $wrap, $body),
            Object::VerificationPod(view) => {
                let $view = *view;
                with_store!(@ $state.verification_pods, StoreChange::VerificationPod, $store, $wrap, $body)
            }
            Object::InjectedPod(view) => {
                let $view = *view;
                with_store!(@ $state.injected_pods, StoreChange::InjectedPod, $store, $wrap, $body)
            }
            Object::Server(view) => {
                let $view = *view;
                with_store!(@ $state.servers, StoreChange::Server, $store, $wrap, $body)
            }
            Object::Client(view) => {
                let $view = *view;
                with_store!(@ $state.clients, StoreChange::Client, $store, $wrap, $body)
            }
            Object::ServerSecret(view) => {
                let $view = *view;
                with_store!(@ $state.server_secrets, StoreChange::ServerSecret, $store, $wrap, $body)
            }
            Object::ServerPod(view) => {
                let $view = *view;
                with_store!(@ $state.server_pods, StoreChange::ServerPod, $store, $wrap, $body)
            }
            Object::ServerObject(view) => {
                let $view = *view;
                match $view.kind {
                    Kind::Service => with_store!(@ $state.services, StoreChange::ServerObject, $store, $wrap, $body),
                    Kind::Deployment => with_store!(@ $state.deployments, StoreChange::ServerObject, $store, $wrap, $body),
                    Kind::PodDisruptionBudget => {
                        with_store!(@ $state.pod_disruption_budgets, StoreChange::ServerObject, $store, $wrap, $body)
                    }
                    _ => with_store!(@ $state.config_maps, StoreChange::ServerObject, $store, $wrap, $body),
                }
            }
            Object::Pod(_) => $other,
        }
    };
}

/// The effect of a watch event on the cache.
#[derive(Debug, Default)]
pub struct CacheUpdate {
    /// The changes. [Index](ClusterState::reindex) each of them before using it.
    pub changes: Vec<StoreChange>,
    /// Objects that may have been deleted without a watch event. They have to be read by name.
    pub unconfirmed: Vec<(Kind, ObjectKey)>,
}

/// A change of the Pods of a namespace.
#[derive(Debug)]
pub enum PodsChange {
    /// All Pods have been listed.
    Listed,
    /// A Pod was added, modified or deleted.
    Pod(PodView),
}

impl ClusterState {
    /// Applies an event of the watch on a kind.
    pub fn watch_event(&mut self, event: WatchEvent) -> CacheUpdate {
        let change = match event {
            WatchEvent::Init(kind) => {
                with_store!(self, kind, |store, _wrap| store.list_started());
                None
            }
            WatchEvent::InitApply(object) => {
                with_object!(self, object, |store, view, _wrap| store.listed(view), ());
                None
            }
            WatchEvent::InitDone(kind) => {
                fn wrap<V>(changes: Vec<Change<V>>, wrap: fn(Change<V>) -> StoreChange) -> Vec<StoreChange> {
                    changes.into_iter().map(wrap).collect()
                }
                let (changes, unconfirmed) = with_store!(self, kind, |store, variant| {
                    let (changes, unconfirmed) = store.list_completed();
                    (wrap(changes, variant), unconfirmed)
                });
                return CacheUpdate { changes, unconfirmed: unconfirmed.into_iter().map(|key| (kind, key)).collect() };
            }
            WatchEvent::Apply(object) => {
                with_object!(self, object, |store, view, wrap| store.applied(view).map(wrap), None)
            }
            WatchEvent::Lost(kind, key, uid) => with_store!(self, kind, |store, wrap| store.lost(&key, &uid).map(wrap)),
            WatchEvent::Delete(object) => {
                with_object!(self, object, |store, view, wrap| store.deleted(&view).map(wrap), None)
            }
        };
        CacheUpdate { changes: change.into_iter().collect(), unconfirmed: Vec::new() }
    }

    /// Applies the object in the response to a write or a read that was sent in epoch `sent`.
    pub fn acknowledge(&mut self, object: Object, sent: Epoch) -> (Acknowledged, Option<StoreChange>) {
        with_object!(
            self,
            object,
            |store, view, wrap| {
                let (acknowledged, change) = store.acknowledged(view, sent);
                (acknowledged, change.map(wrap))
            },
            (Acknowledged::Assumed, None)
        )
    }

    /// Removes an object that no longer exists, according to a response of the API server.
    pub fn remove(&mut self, kind: Kind, key: &ObjectKey, uid: &Uid) -> Option<StoreChange> {
        with_store!(self, kind, |store, wrap| store.removed(key, uid).map(wrap))
    }

    /// Returns the epoch of the store, and the UID and version of an object in it.
    pub fn cached_version(&self, kind: Kind, key: &ObjectKey) -> (Epoch, Option<(Uid, u64)>) {
        fn of<V: Versioned>(store: &Store<V>, key: &ObjectKey) -> (Epoch, Option<(Uid, u64)>) {
            (store.epoch(), store.get(key).map(|view| (view.uid().clone(), view.version())))
        }
        match kind {
            Kind::Mask => of(&self.masks, key),
            Kind::Consumer => of(&self.consumers, key),
            Kind::Reservation => of(&self.reservations, key),
            Kind::Provider => of(&self.providers, key),
            Kind::Secret => of(&self.copies, key),
            Kind::Pod => of(&self.verification_pods, key),
            Kind::InjectedPod => of(&self.injected_pods, key),
            Kind::Server => of(&self.servers, key),
            Kind::Client => of(&self.clients, key),
            Kind::ServerSecret => of(&self.server_secrets, key),
            Kind::ConfigMap => of(&self.config_maps, key),
            Kind::Service => of(&self.services, key),
            Kind::Deployment => of(&self.deployments, key),
            Kind::PodDisruptionBudget => of(&self.pod_disruption_budgets, key),
            Kind::ServerPod => of(&self.server_pods, key),
        }
    }

    /// Whether the first list of a kind is complete.
    pub fn is_synced(&self, kind: Kind) -> bool {
        match kind {
            Kind::Mask => self.masks.is_synced(),
            Kind::Consumer => self.consumers.is_synced(),
            Kind::Reservation => self.reservations.is_synced(),
            Kind::Provider => self.providers.is_synced(),
            Kind::Secret => self.copies.is_synced(),
            Kind::Pod => self.verification_pods.is_synced(),
            Kind::InjectedPod => self.injected_pods.is_synced(),
            Kind::Server => self.servers.is_synced(),
            Kind::Client => self.clients.is_synced(),
            Kind::ServerSecret => self.server_secrets.is_synced(),
            Kind::ConfigMap => self.config_maps.is_synced(),
            Kind::Service => self.services.is_synced(),
            Kind::Deployment => self.deployments.is_synced(),
            Kind::PodDisruptionBudget => self.pod_disruption_budgets.is_synced(),
            Kind::ServerPod => self.server_pods.is_synced(),
        }
    }

    /// Applies an event of the watch on the Pods of a namespace, if that watch is still needed.
    pub fn pods_event(&mut self, namespace: &Arc<str>, event: WatchEvent) -> Option<PodsChange> {
        let pods = self.pods.get_mut(namespace)?;
        match event {
            WatchEvent::Init(_) => pods.list_started(),
            WatchEvent::InitApply(Object::Pod(pod)) => pods.listed(pod),
            WatchEvent::InitDone(_) => {
                pods.list_completed();
                return Some(PodsChange::Listed);
            }
            WatchEvent::Apply(Object::Pod(pod)) => {
                pods.applied(pod.clone());
                return Some(PodsChange::Pod(pod));
            }
            WatchEvent::Delete(Object::Pod(pod)) => {
                pods.deleted(&pod);
                return Some(PodsChange::Pod(pod));
            }
            WatchEvent::InitApply(_) | WatchEvent::Apply(_) | WatchEvent::Delete(_) | WatchEvent::Lost(..) => {}
        }
        None
    }
}
