//! Views of OpenVPN servers, their clients, and the objects that the operator creates for them.

use std::{collections::BTreeSet, fmt, sync::Arc};

use chrono::{DateTime, Utc};
use vpn_types::{
    OpenVPNClientPhase, OpenVPNClientSpec, OpenVPNEndpointStatus, OpenVPNServerPhase, OpenVPNServerSpec, Reason,
};

use super::StatusView;
use crate::{
    model::{Kind, Meta, ObjectKey, Uid},
    pki::{Revoked, Serial},
};

/// An OpenVPN server.
#[derive(Clone, Debug)]
pub struct ServerView {
    /// The metadata.
    pub meta: Meta,
    /// The spec.
    pub spec: Arc<OpenVPNServerSpec>,
    /// The `spec.pki.generation` of the last certificate authority that the operator created or found.
    pub authority_generation: Option<i32>,
    /// `status.endpoint`: a change of it reaches the profiles of clients.
    pub endpoint: Option<OpenVPNEndpointStatus>,
    /// `status.connectedClients`.
    pub connected_clients: Option<i32>,
    /// The status.
    pub status: StatusView<OpenVPNServerPhase>,
    /// The condition `CertificatesValid`: its status and last transition.
    pub certificates_valid: Option<(bool, DateTime<Utc>)>,
}

impl ServerView {
    /// Whether the certificate authority is one of the user.
    pub fn has_own_authority(&self) -> bool {
        self.spec.pki.as_ref().is_some_and(|pki| pki.ca_secret.as_deref().is_some_and(|name| !name.is_empty()))
    }

    /// Returns the key of the Secret with the files of the user, if the operator issues no certificates.
    pub fn keystore_key(&self) -> Option<ObjectKey> {
        Some(ObjectKey::new(&*self.meta.key.namespace, self.spec.keystore_secret()?))
    }
}

/// A client of an OpenVPN server.
#[derive(Clone, Debug)]
pub struct ClientView {
    /// The metadata.
    pub meta: Meta,
    /// The spec.
    pub spec: Arc<OpenVPNClientSpec>,
    /// The UID of the OpenVPN server that created it, if it is for a slot.
    pub owner: Option<Uid>,
    /// The slot of the MaskProvider that it is for.
    pub slot: Option<u32>,
    /// The hash of what the operator made it from, if it is for a slot.
    pub inputs: Option<Arc<str>>,
    /// `status.issued`: certificates that have not ended, the newest last.
    pub issued: Arc<[IssuedView]>,
    /// `status.issues`: how many serial numbers it has had.
    pub issues: i64,
    /// The status.
    pub status: StatusView<OpenVPNClientPhase>,
}

impl ClientView {
    /// Returns the common name in its certificates.
    pub fn common_name(&self) -> &str {
        self.spec.common_name.as_deref().unwrap_or(&self.meta.key.name)
    }

    /// Whether its certificates are to be revoked.
    pub fn is_doomed(&self) -> bool {
        self.meta.deleting || self.spec.revoked == Some(true)
    }
}

/// A certificate that has been issued, or is about to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedView {
    /// Its serial number.
    pub serial: Serial,
    /// When it ends.
    pub not_after: DateTime<Utc>,
}

/// What a Secret of an OpenVPN server holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretRole {
    /// The certificate authority, and which certificates are revoked.
    Authority,
    /// The certificate of the server.
    Server,
    /// The files of revoked certificates.
    Revoked,
    /// The certificate and profile of a client.
    Client,
    /// Settings of gluetun.
    Provider,
}

impl SecretRole {
    /// All roles.
    pub const ALL: [Self; 5] = [Self::Authority, Self::Server, Self::Revoked, Self::Client, Self::Provider];

    /// Returns the value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::Server => "server",
            Self::Revoked => "revoked",
            Self::Client => "client",
            Self::Provider => "provider",
        }
    }
}

/// A Secret of an OpenVPN server.
#[derive(Clone, Debug)]
pub struct ServerSecretView {
    /// The metadata.
    pub meta: Meta,
    /// The name of the server, from a label. Absent if the Secret is none of the operator's.
    pub server: Option<Arc<str>>,
    /// What it holds, from a label.
    pub role: Option<SecretRole>,
    /// The UID of the object that controls it.
    pub owner: Option<Uid>,
    /// The hash of what it was made from, from an annotation.
    pub inputs: Option<Arc<str>>,
    /// Whether its data are those that the operator wrote, by a hash in an annotation.
    pub intact: bool,
    /// The certificate in it.
    pub certificate: Option<IssuedView>,
    /// The PEM of that certificate, if the Secret has no private key: the certificate is then part of a status.
    pub pem: Option<Arc<str>>,
    /// The certificate authority in it.
    pub authority: Option<Arc<AuthorityView>>,
    /// The list of revoked certificates in it.
    pub revoked: Option<Revoked>,
    /// The serial numbers that are its keys.
    pub serials: Arc<BTreeSet<Serial>>,
}

