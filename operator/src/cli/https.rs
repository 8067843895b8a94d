//! Settings of the HTTPS servers: the webhook and the metrics API.

use clap::Args;
use k8s_openapi::api::core::v1::ResourceRequirements;

use super::{command::Command, pass_through::PassThroughArgs};
use crate::{
    controllers::verification::VPN_IMAGE,
    injection::{self, Defaults},
    metrics::{Claim, METRICS_API, WEBHOOK},
    metrics_api::{request::Groups, values::parse_claim},
    runtime::{
        certificates::{CaTarget, CertificateSource},
        metrics_api::MetricsApiSettings,
        webhook::WebhookSettings,
    },
};

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

    /// Settings of the pass-through.
    #[command(flatten)]
    pub pass_through: PassThroughArgs,
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
            pass_through: self.pass_through.settings(groups, namespace),
        })
    }
}
