//! Whether a server accepts clients, and the reason if not.

use chrono::{DateTime, TimeDelta, Utc};
use ipnet::Ipv4Net;
use vpn_types::{OpenVPNServerPhase, OpenVPNServiceType, Reason};

use super::{context::ServersContext, desired::Desired, names::time};
use crate::{
    controllers::ready::ReadyCondition,
    model::Backoff,
    state::{ServerPodView, ServerView},
};

/// How long before a certificate ends the status warns that the operator cannot renew it.
const WARN_BEFORE: TimeDelta = TimeDelta::days(30);

/// The `Ready` condition of a server.
pub type ServerCondition = ReadyCondition<OpenVPNServerPhase>;

/// Returns that a user has to correct something.
pub fn failed(reason: Reason, message: String) -> ServerCondition {
    ReadyCondition::not_ready(OpenVPNServerPhase::Failed, reason, message)
}

/// Returns that a field of the spec is wrong.
pub fn invalid(message: String) -> ServerCondition {
    failed(Reason::InvalidSpec, message)
}

/// Returns that objects are being created.
pub fn pending(message: &str) -> ServerCondition {
    ReadyCondition::not_ready(OpenVPNServerPhase::Pending, Reason::Pending, message)
}

/// Returns that the last write failed.
pub fn in_backoff(backoff: &Backoff) -> ServerCondition {
    failed(backoff.reason, backoff.message.clone())
}

/// Returns that the server is being deleted.
pub fn terminating() -> ServerCondition {
    let message = "The OpenVPNServer is being deleted; the slots of its MaskProvider are released first";
    ReadyCondition::not_ready(OpenVPNServerPhase::Terminating, Reason::Deleting, message)
}

