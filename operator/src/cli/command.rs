//! The commands.

use clap::Subcommand;

use super::hpa::HpaCommand;
use crate::{
    controllers::{ControllerSet, observer, pods, servers, table},
    runtime::{openvpn_client::ClientCommand, openvpn_exporter::ExporterArgs, openvpn_server::ServerArgs},
};

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
    /// Create and revoke clients of an OpenVPN server, in a Pod of it.
    #[command(subcommand)]
    OpenvpnClient(ClientCommand),
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
            | Command::OpenvpnClient(_)
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
            Command::OpenvpnClient(_) => "openvpn-client",
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
            | Command::OpenvpnClient(_)
            | Command::OpenvpnExporter(_)
            | Command::Hpa(_) => "vpn-operator",
        }
    }
}
