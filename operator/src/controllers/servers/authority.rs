//! The certificate authority of a server, and the certificate of the server itself.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use vpn_types::{DeletionPolicy, OpenVPNPkiSpec, OpenVPNServerSpec, Reason};

use super::{
    context::ServersContext,
    evaluate,
    names::{named, owned_by, renewal_time, secret_labels, time},
};
use crate::{
    issuing::{Certificate, Content},
    model::{Issue, Kind, ObjectKey, Operation, Step, delete},
    pki::Serial,
    state::{AuthorityView, SecretRole, ServerSecretView, ServerView, combined},
};

impl ServersContext<'_> {
    /// Returns a Secret of a server, if the operator created it for that.
    pub fn secret(&self, key: &ObjectKey, role: SecretRole) -> Option<&ServerSecretView> {
        self.state.server_secrets.get(key).filter(|secret| secret.role == Some(role) && !secret.meta.deleting)
    }

    /// Returns the certificate authority of a server, if it can be read.
    pub fn authority_of(&self, server: &ObjectKey) -> Option<(&ServerSecretView, &AuthorityView)> {
        let secret = self.secret(&named(server, "ca"), SecretRole::Authority)?;
        Some((secret, secret.authority.as_deref()?))
    }

    /// Creates the certificate authority, and records that it exists before anything is issued.
    pub fn authority(&self, server: &ServerView) -> Step {
        let key = named(&server.meta.key, "ca");
        let wanted = generation(&server.spec);
        let found = self.secret(&key, SecretRole::Authority);
        let Some((_, authority)) = self.authority_of(&server.meta.key) else {
            let is_lost = server.authority_generation.is_some_and(|recorded| recorded >= wanted);
            // Running replicas continue with their certificates.
            return if found.is_some() || is_lost { Step::Idle } else { self.create_authority(server, key, wanted) };
        };
        if server.authority_generation != Some(authority.generation) {
            return self.report(server, &evaluate::pending("The certificate authority has been created"));
        }
        Step::Idle
    }

    fn create_authority(&self, server: &ServerView, key: ObjectKey, generation: i32) -> Step {
        let name = &*server.meta.key.name;
        let own = server.spec.pki.as_ref().and_then(|pki| pki.ca_secret.clone());
        Step::maintain(Operation::Issue(Box::new(Issue {
            key,
            replaces: None,
            labels: secret_labels(name, SecretRole::Authority),
            inputs: generation.to_string(),
            owner: None,
            content: Content::Authority { common_name: format!("{name}-ca"), generation, own, predecessor: None },
        })))
    }

    /// Returns why there is no usable certificate authority, if there is none.
    pub fn authority_problem(&self, server: &ServerView) -> Option<evaluate::ServerCondition> {
        let key = named(&server.meta.key, "ca");
        let name = &key.name;
        if self.authority_of(&server.meta.key).is_some_and(|(_, authority)| authority.signer.not_after > self.now.wall)
        {
            return None;
        }
        Some(match self.secret(&key, SecretRole::Authority) {
            None => evaluate::failed(
                Reason::CertificateAuthorityMissing,
                format!(
                    "Secret {name} is gone. Restore it from a backup, or increase spec.pki.generation to have a new \
                     certificate authority; no client can connect with its present profile after that"
                ),
            ),
            Some(secret) => {
                let own =
                    server.spec.pki.as_ref().and_then(|pki| pki.ca_secret.as_deref()).filter(|name| !name.is_empty());
                let (why, advice) = match (&secret.authority, own) {
                    (None, _) => (
                        "it does not hold a certificate, its key and the key of tls-crypt".to_owned(),
                        "Restore it from a backup".to_owned(),
                    ),
                    (Some(ended), Some(own)) => (
                        ended_at(ended),
                        format!(
                            "Put the next one into Secret {own} of spec.pki.caSecret, and increase spec.pki.generation"
                        ),
                    ),
                    (Some(ended), None) => {
                        (ended_at(ended), "Increase spec.pki.generation to have a new one".to_owned())
                    }
                };
                evaluate::failed(
                    Reason::CertificateAuthorityInvalid,
                    format!("The certificate authority in Secret {name} cannot be used: {why}. {advice}"),
                )
            }
        })
    }

    /// Issues the certificate of the server, and renews it in time.
    pub fn server_certificate(&self, server: &ServerView) -> Step {
        let Some((_, authority)) = self.authority_of(&server.meta.key) else { return Step::Idle };
        let signer = authority.for_server(self.now.wall);
        let key = named(&server.meta.key, "server");
        let lifetime = server.spec.server_duration().unwrap_or(OpenVPNServerSpec::DEFAULT_DURATION);
        let found = self.state.server_secrets.get(&key).filter(|secret| secret.role == Some(SecretRole::Server));
        if found.is_some_and(|secret| secret.meta.deleting) {
            return Step::Idle;
        }
        let name = &*server.meta.key.name;
        let inputs = server_inputs(server, authority, self.now.wall);
        let current = found.and_then(|secret| secret.certificate.as_ref());
        let is_due = current.is_none_or(|current| renewal_time(current, lifetime) <= self.now.wall);
        let is_good = found.is_some_and(|secret| secret.intact && secret.inputs.as_ref() == Some(&inputs));
        // A certificate that ends with its authority cannot be renewed any more.
        let is_last = current.is_some_and(|current| current.not_after >= signer.not_after);
        if is_good && (!is_due || is_last) {
            return Step::Idle;
        }
        let not_after = end(self.now.wall, lifetime, signer.not_after);
        // Nothing is known about a certificate that was issued and lost, so the time makes the serial number unique.
        let now = self.now.wall.timestamp_micros().to_string();
        let serial = Serial::derive(&["server", &signer.fingerprint, server.meta.uid.as_str(), &now]);
        Step::maintain(Operation::Issue(Box::new(Issue {
            key,
            replaces: found.map(|secret| (secret.meta.uid.clone(), secret.meta.version)),
            labels: secret_labels(name, SecretRole::Server),
            inputs: inputs.to_string(),
            owner: Some(owned_by(server)),
            content: Content::Server(Certificate {
                authority: authority.issuer(signer, self.now.wall),
                common_name: name.to_owned(),
                serial,
                not_after: not_after.timestamp(),
            }),
        })))
    }

    /// Returns when the certificate of the server has to be renewed.
    pub fn renewal_time(&self, server: &ServerView) -> Option<DateTime<Utc>> {
        let secret = self.secret(&named(&server.meta.key, "server"), SecretRole::Server)?;
        let lifetime = server.spec.server_duration().unwrap_or(OpenVPNServerSpec::DEFAULT_DURATION);
        let due = renewal_time(secret.certificate.as_ref()?, lifetime);
        (due > self.now.wall).then_some(due)
    }

    /// Deletes the certificate authority and the list of revoked certificates, if the user wants that.
    pub fn delete_authority(&self, server: &ServerView) -> Step {
        let policy = server.spec.pki.as_ref().and_then(|pki| pki.deletion_policy).unwrap_or_default();
        if policy == DeletionPolicy::Retain || self.own_provider(server).is_some() {
            return Step::Idle;
        }
        let secrets = [("ca", SecretRole::Authority), ("revoked", SecretRole::Revoked)];
        let mut found =
            secrets.into_iter().filter_map(|(suffix, role)| self.secret(&named(&server.meta.key, suffix), role));
        found.next().map_or(Step::Idle, |secret| Step::maintain(delete(Kind::ServerSecret, &secret.meta, None)))
    }
}

fn ended_at(authority: &AuthorityView) -> String {
    format!("it ended at {}", time(authority.signer.not_after))
}

/// Returns the hash of what the certificate of a server is issued for.
pub fn server_inputs(server: &ServerView, authority: &AuthorityView, now: DateTime<Utc>) -> Arc<str> {
    let parts = [&*authority.for_server(now).fingerprint, &*authority.tls_crypt, &*server.meta.key.name];
    combined(parts.into_iter().chain(authority.bundle(now).as_deref()))
}

/// Returns the generation of the certificate authority that a server is to have.
pub fn generation(spec: &OpenVPNServerSpec) -> i32 {
    spec.pki.as_ref().and_then(|OpenVPNPkiSpec { generation, .. }| *generation).unwrap_or(1)
}

/// Returns when a certificate ends that is issued now. It does not outlive its authority.
pub fn end(now: DateTime<Utc>, lifetime: std::time::Duration, authority_end: DateTime<Utc>) -> DateTime<Utc> {
    let lifetime = TimeDelta::from_std(lifetime).unwrap_or(TimeDelta::MAX);
    now.checked_add_signed(lifetime).unwrap_or(authority_end).min(authority_end)
}
