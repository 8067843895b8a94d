//! Reports the state of servers and clients: statuses and Events.

use std::time::Duration;

use vpn_types::{OpenVPNClientPhase, OpenVPNServerPhase};

use super::{context::ServersContext, desired::Desired, evaluate::ServerCondition, names::named};
use crate::{
    controllers::{ready::ReadyCondition, status},
    model::{EventRecord, Kind, Operation, Step, object_reference},
    state::{ClientView, SecretRole, ServerView},
};

/// The minimum interval between two status writes for one server that differ only in numbers.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

impl ServersContext<'_> {
    /// Reports the state of a server, if it has changed.
    pub fn report(&self, server: &ServerView, condition: &ServerCondition) -> Step {
        let has_turned = server.status.ready.map(|(ready, _)| ready) != Some(condition.ready)
            || server.status.phase != Some(condition.phase);
        if let Some(last) = self.memory.reported.get(&server.meta.uid)
            && *last + STATUS_INTERVAL > self.now.monotonic
            && !has_turned
            && self.authority_of(&server.meta.key).map(|(_, it)| it.generation) == server.authority_generation
        {
            return Step::WaitUntil(*last + STATUS_INTERVAL);
        }
        let patch = status::openvpn::server(server, condition, &self.facts(server), self.now.wall);
        let Some(patch) = patch else { return Step::Idle };
        let event = has_turned.then(|| server_event(server, condition));
        Step::status(Operation::PatchStatus(Kind::Server, server.meta.key.clone(), patch)).with_event(event)
    }

    fn facts(&self, server: &ServerView) -> status::openvpn::ServerFacts {
        let key = &server.meta.key;
        let desired = Desired::of(self.state, server, self.settings, self.now).ok();
        let has_keystore = server.keystore_key().is_some();
        // The CA may be left over from an earlier server.
        let authority = self.authority_of(key).map(|(_, authority)| authority).filter(|_| !has_keystore);
        let certificate = self.secret(&named(key, "server"), SecretRole::Server);
        let pods = || self.state.server_pods_of(key).filter(|pod| !pod.ended && !pod.meta.deleting);
        let clients = self.clients_of(key).filter(|client| client.status.phase == Some(OpenVPNClientPhase::Ready));
        status::openvpn::ServerFacts {
            endpoint: desired
                .as_ref()
                .and_then(|it| it.endpoint.as_ref())
                .map(|(host, port)| (host.to_string(), *port)),
            cluster_ip: desired.as_ref().and_then(|it| it.cluster_ip).map(|ip| ip.to_string()),
            replicas: pods().count(),
            ready: pods().filter(|pod| pod.ready).count(),
            connected: self.memory.connected.get(&server.meta.uid).copied(),
            selector: format!("app=openvpn,release={}", key.name),
            has_keystore,
            generation: authority.map(|it| it.generation).or(server.authority_generation),
            authority: authority.map(|it| (it.serial, it.signer.not_after)),
            certificate: certificate.and_then(|it| it.certificate.clone()).map(|it| (it.serial, it.not_after)),
            clients: clients.count(),
            valid: self.certificates_valid(server),
            revoked: authority.and_then(|it| it.revoked.as_ref()).map_or(0, |revoked| revoked.len()),
        }
    }
}

fn server_event(server: &ServerView, condition: &ServerCondition) -> EventRecord {
    EventRecord {
        regarding: object_reference(Kind::Server, &server.meta.key, &server.meta.uid),
        related: None,
        warning: condition.phase == OpenVPNServerPhase::Failed,
        reason: condition.reason,
        action: "Evaluate",
        message: condition.message.clone(),
    }
}

/// Returns the Event when a client changes its phase, unless it is only waiting.
pub fn client_event(client: &ClientView, condition: &ReadyCondition<OpenVPNClientPhase>) -> Option<EventRecord> {
    let is_news = client.status.phase != Some(condition.phase) && condition.phase != OpenVPNClientPhase::Pending;
    is_news.then(|| EventRecord {
        regarding: object_reference(Kind::Client, &client.meta.key, &client.meta.uid),
        related: None,
        warning: condition.phase == OpenVPNClientPhase::Failed,
        reason: condition.reason,
        action: "Issue",
        message: condition.message.clone(),
    })
}
