//! Projects OpenVPN servers, their clients, and the objects that the operator creates for them.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, ContainerStatus, Pod, Secret, Service},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
};
use serde::Serialize;
use serde_json::json;
use vpn_types::{
    CERTIFICATES_VALID, DELETION_COST_ANNOTATION, FIELD_MANAGER, INPUTS_ANNOTATION, OpenVPNClient, OpenVPNServer,
    RESTART_ANNOTATION, REVOKED_ANNOTATION, Reason, SERVER_LABEL, SERVER_SECRET_LABEL, SHARED_FIELD_MANAGER,
    SLOT_LABEL,
};

use super::{Project, combined, meta, owner_of, status};
use crate::{
    issuing::{DATA_ANNOTATION, Previous, data_hash, keys},
    model::{Kind, intern},
    pki::{self, CertificateInfo},
    state::views::*,
};

impl Project for OpenVPNServer {
    type View = ServerView;
    fn project(&self) -> Option<ServerView> {
        let found = self.status.as_ref();
        let conditions = found.and_then(|status| status.conditions.as_ref());
        Some(ServerView {
            meta: meta(&self.metadata)?,
            spec: Arc::new(self.spec.clone()),
            authority_generation: found
                .and_then(|status| status.certificates.as_ref())
                .and_then(|certificates| certificates.generation),
            endpoint: found.and_then(|status| status.endpoint.clone()),
            connected_clients: found.and_then(|status| status.connected_clients),
            certificates_valid: condition(conditions, CERTIFICATES_VALID),
            status: status_of!(self),
        })
    }
}

fn condition(conditions: Option<&Vec<Condition>>, type_: &str) -> Option<(bool, DateTime<Utc>)> {
    let found = conditions.into_iter().flatten().find(|condition| condition.type_ == type_)?;
    let since = DateTime::from_timestamp(found.last_transition_time.0.as_second(), 0).unwrap_or_default();
    Some((found.status == "True", since))
}

impl Project for OpenVPNClient {
    type View = ClientView;
    fn project(&self) -> Option<ClientView> {
        let issued = self.status.as_ref().and_then(|status| status.issued.as_ref()).into_iter().flatten();
        let issued = issued.filter_map(|issued| {
            Some(IssuedView {
                serial: issued.serial.parse().ok()?,
                not_after: DateTime::parse_from_rfc3339(&issued.not_after).ok()?.to_utc(),
            })
        });
        Some(ClientView {
            meta: meta(&self.metadata)?,
            spec: Arc::new(self.spec.clone()),
            owner: owner_of(&self.metadata, "OpenVPNServer").next(),
            slot: label(&self.metadata, SLOT_LABEL).and_then(|slot| slot.parse().ok()),
            inputs: annotation(&self.metadata, INPUTS_ANNOTATION),
            issued: issued.collect(),
            issues: self.status.as_ref().and_then(|status| status.issues).unwrap_or(0),
            status: status_of!(self),
        })
    }
}

fn label(meta: &ObjectMeta, key: &str) -> Option<Arc<str>> {
    meta.labels.as_ref()?.get(key).map(|value| intern(value))
}

fn annotation(meta: &ObjectMeta, key: &str) -> Option<Arc<str>> {
    meta.annotations.as_ref()?.get(key).map(|value| intern(value))
}

impl ServerSecretView {
    /// Returns the view of a Secret. It may be none of the operator's.
    pub fn of(secret: &Secret) -> Option<Self> {
        let metadata = &secret.metadata;
        let empty = BTreeMap::new();
        let data = secret.data.as_ref().unwrap_or(&empty);
        let role = label(metadata, SERVER_SECRET_LABEL);
        let role = role.and_then(|role| SecretRole::ALL.into_iter().find(|known| known.as_str() == &*role));
        let info = text(data, keys::CERTIFICATE).and_then(|pem| pki::inspect(&pem).ok());
        let is_authority = role == Some(SecretRole::Authority);
        let serials = data.keys().filter_map(|key| key.parse().ok());
        Some(Self {
            meta: meta(metadata)?,
            server: label(metadata, SERVER_LABEL),
            role,
            owner: ["OpenVPNServer", "OpenVPNClient"].iter().find_map(|kind| owner_of(metadata, kind).next()),
            inputs: annotation(metadata, INPUTS_ANNOTATION),
            intact: annotation(metadata, DATA_ANNOTATION).is_some_and(|hash| *hash == data_hash(data)),
            pem: text(data, keys::CERTIFICATE).filter(|_| !data.contains_key(keys::KEY)).map(Arc::from),
            authority: info.as_ref().filter(|_| is_authority).and_then(|info| authority(data, info)).map(Arc::new),
            certificate: info.as_ref().map(issued),
            revoked: text(data, keys::REVOKED).and_then(|text| text.parse().ok()),
            serials: Arc::new(serials.collect()),
        })
    }
}

