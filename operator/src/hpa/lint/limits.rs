//! The range of the replicas, and what else decides on them.

use super::{
    edit::Edit,
    finding::{
        Finding,
        Level::{Error, Info, Warning},
    },
};
use crate::hpa::{
    autoscaler::{Autoscaler, Metric, Select, Source},
    meaning::{Meaning, meaning},
};

/// Returns the findings about the range, the directions and other metrics.
pub fn findings(autoscaler: &Autoscaler, slots: Option<u32>) -> Vec<Finding> {
    let mut found = Vec::new();
    let Autoscaler { min, max, .. } = *autoscaler;
    let to_zero = autoscaler.keda.as_ref().is_some_and(|keda| keda.min == 0);
    if max >= 1 && min == max && !to_zero {
        found.push(Finding::new(
            Warning,
            "fixed-size",
            format!("Minimum and maximum are both {max}, so nothing is scaled."),
        ));
    }
    if let Some(behavior) = &autoscaler.behavior {
        for (rules, verb) in [(&behavior.up, "up"), (&behavior.down, "down")] {
            if rules.select == Select::Disabled {
                found.push(Finding::new(
                    Warning,
                    "direction-disabled",
                    format!("selectPolicy: Disabled never scales {verb}."),
                ));
            }
        }
    }
    found.extend(contract(autoscaler, slots));
    let is_slots = |metric: &&Metric| metric.source != Source::Other && meaning(&metric.name).is_some();
    let slots_metric = autoscaler.metrics.iter().find(is_slots);
    let other = autoscaler.metrics.iter().find(|metric| !is_slots(metric));
    if let (Some(of_slots), Some(other)) = (slots_metric, other) {
        let why = format!(
            "The metric that asks for the most replicas wins. {} can ask for more replicas than {} allows, and these \
             wait without a slot.",
            other.name, of_slots.name
        );
        found.push(Finding::new(Warning, "other-metric", why));
    }
    let need = |metric: &Metric| match meaning(&metric.name) {
        Some(Meaning::Claimable) => Some("Masks need slots"),
        Some(Meaning::Fits) => Some("Pods need room"),
        _ => None,
    };
    let window = autoscaler.behavior.as_ref().map_or(Some(300), |it| it.down.window.or(Some(300))).unwrap_or(300);
    if let Some(need) =
        autoscaler.metrics.iter().find_map(need).filter(|_| window > 0 && !autoscaler.target.is_provider())
    {
        let why = format!(
            "When other {need}, the replicas stay for another {window} s. To scale down at once, set \
             {}.scaleDown.stabilizationWindowSeconds to 0.",
            autoscaler.behavior_path
        );
        found.push(Finding::new(Info, "slow-return", why));
    }
    found
}

/// Whether the maximum exceeds what the account allows.
fn contract(autoscaler: &Autoscaler, slots: Option<u32>) -> Option<Finding> {
    if !autoscaler.target.is_provider() {
        return None;
    }
    let max = autoscaler.max;
    let Some(slots) = slots.and_then(|slots| i32::try_from(slots).ok()) else {
        let why = format!("maxSlots grows up to {max}. Make sure that the account allows that many devices.");
        return Some(Finding::new(Info, "contract", why));
    };
    let field = if autoscaler.keda.is_some() { "spec.maxReplicaCount" } else { "spec.maxReplicas" };
    (max > slots).then(|| {
        let why = format!("maxSlots grows up to {max}, but the account allows {slots} devices.");
        let fits = slots >= autoscaler.min.max(1);
        let edits = if fits { vec![Edit::set(field, slots)] } else { Vec::new() };
        Finding::new(Error, "contract", why).with(edits)
    })
}
