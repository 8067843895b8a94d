//! `OpenVPNServer`: an OpenVPN server in the cluster.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::closed_set::closed_set;
use crate::duration::{InvalidDuration, parse_duration};
use crate::schema;
use crate::verify::MaskProviderVerifySpec;

/// The server: its network, its certificates, and how clients reach it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "vpn.beebs.dev",
    version = "v1",
    kind = "OpenVPNServer",
    plural = "openvpnservers",
    namespaced,
    status = "OpenVPNServerStatus",
    derive = "PartialEq",
    derive = "Default",
    category = "vpn",
    shortname = "ovs",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    doc = "An OpenVPN server in the cluster, with as many replicas as you like.\n\nThe operator creates the certificate authority, the Deployment and the Services, and issues a certificate for each OpenVPNClient. With `spec.provider`, the server is also a VPN account whose slots Masks can use.",
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,50}[a-z0-9])?$')").message("metadata.name must be 1 to 52 lowercase letters, digits and '-', and begin with a letter, because names of Services are made from it"),
    validation = Rule::new("(has(self.spec.network) && has(self.spec.network.clients) ? self.spec.network.clients : '10.240.0.0/16') == (has(oldSelf.spec.network) && has(oldSelf.spec.network.clients) ? oldSelf.spec.network.clients : '10.240.0.0/16')").message("spec.network.clients cannot be changed; create another OpenVPNServer"),
    validation = Rule::new("!has(self.spec.pki) || !has(self.spec.pki.generation) || !has(oldSelf.spec.pki) || !has(oldSelf.spec.pki.generation) || self.spec.pki.generation >= oldSelf.spec.pki.generation").message("spec.pki.generation cannot be lowered"),
    printcolumn(name = "PHASE", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "ENDPOINT", type_ = "string", json_path = ".status.endpoint.host"),
    printcolumn(name = "READY", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "CLIENTS", type_ = "integer", json_path = ".status.certificates.clients"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "REASON", type_ = "string", priority = 1, json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "MESSAGE", type_ = "string", priority = 1, json_path = ".status.message"),
    printcolumn(name = "CA-ENDS", type_ = "string", priority = 1, json_path = ".status.certificates.authority.notAfter")
)]
#[serde(rename_all = "camelCase")]
pub struct OpenVPNServerSpec {
    /// How many replicas to run. If absent, something else scales the Deployment, such as a HorizontalPodAutoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,

    /// The transport: `UDP` or `TCP`. Default: `UDP`.
    #[serde(default, deserialize_with = "schema::lenient", skip_serializing_if = "Option::is_none")]
    pub protocol: Option<OpenVPNProtocol>,

    /// The port of the server and its Service. Default: 1194.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,

    /// What clients outside of the cluster connect to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<OpenVPNEndpointSpec>,

    /// The Service in front of the replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<OpenVPNServiceSpec>,

    /// The networks of clients, and what clients may reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<OpenVPNNetworkSpec>,

    /// How many clients one replica accepts. Default: 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65534))]
    pub max_clients: Option<i32>,

    /// The certificate authority and the certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pki: Option<OpenVPNPkiSpec>,

    /// What happens to the sessions of a replica that is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<OpenVPNDrainSpec>,

    /// How a replica enables forwarding of packets where it is off: `Auto`, `Sysctl` or `InitContainer`. Default:
    /// `Auto`.
    #[serde(default, deserialize_with = "schema::lenient", skip_serializing_if = "Option::is_none")]
    pub ip_forward: Option<IpForward>,

    /// Further lines for the configuration of OpenVPN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<OpenVPNConfigSpec>,

    /// The exporter of metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exporter: Option<OpenVPNExporterSpec>,

    /// Image with OpenVPN, iptables and this operator's binary. Default: the image that the operator is configured with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,

    /// Changes to the Pods, in the form of a Pod (`metadata`, `spec`). Containers match by name: `openvpn` and
    /// `exporter`. They can turn a replica into any Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub pod: Option<Value>,

    /// Makes a MaskProvider of the same name, so that Masks can use the server. If absent, there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<OpenVPNProviderSpec>,
}

