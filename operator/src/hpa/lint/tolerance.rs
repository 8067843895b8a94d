//! The tolerance of the controller, which hides single replicas when each of them counts.

use super::{
    edit::Edit,
    finding::{Finding, Level::Warning},
};
use crate::hpa::{
    autoscaler::{Autoscaler, Goal, Source},
    controller::Settings,
    meaning::{Meaning, meaning},
};

/// Returns the finding about the tolerance.
pub fn findings(autoscaler: &Autoscaler) -> Option<Finding> {
    let counts_replicas = autoscaler.metrics.iter().any(|metric| {
        let exact = matches!(meaning(&metric.name), Some(Meaning::Claimable | Meaning::Fits | Meaning::Demanded));
        exact && metric.source != Source::Pods && metric.goal == Goal::AverageValue(1000)
    });
    if !counts_replicas {
        return None;
    }
    let default = Settings::default().tolerance;
    let (down, up) = autoscaler.tolerances();
    let (down, up) = (down.unwrap_or(default), up.unwrap_or(default));
    // From this many replicas on, one more or less is within the tolerance.
    let from = |tolerance: f64| (1.0 / tolerance - 1e-9).ceil();
    // The maximum can lose a replica, but does not get another one.
    let max = f64::from(autoscaler.max);
    let hides = |tolerance: f64, most: f64| tolerance > 0.0 && from(tolerance) <= most;
    let path = autoscaler.behavior_path;
    let directions = [(up, "scaleUp", "scales up", max - 1.0), (down, "scaleDown", "scales down", max)];
    let hidden: Vec<_> = directions.into_iter().filter(|(tolerance, .., most)| hides(*tolerance, *most)).collect();
    let &(tolerance, ..) = hidden.first()?;
    let edits = hidden.iter().map(|(_, field, ..)| Edit::set(format!("{path}.{field}.tolerance"), 0)).collect();
    let effect = hidden.iter().map(|(_, _, effect, _)| *effect).collect::<Vec<_>>().join(" or ");
    let why = format!(
        "With a tolerance of {}%, no change of one replica {effect} from {} replicas on. Set the tolerance to 0, which \
         Kubernetes supports from 1.35 on (beta).",
        tolerance * 100.0,
        from(tolerance)
    );
    Some(Finding::new(Warning, "tolerance", why).with(edits))
}
