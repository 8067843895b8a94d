//! The command line.

mod hpa;

use std::{collections::BTreeMap, time::Duration};

use clap::{Args, Parser, Subcommand};
use k8s_openapi::api::core::v1::ResourceRequirements;
use vpn_types::parse_duration;

use crate::{
    controllers::servers::SERVER_IMAGE,
    controllers::verification::{CURL_IMAGE, IP_SERVICES, Settings, VPN_IMAGE},
    controllers::{ControllerSet, observer, pods, servers, table},
    injection::{self, Defaults},
    metrics::{Claim, METRICS_API, WEBHOOK, parse_prefix},
    metrics_api::{request::Groups, values::parse_claim},
    runtime::{
        certificates::{CaTarget, CertificateSource},
        metrics_api::MetricsApiSettings,
        openvpn_exporter::ExporterArgs,
        openvpn_server::ServerArgs,
        webhook::WebhookSettings,
    },
};
pub use hpa::HpaCommand;

/// Assigns the slots of VPN accounts to Pods.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,

    /// Port for `/healthz`, `/readyz` and `/metrics`, on all addresses. No server without it.
    #[arg(long, env = "METRICS_PORT", global = true)]
    pub metrics_port: Option<u16>,

    /// Prefix of the names of metrics, followed by an underscore.
    #[arg(long, env = "METRICS_PREFIX", default_value = "vpno", value_parser = parse_prefix, global = true)]
    pub metrics_prefix: String,

    /// Elect a leader among the processes with the same controllers. The others stand by.
    #[arg(long, env = "LEADER_ELECT", global = true)]
    pub leader_elect: bool,

    /// Namespace of the lease. Default: that of the Pod, or of the current context in the kubeconfig.
    #[arg(long, env = "POD_NAMESPACE", global = true)]
    pub lease_namespace: Option<String>,

    /// Settings of verifications.
    #[command(flatten)]
    pub verification: VerificationArgs,

    /// Settings of the webhook.
    #[command(flatten)]
    pub webhook: WebhookArgs,

    /// Settings of the metrics API.
    #[command(flatten)]
    pub metrics_api: MetricsApiArgs,

    /// Settings of OpenVPN servers.
    #[command(flatten)]
    pub servers: ServersArgs,

    /// Format of the logs.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text", global = true)]
    pub log_format: LogFormat,
}

/// Settings of verifications, for `manage-providers` and `manage-all`.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Verification")]
pub struct VerificationArgs {
    /// Image of gluetun, or a compatible one.
    #[arg(long, env = "VERIFY_VPN_IMAGE", default_value = VPN_IMAGE, global = true)]
    pub verify_vpn_image: String,

    /// Image with `sh` and `curl`, to read the address without the VPN.
    #[arg(long, env = "VERIFY_INIT_IMAGE", default_value = CURL_IMAGE, global = true)]
    pub verify_init_image: String,

    /// Image with `sh` and `curl`, to read the address through the VPN.
    #[arg(long, env = "VERIFY_PROBE_IMAGE", default_value = CURL_IMAGE, global = true)]
    pub verify_probe_image: String,

    /// URLs that respond with just the address of the caller, tried in this order.
    #[arg(long, env = "VERIFY_IP_SERVICES", default_value = IP_SERVICES, value_delimiter = ',', global = true)]
    pub verify_ip_services: Vec<String>,

    /// Timeout for connecting, unless a MaskProvider sets its own.
    #[arg(long, env = "VERIFY_TIMEOUT", default_value = "60s", value_parser = parse_duration, global = true)]
    pub verify_timeout: Duration,

    /// Timeout for scheduling the Pod and pulling its images.
    #[arg(long, env = "VERIFY_SCHEDULING_TIMEOUT", default_value = "5m", value_parser = parse_duration, global = true)]
    pub verify_scheduling_timeout: Duration,

    /// Resources of the containers `init`, `vpn` and `probe`, as a JSON object with ResourceRequirements for each.
    #[arg(long, env = "VERIFY_RESOURCES", default_value = "{}", value_parser = parse_resources, global = true)]
    pub verify_resources: Resources,
}

