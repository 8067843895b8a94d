//! How many replicas one metric asks for.
//!
//! Invariant: like `replica_calculator.go` of Kubernetes 1.36, in the same order of floating-point operations, so that
//! `ceil` gives the same integer. Values and targets are in thousandths.

use super::{
    autoscaler::{Goal, Metric, Source},
    decision::Observed,
};

/// How far the metric may be off its target without a change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerances {
    /// For fewer replicas.
    pub down: f64,
    /// For more replicas.
    pub up: f64,
}

impl Tolerances {
    fn covers(self, ratio: f64) -> bool {
        (1.0 - self.down) <= ratio && ratio <= (1.0 + self.up)
    }
}

/// Returns the number of replicas that a metric with this value asks for.
///
/// # Errors
/// Why the controller cannot tell, in which case it changes nothing for this metric.
pub fn proposal(metric: &Metric, value: i64, tolerances: Tolerances, seen: &Observed) -> Result<i32, String> {
    match (metric.source, metric.goal) {
        (Source::Pods, Goal::AverageValue(target)) => per_pod(value, target, tolerances, seen),
        (Source::Object | Source::External, Goal::AverageValue(target)) => {
            let ratio = value as f64 / (target as f64 * f64::from(seen.status));
            Ok(match tolerances.covers(ratio) {
                true => seen.status,
                false => ceil(value as f64 / target as f64),
            })
        }
        (Source::Object | Source::External, Goal::Value(target)) => {
            let ratio = value as f64 / target as f64;
            if seen.spec == 0 {
                return Ok(ceil(ratio));
            }
            if tolerances.covers(ratio) {
                return Ok(seen.spec);
            }
            if seen.pods == 0 {
                return Err("the target has no Pods, so there are no ready ones to multiply with".into());
            }
            Ok(ceil(ratio * f64::from(seen.ready)))
        }
        _ => Err(format!("{} is not simulated", metric.name)),
    }
}

/// Rounds up. Casts of floats saturate.
fn ceil(number: f64) -> i32 {
    number.ceil() as i32
}

/// For a metric of type Pods: `value` is that of each ready Pod, and the others are pending.
fn per_pod(value: i64, target: i64, tolerances: Tolerances, seen: &Observed) -> Result<i32, String> {
    if seen.pods == 0 {
        return Err("the target has no Pods".into());
    }
    if seen.ready == 0 {
        return Err("no Pod is ready, so none has the metric".into());
    }
    let ratio = value as f64 / target as f64;
    let pending = seen.pods - seen.ready;
    if pending == 0 || ratio <= 1.0 {
        return Ok(match tolerances.covers(ratio) {
            true => seen.spec,
            false => ceil(ratio * f64::from(seen.ready)),
        });
    }
    // To add replicas, pending Pods count as idle.
    let average = value.saturating_mul(seen.ready.into()) / i64::from(seen.pods);
    let again = average as f64 / target as f64;
    if tolerances.covers(again) || again < 1.0 {
        return Ok(seen.spec);
    }
    let wanted = ceil(again * f64::from(seen.pods));
    Ok(if wanted < seen.spec { seen.spec } else { wanted })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCES: Tolerances = Tolerances { down: 0.1, up: 0.1 };

    fn metric(source: Source, goal: Goal) -> Metric {
        Metric {
            path: String::new(),
            source,
            name: "m".into(),
            described: None,
            labels: Vec::new(),
            goal,
            trigger: None,
        }
    }

    fn seen(spec: i32, status: i32, pods: i32, ready: i32) -> Observed {
        Observed { spec, status, pods, ready, values: Vec::new() }
    }

    #[test]
    fn value_multiplies_ready_pods_and_average_value_does_not() {
        let value = metric(Source::Object, Goal::Value(2000));
        assert_eq!(proposal(&value, 15_000, TOLERANCES, &seen(5, 5, 5, 5)), Ok(38));
        assert_eq!(proposal(&value, 15_000, TOLERANCES, &seen(5, 5, 5, 2)), Ok(15), "only ready Pods count");
        assert_eq!(
            proposal(&value, 2200, TOLERANCES, &seen(5, 5, 5, 2)),
            Ok(5),
            "within the tolerance, of spec.replicas"
        );
        assert_eq!(proposal(&value, 5000, TOLERANCES, &seen(0, 0, 0, 0)), Ok(3), "from zero");
        assert!(proposal(&value, 9000, TOLERANCES, &seen(5, 5, 0, 0)).is_err());
        let average = metric(Source::External, Goal::AverageValue(1000));
        assert_eq!(proposal(&average, 20_000, TOLERANCES, &seen(5, 5, 5, 0)), Ok(20));
        assert_eq!(proposal(&average, 11_000, TOLERANCES, &seen(10, 10, 10, 10)), Ok(10), "a tenth more is ignored");
        assert_eq!(proposal(&average, 12_000, TOLERANCES, &seen(20, 12, 0, 0)), Ok(12), "of status.replicas");
        assert_eq!(proposal(&average, 0, TOLERANCES, &seen(1, 0, 0, 0)), Ok(0), "0 / 0 is outside of the tolerance");
    }

    #[test]
    fn pending_pods_count_as_idle_only_to_add_replicas() {
        let pods = metric(Source::Pods, Goal::AverageValue(10_000));
        assert_eq!(proposal(&pods, 20_000, TOLERANCES, &seen(4, 4, 4, 4)), Ok(8));
        assert_eq!(proposal(&pods, 20_000, TOLERANCES, &seen(4, 4, 4, 3)), Ok(6));
        assert_eq!(proposal(&pods, 20_000, TOLERANCES, &seen(4, 4, 4, 2)), Ok(4), "back to the target");
        assert_eq!(proposal(&pods, 5000, TOLERANCES, &seen(4, 4, 4, 2)), Ok(1));
        assert!(proposal(&pods, 5000, TOLERANCES, &seen(4, 4, 4, 0)).is_err());
    }

    #[test]
    fn each_direction_has_its_tolerance() {
        let average = metric(Source::Object, Goal::AverageValue(1000));
        let exact_up = Tolerances { down: 0.1, up: 0.0 };
        assert_eq!(proposal(&average, 101_000, exact_up, &seen(100, 100, 100, 100)), Ok(101));
        assert_eq!(proposal(&average, 95_000, exact_up, &seen(100, 100, 100, 100)), Ok(100));
        assert_eq!(proposal(&average, 100_000, exact_up, &seen(100, 100, 100, 100)), Ok(100));
    }
}