impl ServersContext<'_> {
    /// Evaluates a server whose objects are up to date.
    pub fn evaluate(&self, server: &ServerView, desired: &Desired) -> ServerCondition {
        let pods = || self.state.server_pods_of(&server.meta.key).filter(|pod| !pod.ended);
        if let Some(message) = self.overlap(server, desired) {
            return failed(Reason::NetworkOverlap, message);
        }
        let ready = pods().filter(|pod| pod.ready).count();
        if ready == 0 {
            let pods: Vec<_> = pods().collect();
            return self.without_pods(server, &pods);
        }
        if desired.endpoint.is_none() {
            let type_ = server.spec.service.as_ref().and_then(|service| service.type_).unwrap_or_default();
            let message = match type_ {
                OpenVPNServiceType::LoadBalancer => format!(
                    "The load balancer has no address yet; `kubectl describe service {}` may say why. Set \
                     spec.endpoint.host if it never gets one",
                    server.meta.key.name
                ),
                _ => "The Service has no address yet".to_owned(),
            };
            return ReadyCondition::not_ready(OpenVPNServerPhase::Pending, Reason::EndpointPending, message);
        }
        let replicas = if ready == 1 { "1 replica accepts".to_owned() } else { format!("{ready} replicas accept") };
        let deployment = self.state.deployments.get(&server.meta.key);
        let stuck = deployment.and_then(|deployment| deployment.stuck.as_deref()).map_or_else(String::new, |why| {
            format!("; the rollout is stuck, so others may have the previous certificate or configuration: {why}")
        });
        ReadyCondition::ready(OpenVPNServerPhase::Ready, Reason::Serving, format!("{replicas} clients{stuck}"))
    }

    /// Returns the certificates that the operator cannot renew, with their ends, the first to end first.
    fn unrenewable(&self, server: &ServerView) -> Vec<(DateTime<Utc>, String)> {
        let key = &server.meta.key;
        let authority = self.authority_of(key).filter(|_| server.has_own_authority()).map(|(secret, authority)| {
            (authority.signer.not_after, format!("The certificate authority in Secret {}", secret.meta.key.name))
        });
        let clients = self.clients_of(key).filter(|client| client.spec.csr.is_some() && !client.is_doomed());
        let clients = clients.filter_map(|client| {
            let name = &client.meta.key.name;
            Some((
                client.issued.last()?.not_after,
                format!("The certificate of OpenVPNClient {name}, which has spec.csr,"),
            ))
        });
        let mut all: Vec<_> = match server.keystore_key() {
            Some(_) => self.keystore_ends(server),
            None => authority.into_iter().chain(clients).collect(),
        };
        all.sort();
        all
    }

    /// Returns when the status has to warn about the next certificate that the operator cannot renew.
    pub fn warning_time(&self, server: &ServerView) -> Option<DateTime<Utc>> {
        let all = self.unrenewable(server).into_iter().map(|(not_after, _)| not_after - WARN_BEFORE);
        all.filter(|warning| *warning > self.now.wall).min()
    }

    /// Evaluates the condition `CertificatesValid`: its status, reason and message.
    pub fn certificates_valid(&self, server: &ServerView) -> (bool, Reason, String) {
        let mut ending = self.unrenewable(server);
        ending.retain(|(not_after, _)| *not_after - WARN_BEFORE <= self.now.wall);
        let Some((not_after, what)) = ending.first() else {
            let change = self.change_of_authority(server).unwrap_or_default();
            let message = format!("All certificates are valid, and the operator renews them in time{change}");
            return (true, Reason::CertificatesCurrent, message);
        };
        let verb = if *not_after <= self.now.wall { "ended" } else { "ends" };
        let more = match ending.len() - 1 {
            0 => String::new(),
            more => format!(" ({more} more)"),
        };
        (false, Reason::CertificateExpiring, format!("{what} {verb} at {}{more}", time(*not_after)))
    }

    /// Describes the progress of the change from one certificate authority to the next.
    fn change_of_authority(&self, server: &ServerView) -> Option<String> {
        let (_, authority) = self.authority_of(&server.meta.key).filter(|_| server.keystore_key().is_none())?;
        if authority.outgoing(self.now.wall).is_some() {
            return Some(
                "; the operator uses the new certificate authority when all replicas have restarted".to_owned(),
            );
        }
        let retires =
            authority.previous.iter().filter(|one| one.is_trusted(self.now.wall)).filter_map(|one| one.retires);
        Some(format!("; profiles of the previous certificate authority work until {}", time(retires.max()?)))
    }

    fn without_pods(&self, server: &ServerView, pods: &[&ServerPodView]) -> ServerCondition {
        if let Some((reason, why)) = pods.iter().find_map(|pod| pod.problem.as_ref()) {
            let advice = match reason {
                Reason::ForwardingDisabled => {
                    ". Enable net.ipv4.ip_forward on the nodes, or set spec.ipForward to Sysctl or InitContainer"
                }
                _ => "",
            };
            return failed(*reason, format!("{why}{advice}"));
        }
        let failure = self.state.deployments.get(&server.meta.key).and_then(|deployment| deployment.failure.as_deref());
        if let Some(failure) = failure.filter(|_| pods.is_empty()) {
            let is_security = failure.contains("violates PodSecurity");
            let reason = if is_security { Reason::PodSecurityForbidden } else { Reason::PodsUnavailable };
            return failed(reason, format!("No Pod can be created: {failure}"));
        }
        let message = match (pods.len(), server.spec.replicas) {
            (0, Some(0)) => "spec.replicas is 0".to_owned(),
            (0, _) => "There is no replica yet".to_owned(),
            (count, _) => format!("{count} replicas are starting"),
        };
        ReadyCondition::not_ready(OpenVPNServerPhase::Pending, Reason::PodsUnavailable, message)
    }

    /// Returns the first address of the cluster that is in the network of the clients too: such clients could not reach
    /// it.
    fn overlap(&self, server: &ServerView, desired: &Desired) -> Option<String> {
        let clients: Ipv4Net = desired.network.net();
        let service = desired.cluster_ip.map(|ip| ("Service", server.meta.key.name.to_string(), ip));
        let pods = self.state.server_pods_of(&server.meta.key).flat_map(|pod| {
            let addresses = [("Pod", &pod.address), ("the node of Pod", &pod.node_address)];
            addresses.into_iter().filter_map(|(kind, address)| {
                Some((kind, pod.meta.key.name.to_string(), address.as_deref()?.parse().ok()?))
            })
        });
        let (kind, name, ip) = service.into_iter().chain(pods).find(|(_, _, ip)| match ip {
            std::net::IpAddr::V4(ip) => clients.contains(ip),
            std::net::IpAddr::V6(_) => false,
        })?;
        Some(format!(
            "spec.network.clients {clients} contains {ip}, the address of {kind} {name}; create an OpenVPNServer with \
             another network"
        ))
    }
}
