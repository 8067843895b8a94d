//! Clients that are deleted or revoked.

use vpn_types::{OpenVPNClientPhase, Reason};

use super::{clients::not_issuing, context::ServersContext};
use crate::{
    controllers::ready::ReadyCondition,
    model::{Kind, ObjectKey, Step, remove_finalizer},
    state::ClientView,
};

impl ServersContext<'_> {
    /// Waits until the certificates are revoked. The reconciliation of the server revokes those of all clients at once.
    pub fn doomed(&self, client: &ClientView, server: &ObjectKey) -> Step {
        let (is_published, is_listed) = (self.is_published(client, server), self.is_listed(client, server));
        if let Some(server) =
            self.state.servers.get(server).filter(|_| !client.meta.deleting && client.issued.is_empty())
            && server.keystore_key().is_some()
        {
            return self.report_client(client, &not_issuing(server), None);
        }
        // Without a server and its certificate authority, no certificate is worth anything.
        let is_moot = self.state.servers.get(server).is_none() && self.authority_of(server).is_none();
        if client.meta.deleting && (is_moot || (is_published && is_listed)) {
            return remove_finalizer(Kind::Client, &client.meta).map_or(Step::Idle, Step::maintain);
        }
        if client.meta.deleting || !is_published {
            let blocked = self.revocation_blocked(client, server, is_published);
            return blocked.map_or(Step::Idle, |condition| self.report_client(client, &condition, None));
        }
        if !is_listed && self.authority_of(server).is_some() {
            return Step::Idle;
        }
        let message =
            "All certificates of this client are revoked, and its sessions end as soon as the replicas have read that";
        let condition = ReadyCondition::not_ready(OpenVPNClientPhase::Revoked, Reason::Revoked, message);
        self.report_client(client, &condition, None)
    }

    /// Returns what the revocation of a client waits for, if that is the certificate authority.
    fn revocation_blocked(
        &self,
        client: &ClientView,
        server: &ObjectKey,
        is_published: bool,
    ) -> Option<ReadyCondition<OpenVPNClientPhase>> {
        let server = self.state.servers.get(server).filter(|server| !server.meta.deleting)?;
        let problem = self.authority_problem(server)?;
        let is_going_on = self.authority_of(&server.meta.key).is_some() || self.lone_files(&server.meta.key).is_some();
        if is_going_on && !is_published {
            return None;
        }
        let (name, why) = (&server.meta.key.name, &problem.message);
        let message = match is_published {
            true => format!(
                "The certificates are revoked, and the OpenVPNClient is deleted when there is a list again: {why}"
            ),
            false => format!(
                "The certificates cannot be revoked, because Secret {name}-revoked cannot be used either: {why}"
            ),
        };
        let phase = if client.meta.deleting { OpenVPNClientPhase::Terminating } else { OpenVPNClientPhase::Failed };
        Some(ReadyCondition::not_ready(phase, problem.reason, message))
    }
}
