//! The cache: one store per kind, updated by a watch and by the operator's own acknowledged writes.

mod credentials;
mod events;
mod index;
mod logins;
mod outcome;
mod pod_queues;
mod pods;
mod project;
mod store;
mod views;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use smallvec::SmallVec;

pub use events::{CacheUpdate, PodsChange};
pub use index::DeletedConsumer;
pub use logins::{Fingerprint, Login, LoginIndex, Logins, SharedWith};
pub use outcome::{Outcome, WatchEvent};
pub use pods::{Ending, NamespacePods};
pub use project::{
    Project, combined, credentials_view, fingerprint, message_fingerprint, meta,
    overrides::{INIT, PROBE, check_overrides, merge_overrides},
    source_hash, unreadable_reservation,
};
pub use store::{Acknowledged, Change, Epoch, Store, Versioned};
pub use views::*;

use crate::model::{Kind, Meta, ObjectKey, Uid};
use pod_queues::PodQueues;

/// The view of an object of any kind.
#[derive(Clone, Debug)]
pub enum Object {
    /// A Mask.
    Mask(MaskView),
    /// A MaskConsumer.
    Consumer(ConsumerView),
    /// A MaskReservation.
    Reservation(ReservationView),
    /// A MaskProvider.
    Provider(Box<ProviderView>),
    /// The metadata of a copied Secret.
    Copy(CopyView),
    /// A Pod that may use a slot.
    Pod(PodView),
    /// A Pod that verifies a provider.
    VerificationPod(Box<VerificationPod>),
    /// A Pod that the webhook injected.
    InjectedPod(Box<InjectedPod>),
    /// An OpenVPN server.
    Server(Box<ServerView>),
    /// A client of an OpenVPN server.
    Client(Box<ClientView>),
    /// A Secret of an OpenVPN server.
    ServerSecret(Box<ServerSecretView>),
    /// An object that the operator creates for an OpenVPN server.
    ServerObject(Box<ServerObject>),
    /// A replica of an OpenVPN server.
    ServerPod(Box<ServerPodView>),
}

impl Object {
    /// Returns the kind of the object.
    pub fn kind(&self) -> Kind {
        match self {
            Object::Mask(_) => Kind::Mask,
            Object::Consumer(_) => Kind::Consumer,
            Object::Reservation(_) => Kind::Reservation,
            Object::Provider(_) => Kind::Provider,
            Object::Copy(_) => Kind::Secret,
            Object::Pod(_) | Object::VerificationPod(_) => Kind::Pod,
            Object::InjectedPod(_) => Kind::InjectedPod,
            Object::Server(_) => Kind::Server,
            Object::Client(_) => Kind::Client,
            Object::ServerSecret(_) => Kind::ServerSecret,
            Object::ServerObject(view) => view.kind,
            Object::ServerPod(_) => Kind::ServerPod,
        }
    }

    /// Whether this is the final state of the object: the write that removed its last finalizer deleted it.
    pub fn is_final_state(&self) -> bool {
        let meta = self.meta();
        meta.deleting && meta.finalizers == 0 && !matches!(self.kind(), Kind::Pod | Kind::InjectedPod | Kind::ServerPod)
    }

    /// Returns the metadata of the object.
    pub fn meta(&self) -> &Meta {
        match self {
            Object::Mask(view) => &view.meta,
            Object::Consumer(view) => &view.meta,
            Object::Reservation(view) => &view.meta,
            Object::Provider(view) => &view.meta,
            Object::Copy(view) => &view.meta,
            Object::Pod(view) => &view.meta,
            Object::VerificationPod(view) => &view.meta,
            Object::InjectedPod(view) => &view.meta,
            Object::Server(view) => &view.meta,
            Object::Client(view) => &view.meta,
            Object::ServerSecret(view) => &view.meta,
            Object::ServerObject(view) => &view.meta,
            Object::ServerPod(view) => &view.meta,
        }
    }
}

