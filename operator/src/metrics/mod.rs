//! What Prometheus is told on `/metrics`.
//!
//! Invariant: labels come from closed sets, from namespaces, from MaskProviders and their tags; never from a Mask, a
//! MaskConsumer or a MaskReservation. Slots and Masks are shown from one [`Snapshot`], taken when asked, so a series
//! goes with its object and nothing is computed while nobody asks.

mod controllers;
mod gauges;
mod server;
mod snapshot;

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use prometheus::{
    Histogram, HistogramOpts, Registry, TextEncoder, core::Collector, process_collector::ProcessCollector,
};

pub use controllers::action;
pub use snapshot::{NamespaceMasks, ProviderSlots, Snapshot, TagSlots};

use crate::{
    controllers::{ControllerSet, table},
    model::{Counters, Operation, ReconcileRequest},
};
use controllers::ControllerMetrics;
use server::ServerMetrics;

/// How long Masks wait, in seconds: an assignment takes less than one, a slot may take a day to become free.
const WAITS: [f64; 13] = [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 10_800.0, 43_200.0, 86_400.0];

/// The metrics of one process.
pub struct Metrics {
    prefix: String,
    registry: Registry,
    controllers: Vec<(&'static str, ControllerMetrics)>,
    server: ServerMetrics,
    /// Shown with the snapshot only.
    assignment: Histogram,
}

impl Metrics {
    /// The metrics of a process that runs these controllers. `prefix` is put before each name, with an underscore; the
    /// usual `process_…` are without.
    ///
    /// # Errors
    /// When the prefix is none that a metric's name may begin with.
    pub fn new(prefix: &str, set: &ControllerSet) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let mut controllers = Vec::new();
        for controller in set.iter() {
            controllers.push((controller.name, ControllerMetrics::new(prefix, controller, &registry)?));
        }
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let assignment = HistogramOpts::new(
            "mask_assignment_duration_seconds",
            "Time from the creation of a MaskConsumer, which follows that of its Mask, until its slot is assigned. \
             Creation times are known to the second. Shown by the process that leads the consumers controller.",
        );
        Ok(Self {
            prefix: prefix.to_owned(),
            controllers,
            server: ServerMetrics::new(prefix, &registry)?,
            assignment: Histogram::with_opts(assignment.namespace(prefix).buckets(WAITS.to_vec()))?,
            registry,
        })
    }

    /// Counts what the engine just did. Assignments are counted by the process that leads.
    pub fn count(&self, counters: &Counters, leads: bool, now: DateTime<Utc>) {
        for (controller, metrics) in &self.controllers {
            metrics.reconciled(counters.reconciliations(controller));
        }
        for created in counters.assigned.iter().filter(|_| leads) {
            self.assignment.observe((now - created).as_seconds_f64().max(0.0));
        }
    }

    /// Counts a request that is about to be sent.
    pub fn requested(&self, work: &ReconcileRequest, op: &Operation) {
        if let Some(metrics) = self.of(work) {
            metrics.acts(op);
        }
    }

    /// Notes how long the API server took to answer a request, or we to give up on it.
    pub fn answered(&self, work: &ReconcileRequest, op: &Operation, took: Duration) {
        if let Some(metrics) = self.of(work) {
            metrics.took(op, took);
        }
    }

    /// Notes a request to the server of this process.
    pub fn served(&self, began: Instant) {
        self.server.served(began.elapsed());
    }

    /// What Prometheus gets, in its text format; slots and Masks only when there is a snapshot.
    ///
    /// # Errors
    /// When two metrics contradict each other, which only another prefix can bring about.
    pub fn encode(&self, snapshot: Option<&Snapshot>, now: DateTime<Utc>) -> prometheus::Result<String> {
        let mut families = self.registry.gather();
        if let Some(snapshot) = snapshot {
            families.extend(gauges::families(&self.prefix, snapshot, now)?);
            families.extend(self.assignment.collect());
            families.sort_by(|one, other| one.name().cmp(other.name()));
        }
        let text = TextEncoder::new().encode_to_string(&families)?;
        self.server.answered(text.len());
        Ok(text)
    }

    /// ReconcileRequest that is nobody's here is the first controller's: it asked for the kind.
    fn of(&self, work: &ReconcileRequest) -> Option<&ControllerMetrics> {
        let controller = table::controller_of(work).name;
        let own = self.controllers.iter().find(|(other, _)| *other == controller);
        own.or(self.controllers.first()).map(|(_, metrics)| metrics)
    }
}

/// Checks what is to stand before each metric's name.
///
/// # Errors
/// When it is empty or holds anything but letters, digits and underscores, or begins with a digit.
pub fn parse_prefix(prefix: &str) -> Result<String, String> {
    let starts_well = prefix.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if starts_well && prefix.chars().all(|other| other.is_ascii_alphanumeric() || other == '_') {
        return Ok(prefix.to_owned());
    }
    Err("a metric's name begins with a letter and holds letters, digits and underscores only".to_owned())
}