/// What clients outside of the cluster connect to.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OpenVPNEndpointSpec {
    /// Host name or address in the profiles of clients. Default: the address of the load balancer, of a node, or of the
    /// Service, in this order. Set it if that address may change: devices keep the profile that they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_host")]
    pub host: Option<String>,

    /// Port in the profiles of clients. Default: the port of the load balancer, of a node, or of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

/// The Service in front of the replicas.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OpenVPNServiceSpec {
    /// Type of the Service: `ClusterIP`, `NodePort` or `LoadBalancer`. Default: `ClusterIP`.
    #[serde(default, rename = "type", deserialize_with = "schema::lenient", skip_serializing_if = "Option::is_none")]
    pub type_: Option<OpenVPNServiceType>,

    /// Annotations of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<std::collections::BTreeMap<String, String>>,

    /// Port on each node. Default: one that Kubernetes chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub node_port: Option<i32>,

    /// Networks that may connect to the load balancer. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub load_balancer_source_ranges: Option<Vec<String>>,

    /// `Local` keeps the addresses of clients; `Cluster` also accepts them on nodes without a replica. Default: `Local`
    /// for `NodePort` and `LoadBalancer`.
    #[serde(default, deserialize_with = "schema::lenient", skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<TrafficPolicy>,
}

/// The networks of clients, and what clients may reach.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OpenVPNNetworkSpec {
    /// IPv4 network of the clients, with a prefix of 16 to 28 bits. All replicas use the same network. It cannot be
    /// changed. Default: `10.240.0.0/16`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_client_network")]
    pub clients: Option<String>,

    /// IPv4 networks that clients reach through the server, for example the one of the Services. Without
    /// `redirectGateway`, clients reach nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::routes")]
    pub routes: Option<Vec<String>>,

    /// Whether clients send all traffic through the server. Default: `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_gateway: Option<bool>,

    /// DNS settings of clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<OpenVPNDnsSpec>,

    /// Maximum size of TCP segments in the tunnel, so that packets fit into those of the network below. Default: 1360.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 500, max = 9000))]
    pub mssfix: Option<i32>,
}

/// DNS settings of clients.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OpenVPNDnsSpec {
    /// Addresses of DNS servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::addresses")]
    pub servers: Option<Vec<String>>,

    /// Search domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::hosts")]
    pub search_domains: Option<Vec<String>>,
}

/// The certificate authority and the certificates.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OpenVPNPkiSpec {
    /// Name of a Secret with a certificate authority of your own (`tls.crt`, `tls.key`), in this namespace. If absent,
    /// the operator creates one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_secret_name")]
    pub ca_secret: Option<String>,

    /// How long the certificate of the server is valid. The operator renews it after two thirds of that time, with a
    /// rolling restart. Default: `8760h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub server_duration: Option<String>,

    /// How long certificates of clients are valid, unless the OpenVPNClient says otherwise. Default: `8760h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub client_duration: Option<String>,

    /// Whether the certificate authority and the list of revoked certificates outlive the OpenVPNServer: `Retain` or
    /// `Delete`. Default: `Retain`.
    #[serde(default, deserialize_with = "schema::lenient", skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,

    /// Increase it to have a new certificate authority after the Secret `NAME-ca` was lost. No client can connect with
    /// the profile that it has after that. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub generation: Option<i32>,
}

/// What happens to the sessions of a replica that is deleted.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OpenVPNDrainSpec {
    /// How long the replica waits for its clients to leave. In the last third of that time it ends their sessions, one
    /// after the other; they connect to another replica. Default: `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub timeout: Option<String>,
}

/// Further lines for the configuration of OpenVPN.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OpenVPNConfigSpec {
    /// Lines for the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::config_lines")]
    pub server: Option<Vec<String>>,

    /// Lines for the profiles of clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::config_lines")]
    pub client: Option<Vec<String>>,
}

/// The exporter of metrics.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OpenVPNExporterSpec {
    /// Whether metrics have series for individual clients, with their names and addresses. Default: `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub individuals: Option<bool>,
}

