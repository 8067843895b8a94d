//! The next certificate authority of a server.
//!
//! Invariant: nobody with a valid certificate is cut off. The next authority is created while the present one, which goes
//! on issuing, is valid. The certificate of the server is issued again, with both as trusted, and the replicas restart.
//! When all of them trust both, the next authority takes over the certificates of clients, and the end of the last
//! certificate from the one before is recorded. All of this is in one Secret, so each step is a single request.

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use k8s_openapi::ByteString;
use serde_json::json;

use super::{
    authority::{generation, server_inputs},
    context::ServersContext,
    desired::Desired,
    names::{named, secret_labels},
};
use crate::{
    issuing::{Content, Predecessor, Previous, keys},
    model::{Issue, Kind, Operation, Step},
    state::{AuthorityView, IssuedView, PreviousAuthority, SecretRole, ServerSecretView, ServerView},
};

/// How long before the end of an authority that the operator created the next one follows.
const BEFORE_END: TimeDelta = TimeDelta::days(730);

impl ServersContext<'_> {
    /// Creates the next certificate authority: if the user asks for it, or in time before the present one ends. Only the
    /// user has the next one after one of the user.
    pub fn next_authority(&self, server: &ServerView) -> Step {
        let Some((secret, authority)) = self.authority_of(&server.meta.key) else { return Step::Idle };
        let is_own = server.has_own_authority();
        let wanted = generation(&server.spec).max(authority.generation);
        let is_asked_for = wanted > authority.generation;
        let is_due = !is_own && before_end(authority.signer.not_after) <= self.now.wall;
        // One rollover at a time: the replicas have to trust the last authority first.
        if !(is_asked_for || is_due) || authority.outgoing(self.now.wall).is_some() {
            return Step::Idle;
        }
        let name = &*server.meta.key.name;
        let trusted = authority.previous.iter().filter(|previous| previous.is_trusted(self.now.wall)).cloned();
        let last = PreviousAuthority { signer: authority.signer.clone(), retires: None };
        let predecessor = Predecessor {
            previous: trusted.chain([last]).map(entry).collect(),
            tls_crypt: authority.tls_crypt.clone(),
            revoked: authority.revoked.clone().unwrap_or_default(),
        };
        Step::maintain(Operation::Issue(Box::new(Issue {
            key: secret.meta.key.clone(),
            replaces: Some((secret.meta.uid.clone(), secret.meta.version)),
            labels: secret_labels(name, SecretRole::Authority),
            inputs: wanted.to_string(),
            owner: None,
            content: Content::Authority {
                // The names differ, so that programs do not confuse the two authorities.
                common_name: format!("{name}-ca-{}", self.now.wall.year()),
                generation: wanted,
                own: server.spec.pki.as_ref().and_then(|pki| pki.ca_secret.clone()),
                predecessor: Some(Box::new(predecessor)),
            },
        })))
    }

    /// Lets the newest authority issue the certificates of clients when all replicas trust it, and forgets authorities
    /// whose certificates have ended.
    pub fn hand_over(&self, server: &ServerView, desired: &Desired) -> Step {
        let Some((secret, authority)) = self.authority_of(&server.meta.key) else { return Step::Idle };
        let now = self.now.wall;
        let mut previous: Vec<_> = authority.previous.iter().filter(|one| one.is_trusted(now)).cloned().collect();
        if authority.outgoing(now).is_some()
            && self.replicas_trust(server, authority, desired)
            && let Some(last) = previous.last_mut()
        {
            let issued = self.clients_of(&server.meta.key).flat_map(|client| &*client.issued);
            let end = issued.map(|issued| issued.not_after).max().unwrap_or(now);
            // The certificates that the user has issued are unknown.
            let end = if last.signer.is_own { last.signer.not_after } else { end };
            last.retires = Some(end.min(last.signer.not_after));
        }
        if *previous == *authority.previous { Step::Idle } else { write_previous(secret, previous) }
    }

    /// Whether the certificate of the server comes with all trusted authorities, and each replica has started since.
    fn replicas_trust(&self, server: &ServerView, authority: &AuthorityView, desired: &Desired) -> bool {
        let own = self.secret(&named(&server.meta.key, "server"), SecretRole::Server);
        let wanted = server_inputs(server, authority, self.now.wall);
        let restart = self.restart(server, desired);
        let mut replicas = self.state.server_pods_of(&server.meta.key).filter(|pod| !pod.ended && !pod.meta.deleting);
        own.is_some_and(|own| own.intact && own.inputs.as_ref() == Some(&wanted))
            && restart.is_some_and(|restart| replicas.all(|pod| pod.restart.as_ref() == Some(&restart)))
    }

    /// Returns when an authority has to follow another one, and when one is no longer trusted.
    pub fn rollover_times(&self, server: &ServerView) -> Vec<DateTime<Utc>> {
        let Some((_, authority)) = self.authority_of(&server.meta.key) else { return Vec::new() };
        let next = (!server.has_own_authority()).then_some(before_end(authority.signer.not_after));
        let previous = authority.previous.iter().flat_map(|one| [one.hands_over(), one.trusted_until()]);
        next.into_iter().chain(previous).filter(|time| *time > self.now.wall).collect()
    }
}

/// Returns when the next authority follows the one with this certificate.
pub fn next_authority_time(certificate: &IssuedView) -> DateTime<Utc> {
    before_end(certificate.not_after)
}

fn before_end(end: DateTime<Utc>) -> DateTime<Utc> {
    end.checked_sub_signed(BEFORE_END).unwrap_or(DateTime::<Utc>::MIN_UTC)
}

fn entry(PreviousAuthority { signer, retires }: PreviousAuthority) -> Previous {
    Previous {
        certificate: signer.certificate.to_string(),
        key: signer.key.to_string(),
        is_own: signer.is_own,
        retires: retires.map(|time| time.timestamp()),
    }
}

/// The list is guarded by the version of the Secret, so that it stays that of the authority in it.
fn write_previous(secret: &ServerSecretView, previous: Vec<PreviousAuthority>) -> Step {
    let entries: Vec<_> = previous.into_iter().map(entry).collect();
    let text = (!entries.is_empty()).then(|| ByteString(json!(entries).to_string().into_bytes()));
    let patch = json!({
        "metadata": {"uid": secret.meta.uid.as_str(), "resourceVersion": secret.meta.version.to_string()},
        "data": {keys::PREVIOUS: text},
    });
    Step::maintain(Operation::Patch(Kind::ServerSecret, secret.meta.key.clone(), patch))
}
