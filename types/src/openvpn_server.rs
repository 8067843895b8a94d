//! `OpenVPNServer`: an OpenVPN server in the cluster.

use std::time::Duration;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::duration::{InvalidDuration, parse_duration};
use crate::openvpn_parts::{
    IpForward, OpenVPNConfigSpec, OpenVPNDrainSpec, OpenVPNEndpointSpec, OpenVPNExporterSpec, OpenVPNNetworkSpec,
    OpenVPNPkiSpec, OpenVPNProtocol, OpenVPNProviderSpec, OpenVPNServiceSpec,
};
use crate::openvpn_server_status::OpenVPNServerStatus;
use crate::schema;

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
    validation = Rule::new("!has(self.spec.pki) || !has(self.spec.pki.keystoreSecret) || !has(self.spec.pki.caSecret)").message("spec.pki.keystoreSecret and spec.pki.caSecret exclude each other"),
    validation = Rule::new("!has(self.spec.pki) || !has(self.spec.pki.keystoreSecret) || !has(self.spec.provider)").message("spec.provider needs certificates that the operator issues, and with spec.pki.keystoreSecret it issues none"),
    validation = Rule::new("(has(self.spec.pki) && has(self.spec.pki.keystoreSecret)) == (has(oldSelf.spec.pki) && has(oldSelf.spec.pki.keystoreSecret))").message("spec.pki.keystoreSecret cannot be added or removed; create another OpenVPNServer"),
    printcolumn(name = "PHASE", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "ENDPOINT", type_ = "string", json_path = ".status.endpoint.host"),
    printcolumn(name = "READY", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "CLIENTS", type_ = "integer", json_path = ".status.certificates.clients"),
    printcolumn(name = "CONNECTED", type_ = "integer", json_path = ".status.connectedClients"),
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

    /// How many clients one replica accepts, at most as many as `network.clients` has addresses for. Default: 128, or
    /// fewer if there are fewer addresses.
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

    /// ServiceAccount with which `/etc/openvpn/setup/newClientCert.sh` and `revokeClientCert.sh` in the container
    /// `openvpn` create and revoke OpenVPNClients. Only that container has its token. Whoever can run commands there, or
    /// takes over the OpenVPN server, has the permissions of the ServiceAccount. Default: none, and the Pods have no
    /// access to the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_service_account_name")]
    pub service_account_name: Option<String>,

    /// Changes to the Pods, in the form of a Pod (`metadata`, `spec`). Containers match by name: `openvpn` and
    /// `exporter`. They can turn a replica into any Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub pod: Option<Value>,

    /// Makes a MaskProvider of the same name, so that Masks can use the server. If absent, there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<OpenVPNProviderSpec>,
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

    /// The Secret with the files of a server of the user's own, if the operator issues no certificates.
    pub fn keystore_secret(&self) -> Option<&str> {
        self.pki.as_ref()?.keystore_secret.as_deref().filter(|name| !name.is_empty())
    }

    /// The port of the server and its Service.
    pub fn port(&self) -> u16 {
        self.port.and_then(positive).unwrap_or(Self::DEFAULT_PORT)
    }

    /// The maximum size of TCP segments in the tunnel.
    pub fn mssfix(&self) -> u16 {
        self.network.as_ref().and_then(|network| network.mssfix).and_then(positive).unwrap_or(Self::DEFAULT_MSSFIX)
    }

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

fn positive(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number > 0)
}
