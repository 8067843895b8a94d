//! Counters and durations of one controller. The names are those of vpn-operator 1.0.1. The labels differ: there each
//! series named an object, and outlived it.

use std::time::Duration;

use prometheus::{CounterVec, HistogramOpts, HistogramVec, IntCounter, Opts, Registry};

use crate::{
    controllers::Controller,
    model::{Kind, NewObject, Operation},
};

/// Buckets for durations of requests, in seconds. Most take milliseconds; the deadline is 5 s.
const DURATIONS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The metrics of one controller.
pub struct ControllerMetrics {
    reconciliations: IntCounter,
    actions: CounterVec,
    reads: HistogramVec,
    writes: HistogramVec,
}

impl ControllerMetrics {
    /// Creates and registers the metrics.
    pub fn new(prefix: &str, controller: &Controller, registry: &Registry) -> prometheus::Result<Self> {
        let named = |what: &str| format!("{}_{what}", controller.name);
        let durations = |what: &str, help: &str| {
            let opts = HistogramOpts::new(named(what), help).namespace(prefix).buckets(DURATIONS.to_vec());
            HistogramVec::new(opts, &["action"])
        };
        let help = "Reconciliations by this controller.";
        let reconciliations = IntCounter::with_opts(Opts::new(named("reconcile_counter"), help).namespace(prefix))?;
        let help = "Requests from this controller to the API server, by action.";
        let actions = CounterVec::new(Opts::new(named("action_counter"), help).namespace(prefix), &["action"])?;
        let help = "Duration of read requests, including those that timed out after 5 s.";
        let reads = durations("read_duration_seconds", help)?;
        let help = "Duration of write requests, including those that timed out after 5 s.";
        let writes = durations("write_duration_seconds", help)?;
        registry.register(Box::new(reconciliations.clone()))?;
        registry.register(Box::new(actions.clone()))?;
        registry.register(Box::new(reads.clone()))?;
        registry.register(Box::new(writes.clone()))?;
        // Every series exists from the start, with the value 0. A missing series would look like a failed scrape.
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

    /// Counts reconciliations.
    pub fn reconciled(&self, times: u64) {
        self.reconciliations.inc_by(times);
    }

    /// Counts a request.
    pub fn requested(&self, operation: &Operation) {
        self.actions.with_label_values(&[action(operation)]).inc();
    }

    /// Records the duration of a request.
    pub fn answered(&self, operation: &Operation, duration: Duration) {
        let durations = if operation.is_read() { &self.reads } else { &self.writes };
        durations.with_label_values(&[action(operation)]).observe(duration.as_secs_f64());
    }
}

/// Returns the label `action` of a request, from a closed set.
pub fn action(operation: &Operation) -> &'static str {
    match operation {
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
            Kind::Server => "UpdateOpenVPNServerStatus",
            Kind::Client => "UpdateOpenVPNClientStatus",
            _ => "UpdateStatus",
        },
        Operation::Patch(kind, ..) | Operation::JsonPatch(kind, ..) => match kind {
            Kind::Mask => "UpdateMask",
            Kind::Consumer => "UpdateMaskConsumer",
            Kind::Reservation => "UpdateMaskReservation",
            Kind::Provider => "UpdateMaskProvider",
            Kind::Secret | Kind::ServerSecret => "UpdateSecret",
            Kind::Pod | Kind::InjectedPod | Kind::ServerPod => "UpdatePod",
            Kind::Server => "UpdateOpenVPNServer",
            Kind::Client => "UpdateOpenVPNClient",
            Kind::ConfigMap | Kind::Service | Kind::Deployment | Kind::PodDisruptionBudget => "UpdateServerObject",
        },
        Operation::Issue(issue) if issue.replaces.is_none() => "CreateSecret",
        Operation::Issue(_) | Operation::Apply(Kind::ServerSecret, ..) => "UpdateSecret",
        Operation::Apply(Kind::Provider, ..) => "ApplyMaskProvider",
        Operation::Apply(Kind::Client, ..) => "ApplyOpenVPNClient",
        Operation::Apply(..) | Operation::Share(..) => "ApplyServerObject",
        Operation::Delete { kind, .. } => match kind {
            Kind::Mask => "DeleteMask",
            Kind::Consumer => "DeleteMaskConsumer",
            Kind::Reservation => "DeleteMaskReservation",
            Kind::Provider => "DeleteMaskProvider",
            Kind::Secret | Kind::ServerSecret => "DeleteSecret",
            Kind::Pod | Kind::InjectedPod | Kind::ServerPod => "DeletePod",
            Kind::Server => "DeleteOpenVPNServer",
            Kind::Client => "DeleteOpenVPNClient",
            Kind::ConfigMap | Kind::Service | Kind::Deployment | Kind::PodDisruptionBudget => "DeleteServerObject",
        },
        Operation::Get(kind, _) => match kind {
            Kind::Mask => "GetMask",
            Kind::Consumer => "GetMaskConsumer",
            Kind::Reservation => "GetMaskReservation",
            Kind::Provider => "GetMaskProvider",
            Kind::Secret | Kind::ServerSecret => "GetSecret",
            Kind::Pod | Kind::InjectedPod | Kind::ServerPod => "GetPod",
            Kind::Server => "GetOpenVPNServer",
            Kind::Client => "GetOpenVPNClient",
            Kind::ConfigMap | Kind::Service | Kind::Deployment | Kind::PodDisruptionBudget => "GetServerObject",
        },
        Operation::ListPods(_) => "ListPods",
        Operation::ListReplicaSets(_) => "ListReplicaSets",
        Operation::CountClients(..) => "CountClients",
        Operation::PatchPodStatus(..) => "UpdatePodStatus",
        Operation::Evict(..) => "EvictPod",
    }
}
