//! The metrics of a server, in the text format of Prometheus.
//!
//! Names and labels are those of both generations of the exporter by kumina. Each combination of labels has one series:
//! sessions with the same labels are summed. The number of series is bounded, but the totals include all clients.

mod individuals;
#[cfg(test)]
mod tests;

use prometheus::{
    Encoder, GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
    core::{Atomic, Collector, GenericCounterVec, GenericGaugeVec},
};

pub use self::individuals::MAX_INDIVIDUALS;
use self::individuals::{Individuals, time};
use super::{killed::Killed, status::Status};

/// The metric with the number of connected clients.
pub const CONNECTED_CLIENTS: &str = "openvpn_server_connected_clients";

/// One server.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    /// The value of the label `status_path`.
    pub status_path: &'a str,
    /// The status, unless it is not known.
    pub status: Option<&'a Status>,
}

/// What is shown.
#[derive(Clone, Copy, Debug)]
pub struct Exposition<'a> {
    /// The servers, with different paths.
    pub servers: &'a [Server<'a>],
    /// The largest number of clients of a server, if it is known.
    pub max_clients: Option<u32>,
    /// Whether the Pod ends.
    pub draining: bool,
    /// The sessions that the agent ended, if there is an agent.
    pub killed: Option<Killed>,
    /// Whether clients have series of their own.
    pub individuals: bool,
}

impl Exposition<'_> {
    /// Writes the metrics.
    ///
    /// # Errors
    /// If a metric is malformed, which does not happen.
    pub fn encode(&self) -> prometheus::Result<Vec<u8>> {
        let registry = Registry::new();
        let families = Families::new(&registry)?;
        let mut individuals = Individuals::default();
        for server in self.servers {
            let path = &[server.status_path];
            families.up.with_label_values(path).set(server.status.is_some().into());
            families.draining.with_label_values(path).set(self.draining.into());
            if let Some(max_clients) = self.max_clients {
                families.max_clients.with_label_values(path).set(max_clients.into());
            }
            if let Some(status) = server.status {
                families.totals(server.status_path, status);
                if self.individuals {
                    individuals.add(server.status_path, status);
                }
            }
        }
        for (reason, sessions) in self.killed.iter().flat_map(Killed::by_reason) {
            families.killed.with_label_values(&[reason]).inc_by(sessions);
        }
        let mut all = registry.gather();
        all.extend(individuals.families());
        let mut text = Vec::new();
        TextEncoder::new().encode(&all, &mut text)?;
        Ok(text)
    }
}

struct Families {
    up: IntGaugeVec,
    updated: GaugeVec,
    connected: IntGaugeVec,
    /// The name of the same number up to version 0.2 of that exporter.
    connected_before: IntGaugeVec,
    pending: IntGaugeVec,
    max_clients: IntGaugeVec,
    draining: IntGaugeVec,
    killed: IntCounterVec,
}

impl Families {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let path = &["status_path"];
        let connected = "Number of clients that have authenticated.";
        Ok(Self {
            up: gauge(registry, "openvpn_up", "Whether the status of OpenVPN is known.", path)?,
            updated: gauge(
                registry,
                "openvpn_status_update_time_seconds",
                "Time at which OpenVPN wrote its status, in seconds since 1970.",
                path,
            )?,
            connected: gauge(registry, CONNECTED_CLIENTS, connected, path)?,
            connected_before: gauge(registry, "openvpn_openvpn_server_connected_clients", connected, path)?,
            pending: gauge(
                registry,
                "openvpn_server_pending_clients",
                "Number of clients that have not authenticated yet.",
                path,
            )?,
            max_clients: gauge(registry, "openvpn_server_max_clients", "Largest number of clients.", path)?,
            draining: gauge(
                registry,
                "openvpn_server_draining",
                "Whether the Pod ends, and waits for its sessions to end.",
                path,
            )?,
            killed: counter(
                registry,
                "openvpn_server_sessions_killed_total",
                "Number of sessions that the agent ended, by reason: revoked, drain or duplicate.",
                &["reason"],
            )?,
        })
    }

    fn totals(&self, path: &str, status: &Status) {
        let path = &[path];
        self.updated.with_label_values(path).set(time(status.updated));
        let connected = integer(status.connected());
        self.connected.with_label_values(path).set(connected);
        self.connected_before.with_label_values(path).set(connected);
        self.pending.with_label_values(path).set(integer(status.pending));
    }
}

fn gauge<P>(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GenericGaugeVec<P>>
where
    P: Atomic + 'static,
    GenericGaugeVec<P>: Collector,
{
    let family = GenericGaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

fn counter<P>(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GenericCounterVec<P>>
where
    P: Atomic + 'static,
    GenericCounterVec<P>: Collector,
{
    let family = GenericCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

fn integer(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
