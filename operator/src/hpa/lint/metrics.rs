//! Metrics about slots: which of them may be the input of an autoscaler, and with which target.

use super::{
    edit::average_of_one,
    finding::{
        Finding, Level,
        Level::{Error, Info, Warning},
    },
    served,
};
use crate::hpa::{
    autoscaler::{Autoscaler, Goal, Metric, Source},
    meaning::{self, Meaning},
    quantity::display,
};

/// What Pods scale on.
const CLAIMABLE: &str = "claimable_slots";

/// What a MaskProvider scales on.
const DEMANDED: &str = "provider_slots_demanded";

/// Returns the findings about each metric.
pub fn findings(autoscaler: &Autoscaler, slots: Option<u32>) -> Vec<Finding> {
    let mut found = Vec::new();
    if autoscaler.metrics.is_empty() {
        found.push(Finding::new(
            Info,
            "no-metric",
            "Without a metric, Kubernetes scales on 80% of the requested CPU, which has nothing to do with slots.",
        ));
    }
    for metric in &autoscaler.metrics {
        let Some(meaning) = meaning::meaning(&metric.name).filter(|_| metric.source != Source::Other) else {
            continue;
        };
        if metric.source == Source::Pods {
            let name = &metric.name;
            let why = format!(
                "{name} does not describe Pods, so the metric of type Pods has no value. Use Object or External."
            );
            found.push(Finding::new(Error, "slots-of-pods", why));
            continue;
        }
        found.extend(match autoscaler.target.is_provider() {
            true => provider(autoscaler, metric, meaning),
            false => workload(autoscaler, metric, meaning, slots),
        });
        found.extend(served::findings(autoscaler, metric, meaning));
    }
    found
}

/// A metric that scales the slots of a MaskProvider.
fn provider(autoscaler: &Autoscaler, metric: &Metric, meaning: Meaning) -> Option<Finding> {
    let name = &metric.name;
    let (code, why) = match (meaning, metric.goal) {
        (Meaning::Demanded, Goal::AverageValue(1000)) => return None,
        (Meaning::Demanded, Goal::AverageValue(target)) => {
            ("provider-target", format!("maxSlots becomes the demand divided by {}.", display(target)))
        }
        (_, Goal::Value(_)) => (
            "provider-value",
            "With target type Value, Kubernetes multiplies by the number of ready Pods. A MaskProvider has no Pods, so \
             it is never scaled."
                .to_owned(),
        ),
        (Meaning::Used, _) => {
            ("used-on-provider", format!("{name} never exceeds maxSlots, so maxSlots never grows, whoever waits."))
        }
        (Meaning::Waiting, _) => (
            "waiting-on-provider",
            format!(
                "{name} leaves out the Masks that have a slot. As soon as the waiting ones have theirs, maxSlots \
                 falls, and Pods are deleted."
            ),
        ),
        _ => (
            "supply-on-provider",
            format!("{name} depends on maxSlots and not on the demand, so it cannot say what is needed."),
        ),
    };
    Some(Finding::new(Error, code, why).with(average_of_one(autoscaler, metric, DEMANDED)))
}

