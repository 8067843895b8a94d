//! The status of an `OpenVPNServer`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::closed_set::closed_set;
use crate::schema;

/// Observed state of the server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OpenVPNServerStatus {
    /// Phase of the server.
    #[serde(default, deserialize_with = "schema::lenient", skip_serializing_if = "Option::is_none")]
    pub phase: Option<OpenVPNServerPhase>,

    /// Human-readable explanation of the phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// When another field of this status last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<String>,

    /// What clients connect to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<OpenVPNEndpointStatus>,

    /// How many replicas there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,

    /// How many replicas accept clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,

    /// How many clients are connected to all replicas. The operator asks the replicas every 30 s. While one of them does not
    /// answer, this is the last known number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_clients: Option<i32>,

    /// Label selector for the scale subresource, which autoscalers read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// The certificate authority and the certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<OpenVPNCertificatesStatus>,

    /// `metadata.generation` of the OpenVPNServer that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Conditions. `Ready` is `True` while a replica accepts clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Option<Vec<Condition>>,
}

/// What clients connect to.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OpenVPNEndpointStatus {
    /// Host name or address in the profiles of clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,

    /// Port in the profiles of clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,

    /// Address of the Service, which Masks use.
    #[serde(default, rename = "clusterIP", skip_serializing_if = "Option::is_none")]
    pub cluster_ip: Option<String>,
}

/// The certificate authority and the certificates.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OpenVPNCertificatesStatus {
    /// The `spec.pki.generation` of the certificate authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i32>,

    /// The certificate authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<OpenVPNCertificateStatus>,

    /// The certificate of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<OpenVPNCertificateStatus>,

    /// How many OpenVPNClients have a valid certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<i32>,

    /// How many certificates are revoked and have not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<i32>,
}

/// A certificate.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OpenVPNCertificateStatus {
    /// Serial number, in decimal.
    pub serial: String,

    /// When it ends (RFC 3339).
    pub not_after: String,
}

closed_set! {
    /// Phase of an OpenVPNServer: `Pending`, `Ready`, `Failed` or `Terminating`. The `Ready` condition has the reason.
    #[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum OpenVPNServerPhase or () = |_| ();
    {
        /// Objects are being created, or no replica accepts clients yet.
        Pending,
        /// A replica accepts clients.
        Ready,
        /// Something has to be corrected first. The message says what.
        Failed,
        /// The OpenVPNServer is being deleted. The slots of its MaskProvider are released first.
        Terminating,
    }
}
