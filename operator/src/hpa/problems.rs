//! Validation like that of the API server and KEDA, beyond the types of the fields.

use super::autoscaler::{Autoscaler, Goal, Rules};

/// A manifest that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A stable name.
    pub code: &'static str,
    /// Why.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// The longest `stabilizationWindowSeconds`.
const LONGEST_WINDOW: i32 = 3600;

/// The longest `periodSeconds`.
const LONGEST_PERIOD: i32 = 1800;

impl Autoscaler {
    /// Returns what is refused.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut add = |code, message| found.push(Problem { code, message });
        match &self.keda {
            None if self.min == 0 => add(
                "min-zero",
                "minReplicas is 0, which needs the feature gate HPAScaleToZero. Kubernetes 1.36 has it off by default."
                    .to_owned(),
            ),
            None if self.min < 0 => add("min-negative", format!("minReplicas is {}. It must be at least 1.", self.min)),
            Some(keda) if keda.min < 0 => {
                add("min-negative", format!("minReplicaCount is {}. It must be at least 0.", keda.min));
            }
            Some(keda) if keda.polling == 0 => {
                add("polling-zero", "pollingInterval is 0. It must be at least 1.".to_owned());
            }
            Some(keda) if keda.idle.is_some_and(|idle| idle < 0 || idle >= keda.min) => {
                add("idle-not-below-min", format!("idleReplicaCount must be below minReplicaCount {}.", keda.min));
            }
            _ => {}
        }
        if self.max < 1 {
            add("max-zero", format!("The maximum is {}. It must be at least 1.", self.max));
        } else if self.max < self.min {
            add("max-below-min", format!("The maximum of {} is below the minimum of {}.", self.max, self.min));
        }
        for metric in &self.metrics {
            if let Goal::Value(target) | Goal::AverageValue(target) = metric.goal
                && target <= 0
            {
                add("target-not-positive", format!("The target of {} must be above 0.", metric.name));
            }
        }
        if let Some(behavior) = &self.behavior {
            for (rules, direction) in [(&behavior.up, "scaleUp"), (&behavior.down, "scaleDown")] {
                let path = format!("{}.{direction}", self.behavior_path);
                found.extend(refused(rules, &path).map(|message| Problem { code: "behavior-invalid", message }));
            }
        }
        found
    }
}

fn refused(rules: &Rules, path: &str) -> Option<String> {
    if let Some(window) = rules.window.filter(|window| !(0..=LONGEST_WINDOW).contains(window)) {
        return Some(format!("{path}.stabilizationWindowSeconds is {window}. It must be from 0 to {LONGEST_WINDOW}."));
    }
    if rules.policies.is_empty() {
        return Some(format!("{path}.policies is empty. Remove the field, or add a policy."));
    }
    if let Some(policy) = rules.policies.iter().find(|policy| policy.value <= 0) {
        return Some(format!("{path}.policies has the value {}. It must be above 0.", policy.value));
    }
    if let Some(policy) = rules.policies.iter().find(|policy| !(1..=LONGEST_PERIOD).contains(&policy.period)) {
        let period = policy.period;
        return Some(format!("{path}.policies has periodSeconds {period}. It must be from 1 to {LONGEST_PERIOD}."));
    }
    rules.tolerance.filter(|it| *it < 0.0).map(|it| format!("{path}.tolerance is {it}. It must not be negative."))
}