/// A change of an object in its store.
#[allow(clippy::large_enum_variant, reason = "one exists at a time")]
#[derive(Debug)]
pub enum StoreChange {
    /// A Mask changed.
    Mask(Change<MaskView>),
    /// A MaskConsumer changed.
    Consumer(Change<ConsumerView>),
    /// A MaskReservation changed.
    Reservation(Change<ReservationView>),
    /// A MaskProvider changed.
    Provider(Change<ProviderView>),
    /// A copied Secret changed.
    Copy(Change<CopyView>),
    /// A Pod that verifies a provider changed.
    VerificationPod(Change<VerificationPod>),
    /// A Pod that the webhook injected changed.
    InjectedPod(Change<InjectedPod>),
    /// An OpenVPN server changed.
    Server(Change<ServerView>),
    /// A client of an OpenVPN server changed.
    Client(Change<ClientView>),
    /// A Secret of an OpenVPN server changed.
    ServerSecret(Change<ServerSecretView>),
    /// An object of an OpenVPN server changed.
    ServerObject(Change<ServerObject>),
    /// A replica of an OpenVPN server changed.
    ServerPod(Change<ServerPodView>),
}

/// The keys of objects that belong to another one, in order. Most often there is one.
type Keys = SmallVec<[ObjectKey; 1]>;

/// The cache.
#[derive(Clone, Default)]
pub struct ClusterState {
    /// Masks.
    pub masks: Store<MaskView>,
    /// MaskConsumers.
    pub consumers: Store<ConsumerView>,
    /// MaskReservations.
    pub reservations: Store<ReservationView>,
    /// MaskProviders.
    pub providers: Store<ProviderView>,
    /// The metadata of copied Secrets, which have the owner label.
    pub copies: Store<CopyView>,
    /// Pods that verify a provider.
    pub verification_pods: Store<VerificationPod>,
    /// Pods that the webhook injected.
    pub injected_pods: Store<InjectedPod>,
    /// OpenVPN servers.
    pub servers: Store<ServerView>,
    /// Clients of OpenVPN servers.
    pub clients: Store<ClientView>,
    /// Secrets of OpenVPN servers.
    pub server_secrets: Store<ServerSecretView>,
    /// ConfigMaps of OpenVPN servers.
    pub config_maps: Store<ServerObject>,
    /// Services of OpenVPN servers.
    pub services: Store<ServerObject>,
    /// Deployments of OpenVPN servers.
    pub deployments: Store<ServerObject>,
    /// PodDisruptionBudgets of OpenVPN servers.
    pub pod_disruption_budgets: Store<ServerObject>,
    /// Replicas of OpenVPN servers.
    pub server_pods: Store<ServerPodView>,
    /// The credentials Secrets of providers, each watched by name.
    pub credentials_secrets: HashMap<ObjectKey, CredentialsState>,
    /// The logins of the slots of providers.
    pub logins: LoginIndex,
    /// The Pods of namespaces with releases in progress.
    pub pods: HashMap<Arc<str>, NamespacePods>,
    consumer_of_uid: HashMap<Uid, ObjectKey>,
    reservations_of: HashMap<Uid, Keys>,
    slots_of: HashMap<ObjectKey, BTreeMap<u32, ObjectKey>>,
    copies_of: HashMap<Uid, Keys>,
    pods_of_mask: HashMap<ObjectKey, Keys>,
    pod_queues: PodQueues,
    clients_of: HashMap<ObjectKey, Keys>,
    /// By server and common name.
    clients_named: HashMap<(ObjectKey, Arc<str>), Keys>,
    /// By server and permanent address.
    clients_at: HashMap<(ObjectKey, Arc<str>), Keys>,
    server_pods_of: HashMap<ObjectKey, Keys>,
    deleted_consumers: HashMap<Uid, DeletedConsumer>,
    /// The UID of the reservation that a recently deleted consumer was committed to, by UID of the consumer: the watch
    /// on reservations may lag behind. The size is limited; a reservation that is dropped here is held a little longer.
    recent_commits: HashMap<Uid, Uid>,
    /// The keys of `recent_commits`, the oldest first.
    recent_commits_order: VecDeque<Uid>,
    /// The UIDs of deleted Masks whose consumer still exists.
    deleted_masks: HashSet<Uid>,
}

impl ClusterState {
    /// Returns the state of a credentials Secret.
    pub fn credentials_secret(&self, key: &ObjectKey) -> &CredentialsState {
        self.credentials_secrets.get(key).unwrap_or(&CredentialsState::Unknown)
    }

    /// Updates the logins of a provider. Returns the providers whose `shared_with` has changed.
    pub fn refresh_logins(&mut self, provider: &ObjectKey) -> Vec<ObjectKey> {
        let Self { logins, providers, credentials_secrets, .. } = self;
        let secret = |key: &ObjectKey| credentials_secrets.get(key).unwrap_or(&CredentialsState::Unknown);
        logins.update(provider, providers.get(provider), secret)
    }
}
