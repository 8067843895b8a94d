//! Clients of servers: their certificates and profiles.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use serde_json::{Value, json};
use vpn_types::{OpenVPNClient, OpenVPNClientPhase, OpenVPNServerSpec, Reason};

use super::{
    authority::end,
    context::ServersContext,
    desired::{Desired, routes},
    names::{renewal_time, secret_labels, time},
    report::client_event,
};
use crate::{
    controllers::{ready::ReadyCondition, status},
    issuing::{Certificate, Content, ProfileSettings},
    model::{Issue, Kind, ObjectKey, Operation, Step, add_finalizer},
    openvpn::{ClientConfig, Remote, check_common_name},
    pki::Serial,
    state::{AuthorityView, ClientView, IssuedView, SecretRole, ServerSecretView, ServerView, Signer, combined},
};

/// The profile in the Secret of a slot.
pub const SLOT_FILE: &str = "client.ovpn";

/// What the certificate of a client depends on.
struct Issuing<'a> {
    client: &'a ClientView,
    server: &'a ServerView,
    authority: &'a AuthorityView,
    /// Who issues it.
    signer: &'a Signer,
    lifetime: std::time::Duration,
    /// The key of the profile in the Secret.
    file: String,
    profile: ProfileSettings,
    /// The hash of what the certificate was issued for, and of the profile.
    inputs: String,
}

