//! Takes in what watches say and what the API server answers, whatever the kind.

use std::sync::Arc;

use super::{Acknowledged, Change, ClusterState, Epoch, Object, PodView, Store, StoreChange, Versioned, WatchEvent};
use crate::model::{Kind, ObjectKey, Uid};

/// Does the same with the store of any kind.
macro_rules! with_store {
    ($state:expr, $kind:expr, |$store:ident, $wrap:ident| $body:expr) => {
        match $kind {
            Kind::Mask => with_store!(@ $state.masks, StoreChange::Mask, $store, $wrap, $body),
            Kind::Consumer => with_store!(@ $state.consumers, StoreChange::Consumer, $store, $wrap, $body),
            Kind::Reservation => with_store!(@ $state.reservations, StoreChange::Reservation, $store, $wrap, $body),
            Kind::Provider => with_store!(@ $state.providers, StoreChange::Provider, $store, $wrap, $body),
            Kind::Secret => with_store!(@ $state.copies, StoreChange::Copy, $store, $wrap, $body),
            Kind::Pod => with_store!(@ $state.verification_pods, StoreChange::VerificationPod, $store, $wrap, $body),
        }
    };
    (@ $field:expr, $variant:expr, $store:ident, $wrap:ident, $body:expr) => {{
        let ($store, $wrap) = (&mut $field, $variant);
        $body
    }};
}

/// Does the same with an object of any kind that has a store. Pods of users have none.
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
            Object::Pod(_) => $other,
        }
    };
}

/// What a watch event meant for the stores.
#[derive(Debug, Default)]
pub struct Applied {
    /// What changed. Each change is to be [indexed](ClusterState::reindex) before anything is derived from it.
    pub changes: Vec<StoreChange>,
    /// Objects that may be gone without an event ever saying so: to be read back by name.
    pub doubtful: Vec<(Kind, ObjectKey)>,
}

/// What changed about the Pods of a namespace.
#[derive(Debug)]
pub enum PodsChange {
    /// All of them have been listed.
    Listed,
    /// This one changed, or is gone.
    Pod(PodView),
}

impl ClusterState {
    /// Takes in what the watch on a kind says.
    pub fn watch_event(&mut self, event: WatchEvent) -> Applied {
        let change = match event {
            WatchEvent::Init(kind) => {
                with_store!(self, kind, |store, _wrap| store.list_began());
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
                let (changes, doubtful) = with_store!(self, kind, |store, variant| {
                    let (changes, doubtful) = store.list_ended();
                    (wrap(changes, variant), doubtful)
                });
                return Applied { changes, doubtful: doubtful.into_iter().map(|key| (kind, key)).collect() };
            }
            WatchEvent::Apply(object) => {
                with_object!(self, object, |store, view, wrap| store.applied(view).map(wrap), None)
            }
            WatchEvent::Delete(object) => {
                with_object!(self, object, |store, view, wrap| store.deleted(&view).map(wrap), None)
            }
        };
        Applied { changes: change.into_iter().collect(), doubtful: Vec::new() }
    }

    /// Takes in an object that the API server showed, as the answer to a write or a read sent in that epoch.
    pub fn acknowledge(&mut self, object: Object, sent: Epoch) -> (Acknowledged, Option<StoreChange>) {
        with_object!(
            self,
            object,
            |store, view, wrap| {
                let (how, change) = store.acknowledged(view, sent);
                (how, change.map(wrap))
            },
            (Acknowledged::Assumed, None)
        )
    }

    /// Takes in that an object is gone for good, by the word of the API server.
    pub fn remove(&mut self, kind: Kind, key: &ObjectKey, uid: &Uid) -> Option<StoreChange> {
        with_store!(self, kind, |store, wrap| store.removed(key, uid).map(wrap))
    }

    /// What the store says of an object at this moment: since when, its UID and version.
    pub fn seen(&self, kind: Kind, key: &ObjectKey) -> (Epoch, Option<(Uid, u64)>) {
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
        }
    }

    /// Takes in what the watch on the Pods of a namespace says, if it is wanted any more.
    pub fn pods_event(&mut self, namespace: &Arc<str>, event: WatchEvent) -> Option<PodsChange> {
        let pods = self.pods.get_mut(namespace)?;
        match event {
            WatchEvent::Init(_) => pods.list_began(),
            WatchEvent::InitApply(Object::Pod(pod)) => pods.listed(pod),
            WatchEvent::InitDone(_) => {
                pods.list_ended();
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
            WatchEvent::InitApply(_) | WatchEvent::Apply(_) | WatchEvent::Delete(_) => {}
        }
        None
    }
}
