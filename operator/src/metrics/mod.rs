//! The metrics on `/metrics`.
//!
//! Invariant: the values of labels come from closed sets, namespaces, MaskProviders and their tags, never from Masks,
//! MaskConsumers, MaskReservations or Pods. A [`Snapshot`], taken at each scrape, provides the numbers of slots, Masks and
//! Pods. So no series outlives its object, and there is no cost without scrapes.

mod claimable;
mod controllers;
mod gated;
mod gauges;
mod occupied;
mod openvpn;
mod provider_slots;
mod server;
mod snapshot;
mod workloads;

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use prometheus::{
    Histogram, HistogramOpts, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
    process_collector::ProcessCollector,
};

pub use claimable::Claim;
pub use controllers::action;
pub use gated::{GateReason, GatedPods};
pub use gauges::{PROVIDER, ProviderGauge};
pub use provider_slots::ProviderSlots;
pub use snapshot::{NamespaceMasks, Snapshot, TagSlots};
pub use workloads::{Waiting, WorkloadKey};

use crate::{
    controllers::{ControllerSet, consumers, observer, table},
    model::{Counters, Operation, ReconcileRequest},
};
use controllers::ControllerMetrics;
use server::ServerMetrics;

/// Buckets for the wait for a slot, in seconds. An assignment takes less than one, but slots may be in use for days.
const WAITS: [f64; 13] = [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 10_800.0, 43_200.0, 86_400.0];

/// Buckets for decisions.
const DECISIONS: [f64; 9] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

/// The webhook, as a server with a certificate.
pub const WEBHOOK: &str = "webhook";
/// The metrics API, as a server with a certificate.
pub const METRICS_API: &str = "metrics API";