impl ServersContext<'_> {
    /// Returns the next step for the client of that name.
    pub fn client(&self, key: &ObjectKey) -> Step {
        let Some(client) = self.state.clients.get(key) else { return Step::Idle };
        let server_key = ObjectKey::new(&*key.namespace, &client.spec.server);
        if client.is_doomed() {
            return self.doomed(client, &server_key);
        }
        if client.meta.finalizer.is_none() {
            return Step::maintain(add_finalizer(Kind::Client, &client.meta));
        }
        if let Some(backoff) = &self.backoff {
            let condition = failed(backoff.reason, backoff.message.clone());
            return self.report_client(client, &condition, None).and_wait_until(backoff.until);
        }
        if let Some(why) = self.secret_taken(client) {
            return self.report_client(client, &failed(Reason::NameTaken, why), None);
        }
        match self.issuing(client, &server_key) {
            Ok(issuing) => self.issue(&issuing),
            Err(condition) => match self.held_while_pending(client, &condition) {
                Some((secret, held)) => {
                    self.report_issued(client, secret, held).or_else(|| self.wait_until(held.not_after))
                }
                None => self.report_client(client, &condition, None),
            },
        }
    }

    /// Returns the certificate of a client that only waits for its server. What its Secret holds is still valid.
    fn held_while_pending(
        &self,
        client: &ClientView,
        condition: &ReadyCondition<OpenVPNClientPhase>,
    ) -> Option<(&ServerSecretView, &IssuedView)> {
        // A change of the spec may need another certificate or profile.
        let is_waiting = condition.phase == OpenVPNClientPhase::Pending
            && client.status.phase == Some(OpenVPNClientPhase::Ready)
            && client.status.observed_generation == Some(client.meta.generation);
        let secret = self.state.server_secrets.get(&client.meta.key).filter(|secret| is_waiting && secret.intact)?;
        let held = secret.certificate.as_ref().filter(|held| client.issued.contains(held))?;
        (held.not_after > self.now.wall).then_some((secret, held))
    }

    /// Collects what is needed to issue a certificate, or returns why it cannot be issued.
    fn issuing<'a>(
        &'a self,
        client: &'a ClientView,
        server_key: &ObjectKey,
    ) -> Result<Issuing<'a>, ReadyCondition<OpenVPNClientPhase>> {
        let name = &client.spec.server;
        let Some(server) = self.state.servers.get(server_key).filter(|server| !server.meta.deleting) else {
            return Err(failed(Reason::ServerNotFound, format!("OpenVPNServer {name} does not exist")));
        };
        if server.keystore_key().is_some() {
            return Err(not_issuing(server));
        }
        let invalid = |why: String| failed(Reason::InvalidSpec, why);
        check_common_name(client.common_name()).map_err(|why| invalid(format!("spec.commonName: {why}")))?;
        let duration = client.spec.duration().map_err(|why| invalid(format!("spec.duration: {why}")))?;
        let lifetime = duration.or(server.spec.client_duration().ok()).unwrap_or(OpenVPNServerSpec::DEFAULT_DURATION);
        let desired = Desired::of(self.state, server, self.settings, self.now)
            .map_err(|why| pending(format!("OpenVPNServer {name} is not valid: {why}")))?;
        let config = ClientConfig {
            address: client.spec.address.as_deref().and_then(|address| address.parse().ok()),
            routes: routes(client.spec.routes.as_deref()).map_err(|why| invalid(format!("spec.routes: {why}")))?,
            behind: Vec::new(),
        };
        config
            .check(desired.network, desired.max_clients, desired.reachable.as_deref())
            .map_err(|why| invalid(format!("spec: {why}")))?;
        if let Some(other) = self.same_name(client) {
            let common_name = client.common_name();
            let why = format!("OpenVPNClient {other} has the common name {common_name} too; choose another one");
            return Err(failed(Reason::NameTaken, why));
        }
        if let Some(other) = self.same_address(client) {
            let address = client.spec.address.as_deref().unwrap_or_default();
            return Err(invalid(format!("spec.address: OpenVPNClient {other} has {address} too; choose another one")));
        }
        let Some((_, authority)) = self.authority_of(server_key) else {
            return Err(failed(
                Reason::CertificateAuthorityMissing,
                format!("OpenVPNServer {name} has no certificate authority"),
            ));
        };
        // The first CA has to be recorded before something depends on it.
        let is_recorded = server.authority_generation == Some(authority.generation) || !authority.previous.is_empty();
        let signer = authority.for_clients(self.now.wall);
        if !is_recorded || signer.not_after <= self.now.wall {
            return Err(pending(format!("OpenVPNServer {name} cannot issue certificates yet")));
        }
        let (file, remote) = match client.owner {
            Some(_) => (SLOT_FILE.to_owned(), desired.cluster_ip.map(|ip| (Remote::Address(ip), desired.port))),
            None => (format!("{}.ovpn", client.meta.key.name), desired.endpoint.clone()),
        };
        let Some((remote, port)) = remote else {
            return Err(pending(format!("OpenVPNServer {name} has no address yet")));
        };
        let profile = ProfileSettings::of(name, &server.spec, remote, port);
        let inputs = inputs(client, authority, &profile, self.now.wall);
        Ok(Issuing { client, server, authority, signer, lifetime, file, profile, inputs })
    }

    /// Returns an older client of the server with the same common name. A server cannot distinguish the two.
    fn same_name(&self, client: &ClientView) -> Option<&ObjectKey> {
        self.state.clients_like(client).find(|other| precedes(other, client)).map(|other| &other.meta.key)
    }

    /// Returns an older client of the server with the same address. A server would send packets to the last one that
    /// connected.
    pub fn same_address(&self, client: &ClientView) -> Option<&ObjectKey> {
        let mut others = self.state.clients_at_address_of(client);
        others.find(|other| precedes(other, client)).map(|other| &other.meta.key)
    }

    fn issue(&self, issuing: &Issuing<'_>) -> Step {
        let Issuing { client, signer, lifetime, .. } = issuing;
        let present = self.state.server_secrets.get(&client.meta.key);
        if present.is_some_and(|secret| secret.meta.deleting) {
            return Step::Idle;
        }
        let held = present.and_then(|secret| secret.certificate.as_ref());
        let is_known = |held: &&IssuedView| client.issued.contains(held);
        let certificate_inputs = certificate_inputs(client, signer);
        let is_of_inputs = present.is_some_and(|secret| {
            secret.intact && secret.inputs.as_deref().is_some_and(|inputs| inputs.starts_with(&*certificate_inputs))
        });
        let is_due = |held: &IssuedView| {
            let renewable = client.spec.csr.is_none() && held.not_after < signer.not_after;
            held.not_after <= self.now.wall || (renewable && renewal_time(held, *lifetime) <= self.now.wall)
        };
        if let Some(held) = held.filter(is_known).filter(|held| is_of_inputs && !is_due(held)) {
            let secret = present.filter(|secret| secret.inputs.as_deref() == Some(&*issuing.inputs));
            return match secret {
                Some(secret) => {
                    self.report_issued(client, secret, held).or_else(|| self.wait_for_renewal(issuing, held))
                }
                None => self.write(issuing, present, None),
            };
        }
        // Another process recorded this serial number, so a certificate with it may exist.
        let recorded = self.memory.recorded.get(&client.meta.uid);
        let fresh = client.issued.last().filter(|last| recorded == Some(&last.serial));
        match fresh.filter(|fresh| !is_due(fresh)) {
            Some(fresh) => self.write(issuing, present, Some(fresh)),
            None => self.record(issuing),
        }
    }

    fn wait_for_renewal(&self, issuing: &Issuing<'_>, held: &IssuedView) -> Step {
        let due = match issuing.client.spec.csr {
            Some(_) => held.not_after,
            None => renewal_time(held, issuing.lifetime).max(self.now.wall),
        };
        if held.not_after >= issuing.signer.not_after { Step::Idle } else { self.wait_until(due) }
    }

    /// Records a new serial number, before a certificate with it exists.
    fn record(&self, issuing: &Issuing<'_>) -> Step {
        let Issuing { client, signer, lifetime, .. } = issuing;
        let issues = client.issues + 1;
        let serial = Serial::derive(&["client", &signer.fingerprint, client.meta.uid.as_str(), &issues.to_string()]);
        let mut issued: Vec<_> =
            client.issued.iter().filter(|issued| issued.not_after > self.now.wall).map(issued_entry).collect();
        let not_after = end(self.now.wall, *lifetime, signer.not_after);
        issued.push(json!({"serial": serial.to_string(), "notAfter": time(not_after)}));
        let patch = json!({
            "metadata": {"resourceVersion": client.meta.version.to_string()},
            "status": {"issued": issued, "issues": issues},
        });
        Step::maintain(Operation::PatchStatus(Kind::Client, client.meta.key.clone(), patch))
    }

    /// Writes the Secret: with a new certificate, or only with a new profile.
    fn write(
        &self,
        issuing: &Issuing<'_>,
        present: Option<&ServerSecretView>,
        certificate: Option<&IssuedView>,
    ) -> Step {
        let Issuing { client, server, authority, signer, file, profile, inputs, .. } = issuing;
        let authority = authority.issuer(signer, self.now.wall);
        let (file, profile) = (file.clone(), Box::new(profile.clone()));
        let content = match certificate {
            None => Content::Profile { authority, file, profile },
            Some(issued) => Content::Client {
                certificate: Certificate {
                    authority,
                    common_name: client.common_name().to_owned(),
                    serial: issued.serial,
                    not_after: issued.not_after.timestamp(),
                },
                csr: client.spec.csr.clone(),
                file,
                profile,
            },
        };
        Step::maintain(Operation::Issue(Box::new(Issue {
            key: client.meta.key.clone(),
            replaces: present.map(|secret| (secret.meta.uid.clone(), secret.meta.version)),
            labels: secret_labels(&server.meta.key.name, SecretRole::Client),
            inputs: inputs.clone(),
            owner: Some(owned_by_client(client)),
            content,
        })))
    }

    fn report_issued(&self, client: &ClientView, secret: &ServerSecretView, held: &IssuedView) -> Step {
        let name = &secret.meta.key.name;
        let message = format!("The certificate is in Secret {name}, and ends at {}", time(held.not_after));
        let condition = ReadyCondition::ready(OpenVPNClientPhase::Ready, Reason::Issued, message);
        self.report_client(client, &condition, Some((secret, held)))
    }

    /// Reports the state of a client, if it has changed.
    pub fn report_client(
        &self,
        client: &ClientView,
        condition: &ReadyCondition<OpenVPNClientPhase>,
        issued: Option<(&ServerSecretView, &IssuedView)>,
    ) -> Step {
        let patch = status::openvpn::client(client, condition, issued, self.now.wall);
        patch.map_or(Step::Idle, |patch| {
            let operation = Operation::PatchStatus(Kind::Client, client.meta.key.clone(), patch);
            Step::status(operation).with_event(client_event(client, condition))
        })
    }
}

