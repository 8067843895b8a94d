//! `OpenVPNClient`: a client of an OpenVPNServer.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::closed_set::closed_set;
use crate::duration::{InvalidDuration, parse_duration};
use crate::schema;

/// The client: its server and its certificate.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "vpn.beebs.dev",
    version = "v1",
    kind = "OpenVPNClient",
    plural = "openvpnclients",
    namespaced,
    status = "OpenVPNClientStatus",
    derive = "PartialEq",
    derive = "Default",
    category = "vpn",
    shortname = "ovc",
    doc = "A client of an OpenVPNServer: a device, or a slot of the server's MaskProvider.\n\nThe operator issues a certificate and writes the profile `NAME.ovpn` to the Secret of the same name. Delete the OpenVPNClient, or set `spec.revoked`, to revoke all its certificates and to end its sessions.",
    validation = Rule::new("self.metadata.name.size() <= 64 || has(self.spec.commonName)").message("set spec.commonName, because metadata.name is longer than 64 characters"),
    validation = Rule::new("self.spec.server == oldSelf.spec.server").message("spec.server cannot be changed; delete the OpenVPNClient and create it again"),
    validation = Rule::new("has(self.spec.commonName) == has(oldSelf.spec.commonName) && (!has(self.spec.commonName) || self.spec.commonName == oldSelf.spec.commonName)").message("spec.commonName cannot be changed; delete the OpenVPNClient and create it again"),
    validation = Rule::new("!(has(oldSelf.spec.revoked) && oldSelf.spec.revoked) || (has(self.spec.revoked) && self.spec.revoked)").message("a revoked client cannot be restored; delete the OpenVPNClient and create it again"),
    printcolumn(name = "PHASE", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "SERVER", type_ = "string", json_path = ".spec.server"),
    printcolumn(name = "SECRET", type_ = "string", json_path = ".status.secret"),
    printcolumn(name = "ENDS", type_ = "string", json_path = ".status.notAfter"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "REASON", type_ = "string", priority = 1, json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "MESSAGE", type_ = "string", priority = 1, json_path = ".status.message")
)]
#[serde(rename_all = "camelCase")]
pub struct OpenVPNClientSpec {
    /// Name of the OpenVPNServer, in this namespace. It cannot be changed.
    #[schemars(length(min = 1, max = 63))]
    pub server: String,

    /// Common name in the certificate: 1 to 64 letters, digits, `-`, `_` and `.`. It cannot be changed. Default: the
    /// name of the OpenVPNClient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_common_name")]
    pub common_name: Option<String>,

    /// Certificate signing request in PEM, if the private key is to stay with the client. The certificate is then in
    /// `status.certificate`. The operator uses only the public key of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub csr: Option<String>,

    /// How long the certificate is valid. The operator renews it after two thirds of that time, if it has the key.
    /// Default: `spec.pki.clientDuration` of the OpenVPNServer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub duration: Option<String>,

    /// Address of the client in the network of the server. Default: any that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_address")]
    pub address: Option<String>,

    /// IPv4 networks that this client is told to reach through the server, in addition to `spec.network.routes` of the
    /// OpenVPNServer. Without `redirectGateway`, they have to be within `spec.network.routes`, because the server
    /// forwards to those only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::routes")]
    pub routes: Option<Vec<String>>,

    /// Revokes all certificates of this client and ends its sessions. It cannot be undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<bool>,
}

impl OpenVPNClientSpec {
    /// How long the certificate is valid, if the client says so.
    ///
    /// # Errors
    /// When the field is not a duration.
    pub fn duration(&self) -> Result<Option<Duration>, InvalidDuration> {
        self.duration.as_deref().map(parse_duration).transpose()
    }
}

/// Observed state of the client.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OpenVPNClientStatus {
    /// Phase of the client.
    #[serde(default, deserialize_with = "schema::lenient", skip_serializing_if = "Option::is_none")]
    pub phase: Option<OpenVPNClientPhase>,

    /// Human-readable explanation of the phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// When another field of this status last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<String>,

    /// Name of the Secret with the profile (`NAME.ovpn`), and `tls.crt`, `tls.key`, `ca.crt` and `tls-crypt.key`. With
    /// `spec.csr`, it has no private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,

    /// The certificate in PEM, if `spec.csr` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,

    /// When the current certificate ends (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,

    /// Certificates of this client that have not ended, the newest last. A serial number is here before its certificate
    /// is issued, so that none escapes a revocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued: Option<Vec<IssuedCertificate>>,

    /// How many certificates have been issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issues: Option<i64>,

    /// `metadata.generation` of the OpenVPNClient that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Conditions. `Ready` is `True` while the client has a valid certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Option<Vec<Condition>>,
}

/// A certificate of a client.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct IssuedCertificate {
    /// Serial number, in decimal.
    pub serial: String,

    /// When it ends (RFC 3339).
    pub not_after: String,
}

closed_set! {
    /// Phase of an OpenVPNClient: `Pending`, `Ready`, `Revoked`, `Failed` or `Terminating`. The `Ready` condition has
    /// the reason.
    #[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum OpenVPNClientPhase or () = |_| ();
    {
        /// The certificate is being issued.
        Pending,
        /// The client has a valid certificate.
        Ready,
        /// All certificates of the client are revoked.
        Revoked,
        /// Something has to be corrected first. The message says what.
        Failed,
        /// The OpenVPNClient is being deleted. Its certificates are revoked first.
        Terminating,
    }
}