fn text(data: &BTreeMap<String, ByteString>, key: &str) -> Option<String> {
    String::from_utf8(data.get(key)?.0.clone()).ok()
}

fn issued(info: &CertificateInfo) -> IssuedView {
    let not_after = DateTime::from_timestamp(info.not_after, 0).unwrap_or_default();
    IssuedView { serial: info.serial, not_after }
}

fn authority(data: &BTreeMap<String, ByteString>, info: &CertificateInfo) -> Option<AuthorityView> {
    let previous = match text(data, keys::PREVIOUS) {
        Some(text) => serde_json::from_str(&text).ok()?,
        None => Vec::new(),
    };
    let certificate = text(data, keys::CERTIFICATE)?;
    let revoked = text(data, keys::REVOKED).unwrap_or_default();
    Some(AuthorityView {
        signer: signer(certificate, text(data, keys::KEY)?, info, data.contains_key(keys::SOURCE)),
        tls_crypt: Arc::from(text(data, keys::TLS_CRYPT)?),
        generation: text(data, keys::GENERATION).and_then(|text| text.parse().ok()).unwrap_or(1),
        revoked: revoked.parse().ok(),
        serial: info.serial,
        previous: previous.into_iter().map(previous_authority).collect::<Option<_>>()?,
    })
}

fn signer(certificate: String, key: String, info: &CertificateInfo, is_own: bool) -> Signer {
    Signer {
        fingerprint: combined([&*certificate]),
        certificate: Arc::from(certificate),
        key: Arc::from(key),
        not_after: issued(info).not_after,
        is_own,
    }
}

fn previous_authority(previous: Previous) -> Option<PreviousAuthority> {
    let info = pki::inspect(&previous.certificate).ok()?;
    Some(PreviousAuthority {
        signer: signer(previous.certificate, previous.key, &info, previous.is_own),
        retires: previous.retires.and_then(|time| DateTime::from_timestamp(time, 0)),
    })
}

fn object(kind: Kind, metadata: &ObjectMeta, field: &str, value: &impl Serialize) -> Option<ServerObject> {
    let annotations = metadata.annotations.as_ref().filter(|_| kind == Kind::Service);
    let content = json!({"metadata": {"labels": metadata.labels, "annotations": annotations}, field: value});
    Some(ServerObject {
        kind,
        meta: meta(metadata)?,
        server: label(metadata, SERVER_LABEL),
        owner: owner_of(metadata, "OpenVPNServer").next(),
        inputs: annotation(metadata, INPUTS_ANNOTATION),
        content: Arc::from(content.to_string()),
        addresses: None,
        failure: None,
        stuck: None,
        replicas: None,
    })
}

impl Project for ConfigMap {
    type View = ServerObject;
    fn project(&self) -> Option<ServerObject> {
        object(Kind::ConfigMap, &self.metadata, "data", &self.data)
    }
}

impl Project for PodDisruptionBudget {
    type View = ServerObject;
    fn project(&self) -> Option<ServerObject> {
        object(Kind::PodDisruptionBudget, &self.metadata, "spec", &self.spec)
    }
}

impl Project for Service {
    type View = ServerObject;
    fn project(&self) -> Option<ServerObject> {
        let spec = self.spec.clone().unwrap_or_default();
        let balancer = self.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()?.first());
        let addresses = ServiceAddresses {
            type_: Arc::from(spec.type_.unwrap_or_default()),
            cluster_ip: spec.cluster_ip.filter(|ip| ip != "None" && !ip.is_empty()).map(Arc::from),
            hostname: ingress.and_then(|ingress| ingress.hostname.as_deref()).map(Arc::from),
            ip: ingress.and_then(|ingress| ingress.ip.as_deref()).map(Arc::from),
            node_port: spec.ports.iter().flatten().find_map(|port| port.node_port),
        };
        let object = object(Kind::Service, &self.metadata, "spec", &self.spec)?;
        Some(ServerObject { addresses: Some(Arc::new(addresses)), ..object })
    }
}

