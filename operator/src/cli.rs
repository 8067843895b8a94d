//! The command line.

use std::{collections::BTreeMap, time::Duration};

use clap::{Args, Parser, Subcommand};
use k8s_openapi::api::core::v1::ResourceRequirements;
use vpn_types::parse_duration;

use crate::{
    controllers::verification::{CURL_IMAGE, IP_SERVICES, Settings, VPN_IMAGE},
    controllers::{ControllerSet, table},
    metrics::parse_prefix,
};

/// Hands out the slots of VPN accounts to Pods.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// What to run.
    #[command(subcommand)]
    pub command: Command,

    /// Port for `/healthz`, `/readyz` and `/metrics`, on all addresses. Absent: no server.
    #[arg(long, env = "METRICS_PORT", global = true)]
    pub metrics_port: Option<u16>,

    /// What stands before the name of each metric, with an underscore.
    #[arg(long, env = "METRICS_PREFIX", default_value = "vpno", value_parser = parse_prefix, global = true)]
    pub metrics_prefix: String,

    /// Let one of several processes with the same controllers work, and the others stand by.
    #[arg(long, env = "LEADER_ELECT", global = true)]
    pub leader_elect: bool,

    /// Namespace of the lease. Default: that of the Pod, or of the kubeconfig's current context.
    #[arg(long, env = "POD_NAMESPACE", global = true)]
    pub lease_namespace: Option<String>,

    /// What verifications are made of.
    #[command(flatten)]
    pub verification: VerificationArgs,

    /// How to write logs.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text", global = true)]
    pub log_format: LogFormat,
}

/// What verifications are made of: for `manage-providers` and `manage-all`.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Verification")]
pub struct VerificationArgs {
    /// Image of gluetun, or one with its interface.
    #[arg(long, env = "VERIFY_VPN_IMAGE", default_value = VPN_IMAGE, global = true)]
    pub verify_vpn_image: String,

    /// Image with `sh` and `curl` that reads the address without the VPN.
    #[arg(long, env = "VERIFY_INIT_IMAGE", default_value = CURL_IMAGE, global = true)]
    pub verify_init_image: String,

    /// Image with `sh` and `curl` that reads the address through the VPN.
    #[arg(long, env = "VERIFY_PROBE_IMAGE", default_value = CURL_IMAGE, global = true)]
    pub verify_probe_image: String,

    /// URLs that answer with nothing but the caller's address, tried in this order.
    #[arg(long, env = "VERIFY_IP_SERVICES", default_value = IP_SERVICES, value_delimiter = ',', global = true)]
    pub verify_ip_services: Vec<String>,

    /// How long connecting may take where a MaskProvider does not say.
    #[arg(long, env = "VERIFY_TIMEOUT", default_value = "60s", value_parser = parse_duration, global = true)]
    pub verify_timeout: Duration,

    /// How long scheduling the Pod and pulling its images may take.
    #[arg(long, env = "VERIFY_SCHEDULING_TIMEOUT", default_value = "5m", value_parser = parse_duration, global = true)]
    pub verify_scheduling_timeout: Duration,

    /// Resources of the containers `init`, `vpn` and `probe`: a JSON object with a ResourceRequirements for each.
    #[arg(long, env = "VERIFY_RESOURCES", default_value = "{}", value_parser = parse_resources, global = true)]
    pub verify_resources: Resources,
}

/// Resources by container.
pub type Resources = BTreeMap<String, ResourceRequirements>;

fn parse_resources(text: &str) -> Result<Resources, String> {
    let all: Resources = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match all.keys().find(|name| !["init", "vpn", "probe"].contains(&&***name)) {
        Some(unknown) => Err(format!("{unknown:?} is none of init, vpn, probe")),
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

/// Form of the logs. What is logged is set by the environment variable `RUST_LOG` (default `info`).
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The controllers, one process each or all in one.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Command {
    /// Make a MaskConsumer for each Mask, and keep the Mask's status up to date.
    ManageMasks,
    /// Verify MaskProviders, keep their status up to date, and hold them until their slots are back.
    ManageProviders,
    /// Assign slots to MaskConsumers, and take them back.
    ManageConsumers,
    /// Keep the status of MaskReservations up to date, and free them when their MaskConsumer is gone.
    ManageReservations,
    /// Run all controllers in one process.
    #[command(visible_alias = "run")]
    ManageAll,
    /// Take the operator's finalizer off all Masks, MaskConsumers, MaskReservations and MaskProviders, and exit. For
    /// when the operator is uninstalled and objects hang in deletion: nothing guards the slots after that.
    RemoveFinalizers,
}

impl Command {
    /// The controllers to run.
    pub fn controllers(self) -> ControllerSet {
        match self {
            Command::ManageAll => table::all(),
            Command::RemoveFinalizers => table::only(""),
            one => table::only(one.name()),
        }
    }

    /// Name of the process in `User-Agent`.
    pub fn name(self) -> &'static str {
        match self {
            Command::ManageMasks => "masks",
            Command::ManageProviders => "providers",
            Command::ManageConsumers => "consumers",
            Command::ManageReservations => "reservations",
            Command::ManageAll => "all",
            Command::RemoveFinalizers => "remove-finalizers",
        }
    }

    /// Name of the lease that processes with these controllers compete for.
    pub fn lease(self) -> &'static str {
        match self {
            Command::ManageMasks => "vpn-operator-masks",
            Command::ManageProviders => "vpn-operator-providers",
            Command::ManageConsumers => "vpn-operator-consumers",
            Command::ManageReservations => "vpn-operator-reservations",
            Command::ManageAll | Command::RemoveFinalizers => "vpn-operator",
        }
    }
}
