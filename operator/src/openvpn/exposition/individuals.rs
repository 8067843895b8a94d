//! The series of each client and route. There are thousands, so they do not go through a registry.

use std::collections::BTreeMap;

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use crate::openvpn::status::{Client, Status};

/// The largest number of clients, and of routes, of a status that have series of their own.
pub const MAX_INDIVIDUALS: usize = 1000;

// In the order of the alphabet, as all exporters write them.
const CLIENT_LABELS: [&str; 6] =
    ["common_name", "connection_time", "real_address", "status_path", "username", "virtual_address"];
const ROUTE_LABELS: [&str; 4] = ["common_name", "real_address", "status_path", "virtual_address"];

/// The series of clients and routes, by their labels.
#[derive(Default)]
pub(super) struct Individuals<'a> {
    /// Bytes received and sent.
    clients: BTreeMap<ClientLabels<'a>, (u64, u64)>,
    routes: BTreeMap<RouteLabels<'a>, i64>,
}

type ClientLabels<'a> = (&'a str, &'a str, i64, &'a str, &'a str, &'a str);
type RouteLabels<'a> = (&'a str, &'a str, &'a str, &'a str);

impl<'a> Individuals<'a> {
    pub(super) fn add(&mut self, path: &'a str, status: &'a Status) {
        // Those with the longest sessions, so that the choice is the same at each scrape.
        let mut clients: Vec<&Client> = status.clients.iter().collect();
        clients.sort_by_key(|client| (client.connected_since, client.id));
        for client in clients.into_iter().take(MAX_INDIVIDUALS) {
            let (real, virtual_address) = (&*client.real_address, &*client.virtual_address);
            let labels = (path, &*client.common_name, client.connected_since, real, virtual_address, &*client.username);
            let (received, sent) = self.clients.entry(labels).or_default();
            *received = received.saturating_add(client.received);
            *sent = sent.saturating_add(client.sent);
        }
        for route in status.routes.iter().take(MAX_INDIVIDUALS) {
            let labels = (path, &*route.common_name, &*route.real_address, &*route.virtual_address);
            let last = self.routes.entry(labels).or_insert(route.last_reference);
            *last = route.last_reference.max(*last);
        }
    }

    pub(super) fn families(&self) -> Vec<MetricFamily> {
        let (mut received, mut sent) = (Vec::new(), Vec::new());
        for ((path, name, since, real, virtual_address, username), bytes) in &self.clients {
            let labels = pairs(CLIENT_LABELS, [name, &since.to_string(), real, path, username, virtual_address]);
            received.push(count(labels.clone(), bytes.0));
            sent.push(count(labels, bytes.1));
        }
        let routes = self.routes.iter().map(|((path, name, real, virtual_address), last)| {
            let mut gauge = Gauge::default();
            gauge.set_value(time(*last));
            let mut metric = Metric::from_gauge(gauge);
            metric.set_label(pairs(ROUTE_LABELS, [name, real, path, virtual_address]));
            metric
        });
        let family = |name: &str, help: &str, kind: MetricType, series: Vec<Metric>| {
            let mut family = MetricFamily::default();
            family.set_name(name.into());
            family.set_help(help.into());
            family.set_field_type(kind);
            family.set_metric(series);
            family
        };
        let families = [
            family(
                "openvpn_server_client_received_bytes_total",
                "Number of bytes that the server received from a client.",
                MetricType::COUNTER,
                received,
            ),
            family(
                "openvpn_server_client_sent_bytes_total",
                "Number of bytes that the server sent to a client.",
                MetricType::COUNTER,
                sent,
            ),
            family(
                "openvpn_server_route_last_reference_time_seconds",
                "Time at which a route was last used, in seconds since 1970.",
                MetricType::GAUGE,
                routes.collect(),
            ),
        ];
        // One without series is malformed.
        families.into_iter().filter(|family| !family.get_metric().is_empty()).collect()
    }
}

fn pairs<const N: usize>(names: [&str; N], values: [&str; N]) -> Vec<LabelPair> {
    let pair = |(name, value): (&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    names.into_iter().zip(values).map(pair).collect()
}

/// Numbers of bytes are exact in a float up to eight petabytes.
#[allow(clippy::cast_precision_loss)]
fn count(labels: Vec<LabelPair>, bytes: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(bytes as f64);
    let mut metric = Metric::from_label(labels);
    metric.set_counter(counter);
    metric
}

/// Seconds since 1970 are exact in a float for millions of years.
#[allow(clippy::cast_precision_loss)]
pub(super) fn time(seconds: i64) -> f64 {
    seconds as f64
}
