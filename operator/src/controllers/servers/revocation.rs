//! Revocation: the serial numbers of deleted or revoked clients are added to the list beside the certificate authority,
//! and then to the files that the replicas read. Then the kubelets are notified.
//!
//! Invariant: the list only grows, except for certificates that have ended. It is in two Secrets, and the one with the
//! certificate authority is written first, so the other one can be made again. While there is no certificate authority,
//! the files go on from what they are, and clients that are deleted stay until the list has their certificates.

use std::collections::BTreeSet;

use k8s_openapi::ByteString;
use serde_json::json;
use time::OffsetDateTime;
use vpn_types::REVOKED_ANNOTATION;

use super::{
    context::ServersContext,
    names::{named, secret_labels},
};
use crate::{
    issuing::{Content, keys},
    model::{Issue, Kind, ObjectKey, Operation, Step},
    pki::Revoked,
    state::{AuthorityView, ClientView, SecretRole, ServerSecretView, ServerView, combined},
};

impl ServersContext<'_> {
    /// Returns the clients of a server.
    pub fn clients_of(&self, server: &ObjectKey) -> impl Iterator<Item = &ClientView> {
        self.state.clients_of(server)
    }

    /// Whether the replicas refuse all certificates of a client.
    pub fn is_published(&self, client: &ClientView, server: &ObjectKey) -> bool {
        let files = self.secret(&named(server, "revoked"), SecretRole::Revoked);
        let is_published = |serial| files.is_some_and(|files| files.serials.contains(&serial));
        client.issued.iter().all(|issued| issued.not_after <= self.now.wall || is_published(issued.serial))
    }

    /// Whether the list beside the certificate authority, which outlives the client, has all its certificates.
    pub fn is_listed(&self, client: &ClientView, server: &ObjectKey) -> bool {
        let revoked = self.authority_of(server).and_then(|(_, authority)| authority.revoked.as_ref());
        let is_listed = |serial| revoked.is_some_and(|revoked| revoked.contains(serial));
        client.issued.iter().all(|issued| issued.not_after <= self.now.wall || is_listed(issued.serial))
    }

    /// Returns the files of revoked certificates that can go on without a certificate authority. Others may be
    /// incomplete, and would admit clients again.
    pub fn lone_files(&self, server: &ObjectKey) -> Option<&ServerSecretView> {
        let files = self.secret(&named(server, "revoked"), SecretRole::Revoked);
        files.filter(|files| files.intact && files.revoked.is_some() && self.authority_of(server).is_none())
    }

    /// Writes the list of revoked certificates, and then the files.
    pub fn revoke(&self, server: &ObjectKey, owner: Option<&ServerView>) -> Step {
        let authority = self.authority_of(server);
        if !self.may_revoke || (authority.is_none() && self.lone_files(server).is_none()) {
            return Step::Idle;
        }
        let files = self.secret(&named(server, "revoked"), SecretRole::Revoked);
        let mut revoked = authority.and_then(|(_, authority)| authority.revoked.clone()).unwrap_or_default();
        // Either Secret may come from a backup.
        if let Some(copy) = files.and_then(|files| files.revoked.as_ref()) {
            revoked.merge(copy);
        }
        for client in self.clients_of(server).filter(|client| client.is_doomed()) {
            for issued in client.issued.iter().filter(|issued| issued.not_after > self.now.wall) {
                revoked.insert(issued.serial, client.common_name(), issued.not_after.timestamp());
            }
        }
        if let Ok(now) = OffsetDateTime::from_unix_timestamp(self.now.wall.timestamp()) {
            revoked.drop_ended(now);
        }
        if let Some((secret, authority)) = authority
            && authority.revoked.as_ref() != Some(&revoked)
        {
            return Step::send(write_list(secret, &revoked));
        }
        if owner.is_none() && files.is_none() && revoked.is_empty() {
            return Step::Idle;
        }
        self.publish(server, authority.map(|(_, authority)| authority), &revoked)
    }

    fn publish(&self, server: &ObjectKey, authority: Option<&AuthorityView>, revoked: &Revoked) -> Step {
        let key = named(server, "revoked");
        let found = self.state.server_secrets.get(&key).filter(|files| files.role == Some(SecretRole::Revoked));
        let serials: BTreeSet<_> = revoked.iter().map(|(serial, _)| serial).collect();
        let fingerprint = authority.map_or("", |authority| &authority.signer.fingerprint);
        let inputs = combined([fingerprint, &*revoked.to_string()]);
        let is_good = |files: &ServerSecretView| {
            // Without the certificate authority, the list for other programs cannot be made again.
            let is_of_inputs = authority.is_none() || files.inputs.as_deref() == Some(&*inputs);
            files.meta.deleting || (files.intact && *files.serials == serials && is_of_inputs)
        };
        if found.is_some_and(is_good) || authority.is_some_and(|it| it.signer.not_after <= self.now.wall) {
            return Step::Idle;
        }
        Step::send(Operation::Issue(Box::new(Issue {
            key,
            replaces: found.map(|files| (files.meta.uid.clone(), files.meta.version)),
            labels: secret_labels(&server.name, SecretRole::Revoked),
            inputs: inputs.to_string(),
            // Like the certificate authority, this Secret outlives the server.
            owner: None,
            content: Content::Revoked {
                authority: authority.map(|authority| authority.issuer(&authority.signer, self.now.wall)),
                revoked: revoked.clone(),
                number: u64::try_from(self.now.wall.timestamp()).unwrap_or_default(),
            },
        })))
    }

    /// Tells the kubelet of each replica that the files have changed. Otherwise it looks about once a minute.
    pub fn announce_revocations(&self, server: &ObjectKey) -> Step {
        let files = self.secret(&named(server, "revoked"), SecretRole::Revoked);
        let Some(files) = files.filter(|files| !files.serials.is_empty()) else { return Step::Idle };
        let told = files.serials.iter().map(ToString::to_string).collect::<Vec<_>>();
        let told = combined(told.iter().map(String::as_str));
        let mut pods = self.state.server_pods_of(server).filter(|pod| !pod.ended);
        let mut untold = pods.by_ref().filter(|pod| pod.revoked.as_ref() != Some(&told));
        let Some(pod) = untold.next().filter(|_| self.may_revoke) else { return Step::Idle };
        let patch = json!({"metadata": {
            "uid": pod.meta.uid.as_str(), "annotations": {REVOKED_ANNOTATION: &*told},
        }});
        Step::send(Operation::Patch(Kind::ServerPod, pod.meta.key.clone(), patch))
    }
}

/// The list is guarded by the version of the Secret, so that no entry is lost to another operator.
fn write_list(secret: &ServerSecretView, revoked: &Revoked) -> Operation {
    let patch = json!({
        "metadata": {"uid": secret.meta.uid.as_str(), "resourceVersion": secret.meta.version.to_string()},
        "data": {keys::REVOKED: ByteString(revoked.to_string().into_bytes())},
    });
    Operation::Patch(Kind::ServerSecret, secret.meta.key.clone(), patch)
}