/// A metric that scales Pods which need a slot each.
fn workload(autoscaler: &Autoscaler, metric: &Metric, meaning: Meaning, slots: Option<u32>) -> Option<Finding> {
    let name = &metric.name;
    let to = match meaning {
        Meaning::Remaining | Meaning::Fits | Meaning::Available => "replicas_that_fit",
        _ => CLAIMABLE,
    };
    let finding =
        |level, code, why: String| Some(Finding::new(level, code, why).with(average_of_one(autoscaler, metric, to)));
    match (meaning, metric.goal) {
        (_, Goal::Utilization) => None,
        (Meaning::Free, Goal::Value(target)) => {
            let (level, why) = value_on_free(name, target, slots);
            finding(level, "value-on-free", why)
        }
        (Meaning::Remaining, Goal::Value(target)) => {
            let why = format!(
                "With target type Value, Kubernetes multiplies the replicas by {name} / {}, and each replica lowers \
                 {name}, so the replicas oscillate.",
                display(target)
            );
            finding(Error, "value-on-free", why)
        }
        (Meaning::Remaining, Goal::AverageValue(_)) => {
            let why = format!("Each replica lowers {name}, so the replicas stop before the capacity is used up.");
            finding(Warning, "average-value-on-free", why)
        }
        (Meaning::Free, Goal::AverageValue(target)) => {
            let target = target as f64 / 1000.0;
            let share = format!("1/{}", 1.0 + target);
            let example = slots.map_or_else(String::new, |slots| {
                format!(" Of {slots}, it uses about {}.", (f64::from(slots) / (1.0 + target)).round())
            });
            // n' = (S − n) / T has the slope −1 / T.
            if target <= 1.0 {
                let why = format!(
                    "Each replica lowers {name} by as much as one replica needs, or more, so the replicas oscillate \
                     around {share} of what others leave."
                );
                return finding(Error, "average-value-on-free", why);
            }
            let why =
                format!("Each replica lowers {name}, so the replicas stop at {share} of what others leave.{example}");
            finding(Warning, "average-value-on-free", why)
        }
        (Meaning::Claimable | Meaning::Fits | Meaning::Available | Meaning::Total, Goal::Value(target)) => {
            let why = format!(
                "With target type Value, Kubernetes multiplies the replicas by {name} / {0}. The replicas do not \
                 change that factor, so above {0} they grow to the maximum, and below {0} they fall to the minimum.",
                display(target)
            );
            finding(Error, "value-on-claimable", why)
        }
        (Meaning::Claimable | Meaning::Fits, Goal::AverageValue(target)) if target != 1000 => {
            let effect = if target > 1000 { "leaves slots unused" } else { "makes more replicas than there are slots" };
            let why = format!("{name} counts replicas. AverageValue {} {effect}.", display(target));
            finding(Warning, "claimable-target", why)
        }
        (Meaning::Claimable | Meaning::Fits | Meaning::Available, _) => None,
        (Meaning::Total, Goal::AverageValue(_)) => {
            let why =
                format!("{name} also counts the slots that others hold, so there are more replicas than free slots.");
            finding(Warning, "total-slots", why)
        }
        (Meaning::Demanded | Meaning::Used, _) => {
            let why = format!("{name} counts the replicas themselves, so each replica is a reason for another one.");
            finding(Error, "own-replicas-counted", why)
        }
        (Meaning::Waiting, _) => {
            let why = format!(
                "{name} rises with each replica that waits for a slot, and is 0 when all of them have one, so the \
                 replicas swing."
            );
            finding(Error, "waiting-on-workload", why)
        }
    }
}

/// A target of type Value on a metric that falls with each replica: n' = n (S − n) / T is the logistic map with the
/// parameter S / T, which has a stable fixed point above 0 only from 1 to 3.
fn value_on_free(name: &str, target: i64, slots: Option<u32>) -> (Level, String) {
    let (target, shown) = (target as f64 / 1000.0, display(target));
    let why = format!(
        "With target type Value, Kubernetes multiplies the replicas by {name} / {shown}, and each replica lowers \
         {name}. The replicas oscillate unless others leave more than {target} and fewer than {} slots.",
        3.0 * target
    );
    let Some(slots) = slots else { return (Error, why) };
    let ratio = f64::from(slots) / target;
    let here = match ratio {
        ratio if ratio <= 1.0 => format!("With {slots} slots, they fall to the minimum."),
        ratio if ratio < 3.0 => {
            format!("With {slots} slots, they can settle at {}, until others take slots.", f64::from(slots) - target)
        }
        _ => format!("With {slots} slots, they oscillate."),
    };
    (if ratio > 1.0 && ratio < 3.0 { Warning } else { Error }, format!("{why} {here}"))
}