impl Project for Deployment {
    type View = ServerObject;
    fn project(&self) -> Option<ServerObject> {
        let conditions = self.status.as_ref().and_then(|status| status.conditions.as_ref());
        let message = |type_: &str, status: &str| {
            let mut found = conditions.into_iter().flatten().filter(|one| one.type_ == type_ && one.status == status);
            found.find_map(|one| one.message.as_deref()).map(Arc::from)
        };
        let (failure, stuck) = (message("ReplicaFailure", "True"), message("Progressing", "False"));
        let owns = |manager: &str| owns_replicas(&self.metadata, manager);
        let replicas = self.spec.as_ref().and_then(|spec| spec.replicas);
        let replicas = replicas.filter(|_| owns(FIELD_MANAGER) && !owns(SHARED_FIELD_MANAGER));
        Some(ServerObject { failure, stuck, replicas, ..object(Kind::Deployment, &self.metadata, "spec", &self.spec)? })
    }
}

/// Whether a field manager has applied `spec.replicas`.
fn owns_replicas(metadata: &ObjectMeta, manager: &str) -> bool {
    let mut entries = metadata.managed_fields.iter().flatten();
    entries.any(|entry| {
        let is_applied = entry.manager.as_deref() == Some(manager) && entry.operation.as_deref() == Some("Apply");
        is_applied && entry.fields_v1.as_ref().is_some_and(|fields| !fields.0["f:spec"]["f:replicas"].is_null())
    })
}

impl ServerPodView {
    /// Returns the view of a Pod. It may be none of a server.
    pub fn of(pod: &Pod) -> Option<Self> {
        let found = pod.status.clone().unwrap_or_default();
        let is_ready = found.conditions.iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
        Some(Self {
            meta: meta(&pod.metadata)?,
            server: label(&pod.metadata, SERVER_LABEL),
            ready: is_ready,
            ended: matches!(found.phase.as_deref(), Some("Succeeded" | "Failed")),
            problem: if is_ready { None } else { problem(&found) },
            address: found.pod_ip.as_deref().map(intern),
            node_address: found.host_ip.as_deref().map(intern),
            revoked: annotation(&pod.metadata, REVOKED_ANNOTATION),
            restart: annotation(&pod.metadata, RESTART_ANNOTATION),
            deletion_cost: annotation(&pod.metadata, DELETION_COST_ANNOTATION).and_then(|cost| cost.parse().ok()),
        })
    }
}

/// How the messages of the server's process begin that have a reason of their own.
const MESSAGES: [(&str, Reason); 2] =
    [("ForwardingDisabled:", Reason::ForwardingDisabled), ("TunUnavailable:", Reason::TunUnavailable)];

/// Returns why a Pod does not accept clients: what its containers said when they ended, or what they wait for.
fn problem(found: &k8s_openapi::api::core::v1::PodStatus) -> Option<(Reason, Arc<str>)> {
    let statuses = || found.init_container_statuses.iter().chain(&found.container_statuses).flatten();
    let said = statuses().find_map(last_message);
    if let Some((container, said)) = said {
        let known = MESSAGES.iter().find(|(beginning, _)| said.starts_with(beginning));
        return Some(match known {
            Some((beginning, reason)) => (*reason, Arc::from(said[beginning.len()..].trim())),
            None => (Reason::PodsUnavailable, Arc::from(format!("container {container} ended: {said}"))),
        });
    }
    let waits = statuses().find_map(|status| {
        let waiting = status.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref().filter(|why| !["ContainerCreating", "PodInitializing"].contains(why))?;
        let message = waiting.message.as_deref().unwrap_or_default();
        Some((Reason::PodsUnavailable, Arc::from(format!("container {}: {reason} {message}", status.name).trim())))
    });
    let unscheduled = || {
        let mut conditions = found.conditions.iter().flatten();
        let found = conditions.find(|one| one.type_ == "PodScheduled" && one.status == "False")?;
        Some((Reason::Unschedulable, Arc::from(found.message.as_deref()?)))
    };
    waits.or_else(unscheduled)
}

fn last_message(status: &ContainerStatus) -> Option<(&str, &str)> {
    let now = status.state.as_ref().and_then(|state| state.terminated.as_ref());
    let before = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    // A container that runs again may still be starting.
    let ended = now.or(before).filter(|ended| ended.exit_code != 0)?;
    Some((&status.name, ended.message.as_deref()?.trim()))
}