/// Settings of OpenVPN servers, for `manage-servers` and `manage-all`.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "OpenVPN servers")]
pub struct ServersArgs {
    /// Whether `manage-all` runs OpenVPNServers. It needs permissions and custom resource definitions of its own.
    #[arg(long, env = "SERVERS", default_value_t = false, action = clap::ArgAction::Set, global = true)]
    pub servers: bool,

    /// Image of OpenVPN servers, unless an OpenVPNServer names its own.
    #[arg(long, env = "OPENVPN_IMAGE", default_value = SERVER_IMAGE, global = true)]
    pub openvpn_image: String,
}

impl From<ServersArgs> for servers::Settings {
    fn from(args: ServersArgs) -> Self {
        Self { image: args.openvpn_image }
    }
}

/// Settings of the webhook, for `serve-webhook` and `manage-all`.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Injection")]
pub struct WebhookArgs {
    /// Whether `manage-all` serves Pods with the label `vpn.beebs.dev/inject`.
    #[arg(long, env = "INJECTION", default_value_t = true, action = clap::ArgAction::Set, global = true)]
    pub injection: bool,

    /// Port for the webhook. Without it, `manage-all` serves no webhook, and `serve-webhook` uses 8443.
    #[arg(long, env = "WEBHOOK_PORT", global = true)]
    pub webhook_port: Option<u16>,

    /// Names of the webhook's server, for its certificate. Without any, something else keeps the Secret and the CA in
    /// the MutatingWebhookConfiguration, such as cert-manager.
    #[arg(long, env = "WEBHOOK_NAMES", value_delimiter = ',', global = true)]
    pub webhook_names: Vec<String>,

    /// Secret with the webhook's certificate, in the namespace of the lease.
    #[arg(long, env = "WEBHOOK_SECRET", default_value = "vpn-operator-webhook", global = true)]
    pub webhook_secret: String,

    /// Name of the MutatingWebhookConfiguration.
    #[arg(long, env = "WEBHOOK_CONFIGURATION", default_value = "vpn-operator", global = true)]
    pub webhook_configuration: String,

    /// Image of the sidecar.
    #[arg(long, env = "INJECTION_IMAGE", default_value = VPN_IMAGE, global = true)]
    pub injection_image: String,

    /// Resources of the sidecar, as JSON.
    #[arg(long, env = "INJECTION_RESOURCES", value_parser = injection::parse_resources, global = true)]
    pub injection_resources: Option<ResourceRequirements>,

    /// Networks that injected Pods reach outside of the VPN, such as those of the cluster's Pods and Services.
    #[arg(long, env = "INJECTION_OUTBOUND_SUBNETS", value_delimiter = ',', global = true)]
    pub injection_outbound_subnets: Vec<ipnet::IpNet>,
}

/// The port of `serve-webhook`.
const WEBHOOK_PORT: u16 = 8443;

impl WebhookArgs {
    /// Returns the settings of the webhook, unless there is none in this process.
    pub fn settings(&self, command: &Command, namespace: &str) -> Option<WebhookSettings> {
        let port = match command {
            Command::ServeWebhook => self.webhook_port.unwrap_or(WEBHOOK_PORT),
            Command::ManageAll => self.webhook_port?,
            _ => return None,
        };
        Some(WebhookSettings {
            port,
            defaults: Defaults {
                image: self.injection_image.clone(),
                resources: self.injection_resources.clone(),
                outbound_subnets: self.injection_outbound_subnets.iter().map(ToString::to_string).collect(),
            },
            certificate: CertificateSource {
                server: WEBHOOK,
                namespace: namespace.to_owned(),
                secret: self.webhook_secret.clone(),
                names: self.webhook_names.iter().filter(|name| !name.is_empty()).cloned().collect(),
                clients: vec![CaTarget::Webhook(self.webhook_configuration.clone())],
            },
        })
    }
}

/// Settings of the metrics API, for `serve-metrics-api` and `manage-all`.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Metrics API")]
pub struct MetricsApiArgs {
    /// Port for the metrics API. Without it, `manage-all` serves no metrics API, and `serve-metrics-api` uses 8444.
    #[arg(long, env = "METRICS_API_PORT", global = true)]
    pub metrics_api_port: Option<u16>,

