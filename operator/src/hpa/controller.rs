//! The HorizontalPodAutoscaler controller: from metrics to the number of replicas, sync by sync.
//!
//! Invariant: like `horizontal.go` of Kubernetes 1.36, with the feature gates at their defaults. Without `behavior` the
//! limit is twice the replicas, but at least 4, and only a decrease is stabilized. With `behavior`, even an empty one,
//! the policies and both windows apply.
//!
//! An entry that is exactly as old as a window or a period is over, because real syncs are a little more than one sync
//! period apart.

use super::{
    autoscaler::{Autoscaler, Behavior, Policy, Rules, Select, Source},
    calculator::{Tolerances, proposal},
    decision::{Decision, Limit, Observed, asks, rate},
};

/// Flags of kube-controller-manager.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// `--horizontal-pod-autoscaler-tolerance`.
    pub tolerance: f64,
    /// `--horizontal-pod-autoscaler-downscale-stabilization`, in seconds.
    pub downscale_stabilization: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tolerance: 0.1, downscale_stabilization: 300 }
    }
}

/// The state that the controller keeps for an autoscaler.
#[derive(Clone, Debug)]
pub struct Controller<'a> {
    autoscaler: &'a Autoscaler,
    settings: Settings,
    /// Time and number of replicas before stabilization.
    recommendations: Vec<(u64, i32)>,
    /// Time and number of replicas that were added.
    added: Vec<(u64, i32)>,
    /// Time and number of replicas that were removed.
    removed: Vec<(u64, i32)>,
}

impl<'a> Controller<'a> {
    /// Returns a controller that has just started.
    pub fn new(autoscaler: &'a Autoscaler, settings: Settings) -> Self {
        Self { autoscaler, settings, recommendations: Vec::new(), added: Vec::new(), removed: Vec::new() }
    }

    /// Decides at a time in seconds.
    pub fn sync(&mut self, now: u64, seen: &Observed) -> Decision {
        let Autoscaler { min, max, .. } = *self.autoscaler;
        let current = seen.spec;
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
        let plain = |replicas, why: &str| Decision { replicas, wanted: None, limit: None, why: why.into() };
        if current == 0 {
            return plain(0, "scaled to zero, so the HorizontalPodAutoscaler is inactive");
        }
        let mut decision = if current > max {
            plain(max, "the replicas are above the maximum")
        } else if current < min {
            plain(min, "the replicas are below the minimum")
        } else {
            match self.wanted(seen) {
                Err(why) => return plain(current, &why),
                Ok((wanted, why)) => {
                    let (replicas, limit) = match &self.autoscaler.behavior {
                        None => self.built_in(now, current, wanted),
                        Some(behavior) => self.with_behavior(behavior, now, current, wanted),
                    };
                    Decision { replicas, wanted: Some(wanted), limit, why }
                }
            }
        };
        if let Some(behavior) = &self.autoscaler.behavior {
            let change = decision.replicas - current;
            if change > 0 {
                store(&mut self.added, &behavior.up, now, change);
            } else if change < 0 {
                store(&mut self.removed, &behavior.down, now, -change);
            }
        }
        if let Some(limit) = &decision.limit {
            decision.why = format!("{}; {limit}", decision.why);
        }
        decision
    }

    /// Returns what the metrics ask for: the largest number. A metric without a value prevents a decrease.
    fn wanted(&self, seen: &Observed) -> Result<(i32, String), String> {
        let (down, up) = self.autoscaler.tolerances();
        let default = self.settings.tolerance;
        let tolerances = Tolerances { down: down.unwrap_or(default), up: up.unwrap_or(default) };
        let mut best: Option<(i32, String)> = None;
        let mut failed = None;
        let simulated = self.autoscaler.metrics.iter().filter(|metric| metric.source != Source::Other);
        for (metric, value) in simulated.zip(&seen.values) {
            let result = value.clone().and_then(|value| Ok((value, proposal(metric, value, tolerances, seen)?)));
            match result {
                Err(why) => {
                    failed.get_or_insert(format!("no value of {}: {why}", metric.name));
                }
                Ok((value, wanted)) => {
                    if best.as_ref().is_none_or(|&(most, _)| most == 0 || wanted > most) {
                        best = Some((wanted, asks(metric, value, seen, wanted)));
                    }
                }
            }
        }
        match (best, failed) {
            (Some((wanted, _)), Some(why)) if wanted < seen.spec => Err(why),
            (Some(best), _) => Ok(best),
            (None, Some(why)) => Err(why),
            (None, None) => Err("there is no metric".into()),
        }
    }