/// The metrics of one process.
pub struct Metrics {
    prefix: String,
    registry: Registry,
    controllers: Vec<(&'static str, ControllerMetrics)>,
    server: ServerMetrics,
    /// By server. Exported only by a process with such a server.
    certificate_expiry: [(&'static str, IntGauge); 2],
    /// By API group. Exported only by a metrics API in front of another server.
    pass_through: IntGaugeVec,
    /// Exported only together with a snapshot.
    assignment: Histogram,
    /// Exported only by a process with controllers.
    decisions: Histogram,
    /// Workloads whose claimable slots are exported.
    claims: Vec<Claim>,
}

impl Metrics {
    /// Creates the metrics of a process with these controllers. Each name starts with `prefix` and an underscore,
    /// except the standard `process_…`.
    ///
    /// # Errors
    /// Returns an error if the name of a metric cannot start with the prefix.
    pub fn new(prefix: &str, set: &ControllerSet) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let mut controllers = Vec::new();
        // An observer sends no requests.
        for controller in set.iter().filter(|controller| controller.name != observer::NAME) {
            controllers.push((controller.name, ControllerMetrics::new(prefix, controller, &registry)?));
        }
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let assignment = HistogramOpts::new(
            "mask_assignment_duration_seconds",
            "Time from the creation of a MaskConsumer, shortly after that of its Mask, to the assignment of its slot. \
             Creation times have a resolution of one second. Exported by the leader of the consumers controller.",
        );
        let decisions = HistogramOpts::new(
            "decision_duration_seconds",
            "How long the controllers of this process took to decide what follows from the latest changes. They decide \
             nothing else meanwhile.",
        );
        let decisions = Histogram::with_opts(decisions.namespace(prefix).buckets(DECISIONS.to_vec()))?;
        if !controllers.is_empty() {
            registry.register(Box::new(decisions.clone()))?;
        }
        let certificate_expiry = |(server, name): (&'static str, &str)| {
            let help =
                format!("When the certificate of the {server} ends, in seconds since 1970. Exported by the {server}.");
            let opts = Opts::new(format!("{name}_certificate_expiry_timestamp_seconds"), help);
            IntGauge::with_opts(opts.namespace(prefix)).map(|gauge| (server, gauge))
        };
        let pass_through = Opts::new(
            "metrics_api_pass_through_up",
            "Whether the server that the metrics API stands in front of answers. Exported by the metrics API.",
        );
        Ok(Self {
            pass_through: IntGaugeVec::new(pass_through.namespace(prefix), &["group"])?,
            prefix: prefix.to_owned(),
            controllers,
            server: ServerMetrics::new(prefix, &registry)?,
            certificate_expiry: [
                certificate_expiry((WEBHOOK, "webhook"))?,
                certificate_expiry((METRICS_API, "metrics_api"))?,
            ],
            assignment: Histogram::with_opts(assignment.namespace(prefix).buckets(WAITS.to_vec()))?,
            decisions,
            claims: Vec::new(),
            registry,
        })
    }

    /// Exports the claimable slots of these workloads too.
    #[must_use]
    pub fn with_claims(self, claims: Vec<Claim>) -> Self {
        Self { claims, ..self }
    }

    /// Adds the counters of the engine. Only the leader counts assignments.
    pub fn count(&self, counters: &Counters, leads: bool, now: DateTime<Utc>) {
        for (controller, metrics) in &self.controllers {
            metrics.reconciled(counters.reconciliations(controller));
        }
        for created in counters.assigned.iter().filter(|_| leads) {
            self.assignment.observe((now - created).as_seconds_f64().max(0.0));
        }
    }

    /// Records how long the decisions after some changes took.
    pub fn decided(&self, duration: Duration) {
        self.decisions.observe(duration.as_secs_f64());
    }

    /// Counts a request that is about to be sent.
    pub fn requested(&self, request: &ReconcileRequest, operation: &Operation) {
        if let Some(metrics) = self.of(request) {
            metrics.requested(operation);
        }
    }

    /// Records the duration of a request, up to the response or the timeout.
    pub fn answered(&self, request: &ReconcileRequest, operation: &Operation, duration: Duration) {
        if let Some(metrics) = self.of(request) {
            metrics.answered(operation, duration);
        }
    }

    /// Records a request to the HTTP server of this process.
    pub fn served(&self, started: Instant) {
        self.server.served(started.elapsed());
    }

    /// Records when the certificate of a server ends, in seconds since 1970.
    pub fn certificate_ends(&self, server: &str, at: i64) {
        for (_, gauge) in self.certificate_expiry.iter().filter(|(of, _)| *of == server) {
            gauge.set(at);
            // Fails if it is registered already.
            let _ = self.registry.register(Box::new(gauge.clone()));
        }
    }

    /// Records whether the server that the metrics API stands in front of answers.
    pub fn set_pass_through_up(&self, group: &str, up: bool) {
        self.pass_through.with_label_values(&[group]).set(up.into());
        // Fails if it is registered already.
        let _ = self.registry.register(Box::new(self.pass_through.clone()));
    }

    /// Encodes the metrics in the text format of Prometheus. Those of slots and Masks need a snapshot.
    ///
    /// # Errors
    /// Returns an error if two metrics have the same name but different labels, which only a custom prefix can cause.
    pub fn encode(&self, snapshot: Option<&Snapshot>, now: DateTime<Utc>) -> prometheus::Result<String> {
        let mut families = self.registry.gather();
        if let Some(snapshot) = snapshot {
            families.extend(gauges::families(&self.prefix, snapshot, now)?);
            families.extend(gauges::claimable(&self.prefix, snapshot, &self.claims)?);
            families.extend(openvpn::families(&self.prefix, snapshot, now)?);
            if self.controllers.iter().any(|(name, _)| *name == consumers::NAME) {
                families.extend(self.assignment.collect());
            }
            families.sort_by(|one, other| one.name().cmp(other.name()));
        }
        let text = TextEncoder::new().encode_to_string(&families)?;
        self.server.set_response_size(text.len());
        Ok(text)
    }

    /// Returns the metrics of the controller that handles a request. If it does not run here, the first controller
    /// counts the request, because it watches the kind.
    fn of(&self, request: &ReconcileRequest) -> Option<&ControllerMetrics> {
        let controller = table::controller_of(request).name;
        let own = self.controllers.iter().find(|(other, _)| *other == controller);
        own.or(self.controllers.first()).map(|(_, metrics)| metrics)
    }
}

/// Parses the prefix of metric names.
///
/// # Errors
/// Returns an error if the prefix is empty, starts with a digit, or contains anything but ASCII letters, digits and
/// underscores.
pub fn parse_prefix(prefix: &str) -> Result<String, String> {
    let valid_start = prefix.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if valid_start && prefix.chars().all(|other| other.is_ascii_alphanumeric() || other == '_') {
        return Ok(prefix.to_owned());
    }
    Err("it has to start with a letter or an underscore, and to contain only letters, digits and underscores"
        .to_owned())
}
