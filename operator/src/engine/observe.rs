//! Applies watch events to the cache, and passes the changes on to the controllers.

use std::sync::Arc;

use super::{Engine, secret_watches::SecretUser};
use crate::{
    controllers::Change,
    model::{Kind, LogEvent, ObjectKey, ObjectReference, ReconcileRequest, Uid},
    state::{CredentialsState, CredentialsView, ReservationView, StoreChange, WatchEvent},
};

impl Engine {
    /// Handles an event of the watch on a kind.
    pub(super) fn watch_event(&mut self, event: WatchEvent) {
        if let WatchEvent::Lost(kind, key, uid) = &event
            && self.unreadable.deleted(*kind, key, uid)
        {
            self.forget(&ReconcileRequest::Unreadable(*kind, key.clone()));
        }
        let update = self.ctx.state.watch_event(event);
        for (kind, key) in update.unconfirmed {
            self.read_unconfirmed(kind, key);
        }
        for change in update.changes {
            self.changed(change);
        }
    }

    /// Reads an object whose cached state is not confirmed.
    pub(super) fn read_unconfirmed(&mut self, kind: Kind, key: ObjectKey) {
        let request = ReconcileRequest::Read(kind, key.clone());
        self.to_read.insert(request.clone(), (kind, key));
        self.enqueue(request);
    }

    /// Handles a change of a store.
    pub(super) fn changed(&mut self, change: StoreChange) {
        self.ctx.state.reindex(&change);
        self.forget_unreadable(&change);
        if let StoreChange::Provider(change) = &change
            && self.controllers.need_credentials()
        {
            let now = self.ctx.state.providers.get(&change.key);
            let stopped = self.secret_watches.provider_changed(&change.key, change.before.as_ref(), now);
            self.update_secret_watches(stopped);
            self.refresh_logins(&change.key);
        }
        if let StoreChange::Server(change) = &change
            && self.controllers.own_status(Kind::Server)
        {
            let now = self.ctx.state.servers.get(&change.key);
            let stopped = self.secret_watches.server_changed(&change.key, change.before.as_ref(), now);
            self.update_secret_watches(stopped);
        }
        self.observe(&Change::Store(&change));
    }

    /// Forgets Secrets that are no longer watched, and starts and stops watches.
    fn update_secret_watches(&mut self, stopped: Vec<ObjectKey>) {
        for secret in stopped {
            self.ctx.state.credentials_secrets.remove(&secret);
        }
        self.ctx.effects.append(&mut self.secret_watches.effects);
    }

    /// Passes a change on to every controller.
    fn observe(&mut self, change: &Change<'_>) {
        for controller in self.controllers.iter() {
            (controller.observe)(&mut self.ctx, change);
        }
        self.apply_work_changes();
    }

    /// Updates which providers share an account with this one.
    fn refresh_logins(&mut self, provider: &ObjectKey) {
        let was_complete = self.ctx.state.logins.is_complete();
        let providers = self.ctx.state.refresh_logins(provider);
        let is_complete = !was_complete && self.ctx.state.logins.is_complete();
        if is_complete || !providers.is_empty() {
            self.observe(&Change::SharedCredentials { providers: &providers, is_complete });
        }
    }

    /// Handles the current content of a credentials Secret.
    pub(super) fn credentials_changed(&mut self, key: ObjectKey, source: Option<CredentialsView>) {
        let Some(users) = self.secret_watches.users_of(&key) else { return };
        let state = &mut self.ctx.state;
        let data = match (state.credentials_secret(&key), &source) {
            (CredentialsState::Present(before), Some(now)) => before.hash != now.hash,
            (CredentialsState::Missing, None) => false,
            _ => true,
        };
        let source = source.map(|now| match state.credentials_secret(&key) {
            CredentialsState::Present(before) if before.hash == now.hash => {
                CredentialsView { data_since: before.data_since.clone(), ..now }
            }
            _ => now,
        });
        state.credentials_secrets.insert(key, source.map_or(CredentialsState::Missing, CredentialsState::Present));
        self.secret_changed(&users, data);
    }

    fn secret_changed(&mut self, users: &[SecretUser], data: bool) {
        for user in users {
            match user {
                SecretUser::Provider(provider) => {
                    self.refresh_logins(provider);
                    self.observe(&Change::Credentials { provider, data });
                }
                SecretUser::Server(server) => self.observe(&Change::Keystore(server)),
            }
        }
    }

    /// Handles a failure of the watch on a credentials Secret. The last known content stays valid.
    pub(super) fn credentials_unreadable(&mut self, key: &ObjectKey, why: Arc<str>) {
        let Some(users) = self.secret_watches.users_of(key) else { return };
        if matches!(self.ctx.state.credentials_secret(key), CredentialsState::Unknown | CredentialsState::Unreadable(_))
        {
            self.ctx.state.credentials_secrets.insert(key.clone(), CredentialsState::Unreadable(why));
            self.secret_changed(&users, false);
        }
    }

    /// Handles an event of the watch on the Pods of a namespace.
    pub(super) fn pods_event(&mut self, namespace: &Arc<str>, event: WatchEvent) {
        if let Some(change) = self.ctx.state.pods_event(namespace, event) {
            self.observe(&Change::Pods(namespace, &change));
        }
    }

    /// Handles an event of the log of a Pod.
    pub(super) fn log_event(&mut self, pod: &Uid, event: &LogEvent) {
        self.observe(&Change::Log(pod, event));
    }

    /// Handles the number of clients of an OpenVPN server.
    pub(super) fn connected_clients(&mut self, server: &ObjectKey, uid: &Uid, count: u64) {
        self.observe(&Change::ConnectedClients { server, uid, count });
    }

    /// Handles an object that cannot be decoded. It is skipped, and reported.
    pub(super) fn undecodable(&mut self, object: &ObjectReference, version: u64, error: String) {
        if self.unreadable.add(object, version, error) {
            self.enqueue(ReconcileRequest::Unreadable(object.kind, object.key.clone()));
        }
    }

    /// Forgets an object that can be decoded again.
    fn forget_unreadable(&mut self, change: &StoreChange) {
        let (kind, key) = match change {
            StoreChange::Mask(change) => (Kind::Mask, &change.key),
            StoreChange::Consumer(change) => (Kind::Consumer, &change.key),
            StoreChange::Reservation(change) => (Kind::Reservation, &change.key),
            StoreChange::Provider(change) => (Kind::Provider, &change.key),
            StoreChange::Server(change) => (Kind::Server, &change.key),
            StoreChange::Client(change) => (Kind::Client, &change.key),
            _ => return,
        };
        let reservation = self.ctx.state.reservations.get(key).filter(|_| kind == Kind::Reservation);
        if reservation.is_some_and(ReservationView::is_unreadable) {
            return;
        }
        let (_, view) = self.ctx.state.cached_version(kind, key);
        if view.is_some_and(|view| self.unreadable.forget(kind, key, &view)) {
            self.forget(&ReconcileRequest::Unreadable(kind, key.clone()));
        }
    }
}