    /// Serve `custom.metrics.k8s.io`.
    #[arg(long, env = "METRICS_API_CUSTOM", global = true)]
    pub metrics_api_custom: bool,

    /// Serve `external.metrics.k8s.io`.
    #[arg(long, env = "METRICS_API_EXTERNAL", global = true)]
    pub metrics_api_external: bool,

    /// Serve the capacity of the cluster, as metrics of Services in `custom.metrics.k8s.io`. It watches all Nodes and
    /// Pods.
    #[arg(long, env = "METRICS_API_CAPACITY", global = true)]
    pub metrics_api_capacity: bool,

    /// Names of the metrics API's server, for its certificate. Without any, something else keeps the Secret and the CA
    /// in the APIServices, such as cert-manager.
    #[arg(long, env = "METRICS_API_NAMES", value_delimiter = ',', global = true)]
    pub metrics_api_names: Vec<String>,

    /// Workloads whose claimable slots `/metrics` shows, as labels: `namespace=media,workload=downloader`, and optionally
    /// `resource` (default `deployments.apps`), `tag`, `reserve` and `priority`. Several are separated by semicolons.
    #[arg(long, env = "METRICS_API_CLAIMS", value_delimiter = ';', value_parser = parse_claim, global = true)]
    pub metrics_api_claims: Vec<Claim>,

    /// Secret with the certificate of the metrics API, in the namespace of the lease.
    #[arg(long, env = "METRICS_API_SECRET", default_value = "vpn-operator-metrics-api", global = true)]
    pub metrics_api_secret: String,
}

/// The port of `serve-metrics-api`.
const METRICS_API_PORT: u16 = 8444;

impl MetricsApiArgs {
    /// Returns the settings of the metrics API, unless there is none in this process.
    pub fn settings(&self, command: &Command, namespace: &str, prefix: &str) -> Option<MetricsApiSettings> {
        let port = match command {
            Command::ServeMetricsApi => self.metrics_api_port.unwrap_or(METRICS_API_PORT),
            Command::ManageAll => self.metrics_api_port?,
            _ => return None,
        };
        let groups = Groups { custom: self.metrics_api_custom, external: self.metrics_api_external };
        let services = groups.iter().flat_map(|group| {
            let versions = group.versions().iter();
            versions.map(move |version| CaTarget::ApiService(format!("{version}.{}", group.name())))
        });
        Some(MetricsApiSettings {
            port,
            groups,
            prefix: prefix.to_owned(),
            capacity: self.metrics_api_capacity,
            certificate: CertificateSource {
                server: METRICS_API,
                namespace: namespace.to_owned(),
                secret: self.metrics_api_secret.clone(),
                names: self.metrics_api_names.iter().filter(|name| !name.is_empty()).cloned().collect(),
                clients: services.collect(),
            },
        })
    }
}

/// Resources by container.
pub type Resources = BTreeMap<String, ResourceRequirements>;

fn parse_resources(text: &str) -> Result<Resources, String> {
    let all: Resources = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match all.keys().find(|name| !["init", "vpn", "probe"].contains(&&***name)) {
        Some(unknown) => Err(format!("unknown container {unknown:?}: expected init, vpn or probe")),
        None => Ok(all),
    }
}

impl From<VerificationArgs> for Settings {
    fn from(args: VerificationArgs) -> Self {
        Self {
            vpn_image: args.verify_vpn_image,
            init_image: args.verify_init_image,
            probe_image: args.verify_probe_image,
            ip_services: args.verify_ip_services,
            timeout: args.verify_timeout,
            scheduling_timeout: args.verify_scheduling_timeout,
            resources: args.verify_resources,
        }
    }
}

/// Format of the logs. The environment variable `RUST_LOG` sets the level (default `info`).
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum LogFormat {
    /// Plain text.
    Text,
    /// One JSON object per line.
    Json,
}