/// The MaskProvider of the server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OpenVPNProviderSpec {
    /// How many slots it has, 0 to 1024. The operator issues a certificate for each.
    #[schemars(schema_with = "schema::certificates")]
    pub max_slots: u16,

    /// Tags that a Mask can request in `spec.providers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::tags")]
    pub tags: Option<Vec<String>>,

    /// Namespaces whose Masks may use the server. If absent, all namespaces may. If empty, none may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::namespaces")]
    pub namespaces: Option<Vec<String>>,

    /// Whether and how the operator verifies the server with a client of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<MaskProviderVerifySpec>,
}

impl OpenVPNServerSpec {
    /// `port` when it is absent.
    pub const DEFAULT_PORT: u16 = 1194;
    /// `network.clients` when it is absent.
    pub const DEFAULT_CLIENTS: &'static str = "10.240.0.0/16";
    /// `maxClients` when it is absent.
    pub const DEFAULT_MAX_CLIENTS: u16 = 128;
    /// `network.mssfix` when it is absent.
    pub const DEFAULT_MSSFIX: u16 = 1360;
    /// `pki.serverDuration` and `pki.clientDuration` when they are absent.
    pub const DEFAULT_DURATION: Duration = Duration::from_secs(8760 * 3600);
    /// `drain.timeout` when it is absent.
    pub const DEFAULT_DRAIN: Duration = Duration::from_secs(300);

    /// How long the certificate of the server is valid.
    ///
    /// # Errors
    /// When the field is not a duration.
    pub fn server_duration(&self) -> Result<Duration, InvalidDuration> {
        duration(self.pki.as_ref().and_then(|pki| pki.server_duration.as_deref()), Self::DEFAULT_DURATION)
    }

    /// How long certificates of clients are valid.
    ///
    /// # Errors
    /// When the field is not a duration.
    pub fn client_duration(&self) -> Result<Duration, InvalidDuration> {
        duration(self.pki.as_ref().and_then(|pki| pki.client_duration.as_deref()), Self::DEFAULT_DURATION)
    }

    /// How long a replica waits for its clients to leave.
    ///
    /// # Errors
    /// When the field is not a duration.
    pub fn drain_timeout(&self) -> Result<Duration, InvalidDuration> {
        duration(self.drain.as_ref().and_then(|drain| drain.timeout.as_deref()), Self::DEFAULT_DRAIN)
    }
}

fn duration(text: Option<&str>, default: Duration) -> Result<Duration, InvalidDuration> {
    text.map_or(Ok(default), parse_duration)
}

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

closed_set! {
    /// The transport of an OpenVPNServer.
    #[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub enum OpenVPNProtocol or () = |_| ();
    {
        /// OpenVPN over UDP.
        #[default]
        UDP,
        /// OpenVPN over TCP.
        TCP,
    }
}

closed_set! {
    /// Type of the Service of an OpenVPNServer.
    #[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub enum OpenVPNServiceType or () = |_| ();
    {
        /// Reachable in the cluster only.
        #[default]
        ClusterIP,
        /// Reachable on a port of each node.
        NodePort,
        /// Reachable through a load balancer.
        LoadBalancer,
    }
}

closed_set! {
    /// Where a Service accepts traffic from outside of the cluster.
    #[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum TrafficPolicy or () = |_| ();
    {
        /// On all nodes.
        Cluster,
        /// On nodes that run a replica. The server sees the addresses of clients.
        Local,
    }
}

closed_set! {
    /// Whether an object outlives its owner.
    #[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub enum DeletionPolicy or () = |_| ();
    {
        /// It does.
        #[default]
        Retain,
        /// It is deleted with its owner.
        Delete,
    }
}

closed_set! {
    /// How a replica enables forwarding of packets.
    #[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub enum IpForward or () = |_| ();
    {
        /// It uses the setting of the node, which is on in most clusters.
        #[default]
        Auto,
        /// The Pod sets the sysctl `net.ipv4.ip_forward`, which the kubelet has to allow.
        Sysctl,
        /// A privileged init container sets it.
        InitContainer,
    }
}
