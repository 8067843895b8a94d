//! Runs an autoscaler, second by second.
//!
//! Invariant: a sync sees the world before it acts, and metrics as they were `metric_delay` earlier.

use std::time::Duration;

use vpn_types::parse_duration;

use super::{
    autoscaler::{Autoscaler, Source},
    controller::{Controller, Settings},
    decision::{Limit, Observed},
    expression::{Definition, Formula, formula},
    keda::Activation,
    world::{Snapshot, World},
};

/// The longest simulation, in seconds.
const LONGEST: u64 = 7 * 24 * 3600;

/// The most slots, Masks or replicas.
const MOST: u32 = 100_000;

/// What is simulated beside the manifest.
#[derive(Clone, Debug)]
pub struct Options {
    /// Slots at the start.
    pub slots: u32,
    /// Replicas at the start. Default: the minimum, or the slots if these are scaled.
    pub start: Option<u32>,
    /// How long, in seconds.
    pub duration: u64,
    /// Time between two syncs of the controller, in seconds.
    pub sync_period: u64,
    /// Slots that the workload leaves. Default: the label `reserve` of the metric, or 0.
    pub reserve: Option<u32>,
    /// Time until a new Pod is ready and has a slot, in seconds.
    pub pod_delay: u64,
    /// Age of the metrics, in seconds.
    pub metric_delay: u64,
    /// What happens on the way.
    pub events: Vec<Event>,
    /// Metrics that the user defines.
    pub definitions: Vec<Definition>,
    /// Flags of kube-controller-manager.
    pub settings: Settings,
}

/// A change that does not come from the autoscaler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in seconds.
    pub at: u64,
    /// Whether the number is that of the slots instead of other Masks.
    pub slots: bool,
    /// The new number.
    pub value: u32,
}

/// Reads an event such as `10m=slots:30` or `5m=others:12`.
///
/// # Errors
/// What was expected.
pub fn parse_event(text: &str) -> Result<Event, String> {
    let expected =
        || format!("expected TIME=slots:NUMBER or TIME=others:NUMBER, such as 5m=others:12, but found {text:?}");
    let (time, change) = text.split_once('=').ok_or_else(expected)?;
    let (what, value) = change.split_once(':').ok_or_else(expected)?;
    let slots = match what {
        "slots" => true,
        "others" => false,
        _ => return Err(expected()),
    };
    let value = value.parse().ok().filter(|value| *value <= MOST).ok_or_else(expected)?;
    let at = parse_duration(time).map_err(|error| error.to_string()).and_then(seconds)?;
    Ok(Event { at, slots, value })
}

/// Returns a duration in seconds.
///
/// # Errors
/// If it has a fraction.
pub fn seconds(duration: Duration) -> Result<u64, String> {
    match duration.subsec_nanos() {
        0 => Ok(duration.as_secs()),
        _ => Err("expected whole seconds".into()),
    }
}

/// A change of the replicas.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// When, in seconds.
    pub at: u64,
    /// The replicas before.
    pub from: i32,
    /// The replicas after.
    pub to: i32,
    /// Why.
    pub why: String,
}

/// One sync.
#[derive(Clone, Debug, PartialEq)]
pub struct Sync {
    /// When, in seconds.
    pub at: u64,
    /// The replicas after it.
    pub replicas: i32,
    /// What the metrics asked for.
    pub wanted: Option<i32>,
    /// Which limit applied.
    pub limit: Option<Limit>,
    /// Why.
    pub why: String,
}

/// A finished simulation.
#[derive(Clone, Debug)]
pub struct Run {
    /// The numbers after each second, from 0 on.
    pub seconds: Vec<Snapshot>,
    /// The changes.
    pub changes: Vec<Change>,
    /// The syncs.
    pub syncs: Vec<Sync>,
    /// When the last event happened.
    pub last_event: u64,
    /// What was left out.
    pub notes: Vec<String>,
}

