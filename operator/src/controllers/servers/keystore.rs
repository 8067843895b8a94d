//! Servers whose certificates the user issues: their files are copied from a Secret of the user.
//!
//! Invariant: running replicas keep their files while the Secret of the user is missing or cannot be used.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{
    context::ServersContext,
    keystore_secret::keystore,
    names::{named, owned_by, secret_labels},
};
use crate::{
    issuing::{Content, Keystore},
    model::{Issue, Operation, Step},
    state::{CredentialsState, SecretRole, ServerSecretView, ServerView, combined},
};

impl ServersContext<'_> {
    /// Returns the usable keystore of a server.
    pub fn keystore(&self, server: &ServerView) -> Option<Keystore> {
        keystore(self.state, server, self.now)?.ok()
    }

    /// Copies the files of the user for the replicas.
    pub fn copy_keystore(&self, server: &ServerView) -> Step {
        let Some(source) = server.keystore_key().filter(|_| self.keystore(server).is_some()) else { return Step::Idle };
        let CredentialsState::Present(secret) = self.state.credentials_secret(&source) else { return Step::Idle };
        let key = named(&server.meta.key, "server");
        let found = self.state.server_secrets.get(&key).filter(|secret| secret.role == Some(SecretRole::Server));
        let inputs = combined([&*source.name, &*secret.hash]);
        let is_good =
            |found: &ServerSecretView| found.meta.deleting || (found.intact && found.inputs.as_ref() == Some(&inputs));
        if found.is_some_and(is_good) {
            return Step::Idle;
        }
        Step::maintain(Operation::Issue(Box::new(Issue {
            key,
            replaces: found.map(|secret| (secret.meta.uid.clone(), secret.meta.version)),
            labels: secret_labels(&server.meta.key.name, SecretRole::Server),
            inputs: inputs.to_string(),
            owner: Some(owned_by(server)),
            content: Content::Keystore { source: source.name.to_string() },
        })))
    }

    /// Returns the parts of the keystore that end, with their ends.
    pub fn keystore_ends(&self, server: &ServerView) -> Vec<(DateTime<Utc>, String)> {
        let (Some(keystore), Some(source)) = (self.keystore(server), server.keystore_key()) else { return Vec::new() };
        let time = |end: i64| DateTime::from_timestamp(end, 0).unwrap_or_default();
        let ends = keystore.ends.into_iter();
        ends.map(|(key, end)| (time(end), format!("{key} in Secret {}", source.name))).collect()
    }

    /// Waits until a part of the keystore ends, or users have to be told that it will.
    pub fn wait_for_keystore(&self, server: &ServerView) -> Step {
        let ends = self.keystore_ends(server).into_iter().map(|(end, _)| end);
        let due = ends.chain(self.warning_time(server)).filter(|due| *due > self.now.wall).min();
        let soon = Duration::from_secs(1);
        due.map_or(Step::Idle, |due| {
            let delay = (due - self.now.wall).to_std().unwrap_or(Duration::ZERO);
            Step::WaitUntil(self.now.monotonic + delay + soon)
        })
    }
}
