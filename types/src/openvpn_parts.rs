//! The parts of `spec` of an `OpenVPNServer`.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::closed_set::closed_set;
use crate::schema;
use crate::verify::MaskProviderVerifySpec;

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

    /// On which nodes the Service accepts traffic from outside of the cluster, for `NodePort` and `LoadBalancer`.
    #[serde(default, deserialize_with = "schema::lenient", skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<TrafficPolicy>,

    /// Session affinity of the Service.
    #[serde(default, deserialize_with = "schema::lenient", skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<SessionAffinity>,
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

    /// Whether clients send all IPv4 traffic through the server. Devices with IPv6 send their IPv6 traffic past it, unless
    /// `spec.config.server` has lines that block it. Default: `true`.
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

    /// Name of a Secret with the files of a server of your own, in this namespace: `server.key`, `server.crt`, `ca.crt`,
    /// and optionally `dh.pem`, `crl.pem` and `ta.key` (for `tls-auth`). The operator then issues, renews and revokes no
    /// certificates. It excludes `caSecret` and `spec.provider`, and cannot be added or removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_secret_name")]
    pub keystore_secret: Option<String>,

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

    /// Increase it to have the next certificate authority: a new one, or the one that is in the Secret of `caSecret` now.
    /// Profiles of the previous one work until their certificates end. If the Secret `NAME-ca` was lost or deleted before,
    /// no client can connect until it has its new profile. Default: 1.
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
    /// Type of the Service of an OpenVPNServer. Default: `ClusterIP`.
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
    /// On which nodes the Service of an OpenVPNServer accepts traffic from outside of the cluster. `Local` keeps the
    /// addresses of clients; `Cluster` also accepts them on nodes without a replica. Default: `Local`.
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
    /// Session affinity of the Service of an OpenVPNServer. With `None`, a NAT that changes the source port of a client may
    /// send its UDP session to another replica, which ends it. `ClientIP` keeps the session, but the load balancers of
    /// some clouds refuse it, and all clients behind one address connect to the same replica. Default: `None` for
    /// `LoadBalancer`, otherwise `ClientIP`.
    #[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum SessionAffinity or () = |_| ();
    {
        /// To any replica. A connection stays on its replica while the client keeps its address and port.
        None,
        /// To the same replica for three hours.
        ClientIP,
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
