//! Counts and durations of one controller. Names are those of vpn-operator 1.0.1; labels are not: there each series
//! named its object, and stayed when that was gone.

use std::time::Duration;

use prometheus::{CounterVec, HistogramOpts, HistogramVec, IntCounter, Opts, Registry};

use crate::{
    controllers::Controller,
    model::{Kind, NewObject, Operation},
};

/// Durations of requests, in seconds: one takes milliseconds, and none longer than its deadline of 5 s.
const DURATIONS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The metrics of one controller.
pub struct ControllerMetrics {
    reconciliations: IntCounter,
    actions: CounterVec,
    reads: HistogramVec,
    writes: HistogramVec,
}

impl ControllerMetrics {
    /// Registers them.
    pub fn new(prefix: &str, controller: &Controller, registry: &Registry) -> prometheus::Result<Self> {
        let named = |what: &str| format!("{}_{what}", controller.name);
        let durations = |what: &str, help: &str| {
            let opts = HistogramOpts::new(named(what), help).namespace(prefix).buckets(DURATIONS.to_vec());
            HistogramVec::new(opts, &["action"])
        };
        let help = "How often this controller looked at an object to decide what is to be done.";
        let reconciliations = IntCounter::with_opts(Opts::new(named("reconcile_counter"), help).namespace(prefix))?;
        let help = "Requests of this controller to the API server, by what they ask for.";
        let actions = CounterVec::new(Opts::new(named("action_counter"), help).namespace(prefix), &["action"])?;
        let help = "Duration of requests that read, until answered or given up after 5 s.";
        let reads = durations("read_duration_seconds", help)?;
        let help = "Duration of requests that write, until answered or given up after 5 s.";
        let writes = durations("write_duration_seconds", help)?;
        registry.register(Box::new(reconciliations.clone()))?;
        registry.register(Box::new(actions.clone()))?;
        registry.register(Box::new(reads.clone()))?;
        registry.register(Box::new(writes.clone()))?;
        // From the start, at 0: what is not there yet cannot be told from what is not scraped.
        for action in controller.reads {
            actions.get_metric_with_label_values(&[action])?;
            reads.get_metric_with_label_values(&[action])?;
        }
        for action in controller.writes {
            actions.get_metric_with_label_values(&[action])?;
            writes.get_metric_with_label_values(&[action])?;
        }
        Ok(Self { reconciliations, actions, reads, writes })
    }

    /// So many objects were looked at.
    pub fn reconciled(&self, times: u64) {
        self.reconciliations.inc_by(times);
    }

    /// A request is sent.
    pub fn acts(&self, op: &Operation) {
        self.actions.with_label_values(&[action(op)]).inc();
    }

    /// A request has ended.
    pub fn took(&self, op: &Operation, took: Duration) {
        let durations =
            if matches!(op, Operation::Get(..) | Operation::ListPods(_)) { &self.reads } else { &self.writes };
        durations.with_label_values(&[action(op)]).observe(took.as_secs_f64());
    }
}

/// What a request asks for: a closed set.
pub fn action(op: &Operation) -> &'static str {
    match op {
        Operation::Create(_, NewObject::Consumer(_)) => "CreateMaskConsumer",
        Operation::Create(_, NewObject::Reservation(_)) => "CreateMaskReservation",
        Operation::Create(_, NewObject::Secret(_)) => "CreateSecret",
        Operation::Create(_, NewObject::Mask(_)) => "CreateMask",
        Operation::Create(_, NewObject::Pod(_)) => "CreatePod",
        Operation::PatchStatus(kind, ..) => match kind {
            Kind::Mask => "UpdateMaskStatus",
            Kind::Consumer => "UpdateMaskConsumerStatus",
            Kind::Reservation => "UpdateMaskReservationStatus",
            Kind::Provider => "UpdateMaskProviderStatus",
            Kind::Secret | Kind::Pod => "UpdateStatus",
        },
        Operation::Patch(kind, ..) | Operation::JsonPatch(kind, ..) => match kind {
            Kind::Mask => "UpdateMask",
            Kind::Consumer => "UpdateMaskConsumer",
            Kind::Reservation => "UpdateMaskReservation",
            Kind::Provider => "UpdateMaskProvider",
            Kind::Secret => "UpdateSecret",
            Kind::Pod => "UpdatePod",
        },
        Operation::Delete { kind, .. } => match kind {
            Kind::Mask => "DeleteMask",
            Kind::Consumer => "DeleteMaskConsumer",
            Kind::Reservation => "DeleteMaskReservation",
            Kind::Provider => "DeleteMaskProvider",
            Kind::Secret => "DeleteSecret",
            Kind::Pod => "DeletePod",
        },
        Operation::Get(kind, _) => match kind {
            Kind::Mask => "GetMask",
            Kind::Consumer => "GetMaskConsumer",
            Kind::Reservation => "GetMaskReservation",
            Kind::Provider => "GetMaskProvider",
            Kind::Secret => "GetSecret",
            Kind::Pod => "GetPod",
        },
        Operation::ListPods(_) => "ListPods",
    }
}