    /// The rules without `behavior`.
    fn built_in(&mut self, now: u64, current: i32, wanted: i32) -> (i32, Option<Limit>) {
        let window = self.settings.downscale_stabilization;
        let stable = self.recent(now, window).fold(wanted, i32::max);
        self.record(now, wanted, window);
        let fastest = current.saturating_mul(2).max(4);
        let Autoscaler { min, max, .. } = *self.autoscaler;
        if stable < min {
            (min, Some(Limit::Min(min)))
        } else if stable > max.min(fastest) {
            let limit = if max > fastest { Limit::Rate("twice the replicas, or 4".into()) } else { Limit::Max(max) };
            (max.min(fastest), Some(limit))
        } else {
            (stable, (stable != wanted).then_some(Limit::Window(window, stable)))
        }
    }

    /// The rules with `behavior`.
    fn with_behavior(&mut self, behavior: &Behavior, now: u64, current: i32, wanted: i32) -> (i32, Option<Limit>) {
        let seconds = |window: i32| u64::try_from(window).unwrap_or(0);
        let up_window = seconds(behavior.up.window.unwrap_or(0));
        let down_window = behavior.down.window.map_or(self.settings.downscale_stabilization, seconds);
        let lowest = self.recent(now, up_window).fold(wanted, i32::min);
        let highest = self.recent(now, down_window).fold(wanted, i32::max);
        self.record(now, wanted, up_window.max(down_window));
        // In this order, and not with clamp: the lowest of a long window can be above the highest of a short one.
        let stable = current.max(lowest).min(highest);
        let Autoscaler { min, max, .. } = *self.autoscaler;
        if stable > current {
            let fastest = self.fastest(&behavior.up, now, current, true).max(current);
            if stable > max.min(fastest) {
                let limit = if max > fastest { Limit::Rate(rate(&behavior.up)) } else { Limit::Max(max) };
                return (max.min(fastest), Some(limit));
            }
        } else if stable < current {
            let fastest = self.fastest(&behavior.down, now, current, false).min(current);
            if stable < min.max(fastest) {
                let limit = if min < fastest { Limit::Rate(rate(&behavior.down)) } else { Limit::Min(min) };
                return (min.max(fastest), Some(limit));
            }
        }
        let window = if wanted >= current { up_window } else { down_window };
        (stable, (stable != wanted).then_some(Limit::Window(window, stable)))
    }

    /// Returns the furthest number of replicas that the policies of a direction allow.
    fn fastest(&self, rules: &Rules, now: u64, current: i32, up: bool) -> i32 {
        let allowed = rules.policies.iter().map(|policy: &Policy| {
            let period = u64::try_from(policy.period).unwrap_or(0);
            let sum = |changes: &[(u64, i32)]| {
                changes.iter().filter(|(at, _)| now - at < period).map(|(_, change)| change).sum::<i32>()
            };
            let start = current - sum(&self.added) + sum(&self.removed);
            let (value, sign) = (policy.value, if up { 1 } else { -1 });
            match policy.percent {
                false => start.saturating_add(sign * value),
                true if up => (f64::from(start) * (1.0 + f64::from(value) / 100.0)).ceil() as i32,
                true => (f64::from(start) * (1.0 - f64::from(value) / 100.0)) as i32,
            }
        });
        let furthest = match (rules.select, up) {
            (Select::Disabled, _) => return current,
            (Select::Max, true) | (Select::Min, false) => allowed.max(),
            (Select::Max, false) | (Select::Min, true) => allowed.min(),
        };
        furthest.unwrap_or(current)
    }

    /// Returns the recommendations that are younger than a window.
    fn recent(&self, now: u64, window: u64) -> impl Iterator<Item = i32> {
        self.recommendations.iter().filter(move |(at, _)| now - at < window).map(|&(_, replicas)| replicas)
    }

    /// Adds a recommendation, and drops those that no window can see any more.
    fn record(&mut self, now: u64, wanted: i32, window: u64) {
        self.recommendations.retain(|(at, _)| now - at < window);
        self.recommendations.push((now, wanted));
    }
}

/// Stores a change. As in Kubernetes, it takes the place of the last change that is too old for the policies of its own
/// direction, even if a policy of the other direction has a longer period.
fn store(changes: &mut Vec<(u64, i32)>, rules: &Rules, now: u64, change: i32) {
    let longest = rules.policies.iter().map(|policy| u64::try_from(policy.period).unwrap_or(0)).max().unwrap_or(0);
    match changes.iter_mut().rfind(|(at, _)| now - *at >= longest) {
        Some(old) => *old = (now, change),
        None => changes.push((now, change)),
    }
}