/// The commands: each controller in its own process, or all controllers in one.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Create a MaskConsumer for each Mask, and update the status of the Mask.
    ManageMasks,
    /// Verify MaskProviders, update their status, and keep them until their slots are released.
    ManageProviders,
    /// Assign slots to MaskConsumers, and release them.
    ManageConsumers,
    /// Update the status of MaskReservations, and delete them after their MaskConsumer.
    ManageReservations,
    /// Give each Pod with the label `vpn.beebs.dev/inject` a Mask, and remove its scheduling gate when the slot is assigned.
    ManagePods,
    /// Run OpenVPNServers, and issue, renew and revoke the certificates of OpenVPNClients.
    ManageServers,
    /// Serve the webhook that adds the VPN to Pods with the label `vpn.beebs.dev/inject`.
    ServeWebhook,
    /// Serve the metrics API for HorizontalPodAutoscalers.
    ServeMetricsApi,
    /// Serve a metric with a value that anybody sets, to try a HorizontalPodAutoscaler without an account: `GET` and
    /// `POST /value`, and `/metrics`.
    FakeMetric {
        /// The port, on all addresses.
        #[arg(long, default_value_t = 8080)]
        port: u16,
    },
    /// Run OpenVPN as the first process of a container: forwarding, sessions of revoked clients, and the end.
    OpenvpnServer(ServerArgs),
    /// Serve metrics of an OpenVPN server, with the names and flags of `openvpn_exporter`.
    OpenvpnExporter(ExporterArgs),
    /// Run all controllers in one process.
    #[command(visible_alias = "run")]
    ManageAll,
    /// Remove the operator's finalizer from all Masks, MaskConsumers, MaskReservations and MaskProviders, and exit. Use
    /// it if the operator is uninstalled and the deletion of objects hangs. Nothing protects the slots after that.
    RemoveFinalizers,
    /// Check and simulate autoscalers that scale on slots. Needs no cluster.
    #[command(subcommand)]
    Hpa(HpaCommand),
}

impl Command {
    /// Returns the controllers to run. `manage-all` does not serve labeled Pods without `injection`, nor OpenVPNServers
    /// without `servers`.
    pub fn controllers(&self, injection: bool, servers: bool) -> ControllerSet {
        match self {
            Command::ManageAll => {
                let left_out = [(injection, pods::NAME), (servers, servers::NAME)];
                let left_out: Vec<_> = left_out.into_iter().filter(|(runs, _)| !runs).map(|(_, name)| name).collect();
                table::without(&left_out)
            }
            Command::RemoveFinalizers
            | Command::ServeWebhook
            | Command::FakeMetric { .. }
            | Command::OpenvpnServer(_)
            | Command::OpenvpnExporter(_)
            | Command::Hpa(_) => table::only(""),
            Command::ServeMetricsApi => observer::only(),
            one => table::only(one.name()),
        }
    }

    /// Returns the name of the process, for `User-Agent` and the log.
    pub fn name(&self) -> &'static str {
        match self {
            Command::ManageMasks => "masks",
            Command::ManageProviders => "providers",
            Command::ManageConsumers => "consumers",
            Command::ManageReservations => "reservations",
            Command::ManagePods => "pods",
            Command::ManageServers => "servers",
            Command::ServeWebhook => "webhook",
            Command::ServeMetricsApi => "metrics-api",
            Command::FakeMetric { .. } => "fake-metric",
            Command::OpenvpnServer(_) => "openvpn-server",
            Command::OpenvpnExporter(_) => "openvpn-exporter",
            Command::ManageAll => "all",
            Command::RemoveFinalizers => "remove-finalizers",
            Command::Hpa(_) => "hpa",
        }
    }

    /// Returns the name of the lease of processes with these controllers.
    pub fn lease(&self) -> &'static str {
        match self {
            Command::ManageMasks => "vpn-operator-masks",
            Command::ManageProviders => "vpn-operator-providers",
            Command::ManageConsumers => "vpn-operator-consumers",
            Command::ManageReservations => "vpn-operator-reservations",
            Command::ManagePods => "vpn-operator-pods",
            Command::ManageServers => "vpn-operator-servers",
            Command::ManageAll
            | Command::RemoveFinalizers
            | Command::ServeWebhook
            | Command::ServeMetricsApi
            | Command::FakeMetric { .. }
            | Command::OpenvpnServer(_)
            | Command::OpenvpnExporter(_)
            | Command::Hpa(_) => "vpn-operator",
        }
    }
}
