//! Foreign objects with the names that a server or a client needs. The operator never changes them: a user or the
//! garbage collector removes them. Objects that no operator created are not cached, so the request fails instead.

use vpn_types::Reason;

use super::{
    context::ServersContext,
    evaluate::{self, ServerCondition},
    names::named,
    provider::slot_key,
};
use crate::{
    model::{Kind, ObjectKey, Uid},
    state::{ClientView, SecretRole, ServerObject, ServerView, Store},
};

/// An object that is in the way.
struct Obstacle {
    kind: Kind,
    key: ObjectKey,
    /// Whether it belongs to an earlier server of the same name, so that it will be deleted.
    is_leftover: bool,
}

impl ServersContext<'_> {
    /// Returns why a server cannot have one of its objects, if there is such an object.
    pub fn obstacle(&self, server: &ServerView) -> Option<ServerCondition> {
        let Obstacle { kind, key, is_leftover } = self.find_obstacle(server)?;
        let (kind, name) = (kind.as_str(), &key.name);
        Some(match is_leftover {
            true => evaluate::pending(&format!("Waiting until {kind} {name} of the previous OpenVPNServer is deleted")),
            false => evaluate::failed(Reason::NameTaken, taken(kind, name)),
        })
    }

    fn find_obstacle(&self, server: &ServerView) -> Option<Obstacle> {
        let (state, key, uid) = (self.state, &server.meta.key, &server.meta.uid);
        let objects: [(Kind, ObjectKey, &Store<ServerObject>); 6] = [
            (Kind::ConfigMap, named(key, "config"), &state.config_maps),
            (Kind::ConfigMap, named(key, "clients"), &state.config_maps),
            (Kind::Service, key.clone(), &state.services),
            (Kind::Service, named(key, "metrics"), &state.services),
            (Kind::PodDisruptionBudget, key.clone(), &state.pod_disruption_budgets),
            (Kind::Deployment, key.clone(), &state.deployments),
        ];
        let objects = objects.into_iter().filter_map(|(kind, key, store)| {
            let found = store.get(&key).filter(|found| found.owner.as_ref() != Some(uid))?;
            let is_leftover = found.server.as_ref() == Some(&server.meta.key.name);
            Some(Obstacle { kind, key, is_leftover })
        });
        let secrets = [
            ("ca", SecretRole::Authority),
            ("revoked", SecretRole::Revoked),
            ("server", SecretRole::Server),
            ("provider", SecretRole::Provider),
        ];
        let secrets = secrets.into_iter().filter_map(|(suffix, role)| {
            let key = named(key, suffix);
            let found = state.server_secrets.get(&key)?;
            let is_ours = found.role == Some(role) && found.server.as_ref() == Some(&server.meta.key.name);
            (!is_ours).then_some(Obstacle { kind: Kind::ServerSecret, key, is_leftover: false })
        });
        objects.chain(secrets).chain(self.account_obstacle(server)).next()
    }

    /// The MaskProvider, and the clients of its slots.
    fn account_obstacle(&self, server: &ServerView) -> Option<Obstacle> {
        let slots = u32::from(server.spec.provider.as_ref()?.max_slots);
        let is_other = |owner: Option<&Uid>| owner != Some(&server.meta.uid);
        let provider = self.state.providers.get(&server.meta.key);
        let provider = provider.filter(|found| is_other(found.server.as_ref())).map(|found| Obstacle {
            kind: Kind::Provider,
            key: server.meta.key.clone(),
            is_leftover: found.server.is_some(),
        });
        let mut slots = (0..slots).map(|slot| slot_key(server, slot)).filter_map(|key| {
            let found = self.state.clients.get(&key).filter(|found| is_other(found.owner.as_ref()))?;
            Some(Obstacle { kind: Kind::Client, is_leftover: found.owner.is_some(), key })
        });
        provider.or_else(|| slots.next())
    }

    /// Returns why a client cannot have its Secret, if another object has the name.
    pub fn secret_taken(&self, client: &ClientView) -> Option<String> {
        let found = self.state.server_secrets.get(&client.meta.key)?;
        (found.owner.as_ref() != Some(&client.meta.uid)).then(|| taken("Secret", &client.meta.key.name))
    }
}

/// Returns the message about an object that is in the way.
pub fn taken(kind: &str, name: &str) -> String {
    format!("{kind} {name} already exists and belongs to something else; delete or rename it")
}