/// Simulates an autoscaler.
///
/// # Errors
/// If an option or the manifest makes no sense, or a metric is unknown.
pub fn simulate(autoscaler: &Autoscaler, options: &Options) -> Result<Run, String> {
    check(autoscaler, options)?;
    let simulated: Vec<_> = autoscaler.metrics.iter().filter(|metric| metric.source != Source::Other).collect();
    let formulas =
        simulated.iter().map(|metric| formula(&metric.name, &options.definitions)).collect::<Result<Vec<_>, _>>()?;
    let label = || {
        let labels = simulated.iter().flat_map(|metric| &metric.labels);
        labels.filter(|(key, _)| key == "reserve").find_map(|(_, value)| value.as_ref()?.parse().ok())
    };
    let reserve = options.reserve.or_else(label).unwrap_or(0);
    let provider = autoscaler.target.is_provider();
    let lowest = autoscaler.keda.as_ref().map_or(autoscaler.min, |keda| keda.min);
    let start = options.start.unwrap_or(if provider { options.slots } else { lowest.max(0) as u32 });
    let slots = if provider { start } else { options.slots };
    let mut world = World::new(slots, reserve, (!provider).then_some(start), options.pod_delay);
    let mut controller = Controller::new(autoscaler, options.settings);
    let mut activation = Activation::default();
    let mut run = Run { seconds: Vec::new(), changes: Vec::new(), syncs: Vec::new(), last_event: 0, notes: Vec::new() };
    let left_out = autoscaler.metrics.iter().filter(|metric| metric.source == Source::Other);
    let left_out: Vec<_> = left_out.map(|metric| metric.name.as_str()).collect();
    if !left_out.is_empty() {
        run.notes.push(format!("{}: left out, as if it never asked for more replicas.", left_out.join(", ")));
    }
    // KEDA has an activation value for each metric, the others too.
    let activations = autoscaler.keda.iter().flat_map(|keda| autoscaler.metrics.iter().zip(&keda.activations));
    let activations = activations.filter(|(metric, _)| metric.source != Source::Other);
    let activations: Vec<f64> = activations.map(|(_, value)| *value).collect();
    // What the metrics are taken from, before the actions of the same second.
    let mut seen: Vec<Snapshot> = Vec::new();
    for now in 0..=options.duration {
        for event in options.events.iter().filter(|event| event.at == now) {
            match event.slots {
                true => world.set_slots(event.value),
                false => world.set_others(event.value),
            }
            run.last_event = now;
        }
        world.step(now);
        seen.push(world.snapshot());
        let past = seen[now.saturating_sub(options.metric_delay) as usize];
        let values: Vec<_> = formulas.iter().map(|formula: &Formula| formula.milli(&past)).collect();
        if let Some(keda) = autoscaler.keda.as_ref().filter(|keda| now % keda.polling == 0) {
            let above = |(value, activation): (&Result<i64, String>, &f64)| {
                value.as_ref().is_ok_and(|value| *value as f64 / 1000.0 > *activation)
            };
            let active = values.iter().zip(&activations).any(above);
            let from = world.snapshot().replicas as i32;
            if let Some((to, why)) = activation.poll(keda, now, from, active) {
                run.changes.push(Change { at: now, from, to, why });
                world.scale(now, to.max(0) as u32);
                world.step(now);
            }
        }
        if now % options.sync_period == 0 {
            let at = world.snapshot();
            let from = at.replicas as i32;
            // A MaskProvider reports the slots that are held as its replicas, and has no Pods.
            let status = if provider { at.used() } else { at.pods } as i32;
            let observed = Observed { spec: from, status, pods: at.pods as i32, ready: at.held as i32, values };
            let decision = controller.sync(now, &observed);
            if decision.replicas != from {
                run.changes.push(Change { at: now, from, to: decision.replicas, why: decision.why.clone() });
                world.scale(now, decision.replicas.max(0) as u32);
                world.step(now);
            }
            let (replicas, wanted) = (decision.replicas, decision.wanted);
            run.syncs.push(Sync { at: now, replicas, wanted, limit: decision.limit, why: decision.why });
        }
        run.seconds.push(world.snapshot());
    }
    Ok(run)
}

fn check(autoscaler: &Autoscaler, options: &Options) -> Result<(), String> {
    if let Some(problem) = autoscaler.problems().first() {
        return Err(format!("the API server refuses this {}: {problem}", autoscaler.kind));
    }
    if autoscaler.metrics.iter().all(|metric| metric.source == Source::Other) {
        return Err("there is no metric of type Object, External or Pods to simulate".into());
    }
    if options.sync_period == 0 {
        return Err("the sync period must be at least one second".into());
    }
    if options.duration > LONGEST {
        return Err("the duration must be at most seven days".into());
    }
    let numbers = [options.slots, options.start.unwrap_or(0), options.reserve.unwrap_or(0)];
    if numbers.iter().any(|number| *number > MOST) || autoscaler.max > MOST as i32 {
        return Err(format!("numbers of slots and replicas must be at most {MOST}"));
    }
    if let Some(late) = options.events.iter().find(|event| event.at > options.duration) {
        return Err(format!("an event at {} s is after the end of the simulation", late.at));
    }
    if autoscaler.target.is_provider() && options.events.iter().any(|event| event.slots) {
        return Err("the slots of the MaskProvider are what is scaled, so no event can set them".into());
    }
    Ok(())
}
