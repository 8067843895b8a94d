//! The command line.

use clap::{Parser, Subcommand};

use crate::{engine::Roles, metrics::parse_prefix};

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

    /// How to write logs.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text", global = true)]
    pub log_format: LogFormat,
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
    /// Keep the status of MaskProviders up to date, and hold them until their slots are back.
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
    pub fn roles(self) -> Roles {
        let none = Roles { masks: false, consumers: false, reservations: false, providers: false };
        match self {
            Command::ManageMasks => Roles { masks: true, ..none },
            Command::ManageProviders => Roles { providers: true, ..none },
            Command::ManageConsumers => Roles { consumers: true, ..none },
            Command::ManageReservations => Roles { reservations: true, ..none },
            Command::ManageAll => Roles::ALL,
            Command::RemoveFinalizers => none,
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