/// Whether another client has what both of them need: the older one has.
fn precedes(other: &ClientView, client: &ClientView) -> bool {
    let age = |client: &ClientView| (client.meta.created, client.meta.key.clone());
    !other.is_doomed() && age(other) < age(client)
}

/// Returns the hash of what a certificate is issued for.
fn certificate_inputs(client: &ClientView, signer: &Signer) -> String {
    let csr = client.spec.csr.as_deref().unwrap_or_default();
    combined([&*signer.fingerprint, client.common_name(), csr]).to_string()
}

/// Returns the hash of what a certificate is issued for, followed by the one of the profile.
fn inputs(client: &ClientView, authority: &AuthorityView, profile: &ProfileSettings, now: DateTime<Utc>) -> String {
    let profile = format!("{profile:?}");
    let parts = [&*profile, &*authority.tls_crypt, &*client.meta.key.name];
    let profile = combined(parts.into_iter().chain(authority.bundle(now).as_deref()));
    format!("{}-{profile}", certificate_inputs(client, authority.for_clients(now)))
}

fn owned_by_client(client: &ClientView) -> OwnerReference {
    OwnerReference {
        api_version: OpenVPNClient::api_version(&()).into_owned(),
        kind: OpenVPNClient::kind(&()).into_owned(),
        name: client.meta.key.name.to_string(),
        uid: client.meta.uid.to_string(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn issued_entry(issued: &IssuedView) -> Value {
    json!({"serial": issued.serial.to_string(), "notAfter": time(issued.not_after)})
}

fn failed(reason: Reason, message: String) -> ReadyCondition<OpenVPNClientPhase> {
    ReadyCondition::not_ready(OpenVPNClientPhase::Failed, reason, message)
}

/// Returns that the user issues the certificates.
pub fn not_issuing(server: &ServerView) -> ReadyCondition<OpenVPNClientPhase> {
    let (name, secret) = (&server.meta.key.name, server.spec.keystore_secret().unwrap_or_default());
    let message = format!(
        "OpenVPNServer {name} has the certificates in Secret {secret}, so the operator issues and revokes none; to revoke \
         one, put it into crl.pem there"
    );
    failed(Reason::NotIssuing, message)
}

fn pending(message: String) -> ReadyCondition<OpenVPNClientPhase> {
    ReadyCondition::not_ready(OpenVPNClientPhase::Pending, Reason::ServerNotReady, message)
}