/// What a certificate authority signs with.
#[derive(Clone, PartialEq, Eq)]
pub struct Signer {
    /// The certificate in PEM.
    pub certificate: Arc<str>,
    /// The private key in PEM.
    pub key: Arc<str>,
    /// A hash of the certificate.
    pub fingerprint: Arc<str>,
    /// When it ends.
    pub not_after: DateTime<Utc>,
    /// Whether it is one of the user, who may have issued certificates with it too.
    pub is_own: bool,
}

/// A certificate authority.
#[derive(Clone)]
pub struct AuthorityView {
    /// What it signs with.
    pub signer: Signer,
    /// The key of `tls-crypt`.
    pub tls_crypt: Arc<str>,
    /// The `spec.pki.generation` that it was created for.
    pub generation: i32,
    /// The revoked certificates. Absent if the list cannot be read.
    pub revoked: Option<Revoked>,
    /// The serial number of its certificate.
    pub serial: Serial,
    /// The authorities before it that may still be trusted, the oldest first.
    pub previous: Arc<[PreviousAuthority]>,
}

/// A certificate authority before the present one.
#[derive(Clone, PartialEq, Eq)]
pub struct PreviousAuthority {
    /// What it signs with.
    pub signer: Signer,
    /// When the last certificate of a client ends that it has issued. Absent while it issues them.
    pub retires: Option<DateTime<Utc>>,
}

impl fmt::Debug for AuthorityView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorityView").field("serial", &self.serial).finish_non_exhaustive()
    }
}

/// An object that the operator creates for an OpenVPN server.
#[derive(Clone, Debug)]
pub struct ServerObject {
    /// The kind.
    pub kind: Kind,
    /// The metadata.
    pub meta: Meta,
    /// The name of the server, from a label. Absent if the object is none of the operator's.
    pub server: Option<Arc<str>>,
    /// The UID of the server that controls it.
    pub owner: Option<Uid>,
    /// The hash of what it was made from, from an annotation.
    pub inputs: Option<Arc<str>>,
    /// Its labels, its `spec` or `data`, and the annotations of a Service, as JSON. The operator sets no annotations of
    /// other objects but the one with the hash, and their controllers add some of their own each time.
    pub content: Arc<str>,
    /// The addresses of a Service.
    pub addresses: Option<Arc<ServiceAddresses>>,
    /// Why a Deployment cannot create Pods.
    pub failure: Option<Arc<str>>,
    /// Why the rollout of a Deployment does not progress.
    pub stuck: Option<Arc<str>>,
    /// The number of replicas of a Deployment that would be lost if the operator no longer applied it.
    pub replicas: Option<i32>,
}

/// The addresses of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAddresses {
    /// The type of the Service.
    pub type_: Arc<str>,
    /// The address in the cluster.
    pub cluster_ip: Option<Arc<str>>,
    /// The host name of the load balancer.
    pub hostname: Option<Arc<str>>,
    /// The address of the load balancer.
    pub ip: Option<Arc<str>>,
    /// The port on each node.
    pub node_port: Option<i32>,
}

/// A replica of an OpenVPN server.
#[derive(Clone, Debug)]
pub struct ServerPodView {
    /// The metadata.
    pub meta: Meta,
    /// The name of the server, from a label.
    pub server: Option<Arc<str>>,
    /// Whether it accepts clients.
    pub ready: bool,
    /// Whether it has ended for good.
    pub ended: bool,
    /// Its address.
    pub address: Option<Arc<str>>,
    /// The address of its node.
    pub node_address: Option<Arc<str>>,
    /// Why it does not accept clients.
    pub problem: Option<(Reason, Arc<str>)>,
    /// The hash of the revoked certificates that it was told of, from an annotation.
    pub revoked: Option<Arc<str>>,
    /// The hash of what the replica read when it started, from an annotation.
    pub restart: Option<Arc<str>>,
    /// The deletion cost, from an annotation.
    pub deletion_cost: Option<i32>,
}
