//! The command line.

mod command;
mod hpa;
mod https;
mod pass_through;

use std::{collections::BTreeMap, time::Duration};

use clap::{Args, Parser};
use k8s_openapi::api::core::v1::ResourceRequirements;
use vpn_types::parse_duration;

use crate::{
    controllers::servers::{self, SERVER_IMAGE},
    controllers::verification::{CURL_IMAGE, IP_SERVICES, Settings, VPN_IMAGE},
    metrics::parse_prefix,
};
pub use command::Command;
pub use hpa::HpaCommand;
pub use https::{MetricsApiArgs, WebhookArgs};

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
