//! What a sync of the controller sees and decides, with words for why.

use std::fmt;

use super::autoscaler::{Goal, Metric, Policy, Rules, Select, Source};
use super::quantity::display;

/// What the controller sees in a sync.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// `spec.replicas` of the target's scale.
    pub spec: i32,
    /// `status.replicas` of the target's scale.
    pub status: i32,
    /// How many Pods the selector of the scale finds.
    pub pods: i32,
    /// How many of them are ready.
    pub ready: i32,
    /// The value of each metric in thousandths, or why there is none.
    pub values: Vec<Result<i64, String>>,
}

/// The number of replicas after a sync.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The number.
    pub replicas: i32,
    /// What the metrics ask for, before limits.
    pub wanted: Option<i32>,
    /// Which limit held the replicas back.
    pub limit: Option<Limit>,
    /// Why.
    pub why: String,
}

/// What keeps the replicas from the number that the metrics ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `maxReplicas`.
    Max(i32),
    /// `minReplicas`.
    Min(i32),
    /// A policy, or the built-in rate without `behavior`.
    Rate(String),
    /// A stabilization window, in seconds, with the recommendation that it keeps.
    Window(u64, i32),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max(max) => write!(f, "limited by the maximum of {max}"),
            Self::Min(min) => write!(f, "limited by the minimum of {min}"),
            Self::Rate(rate) => write!(f, "limited to {rate}"),
            Self::Window(seconds, kept) => write!(f, "the recommendation of the last {seconds} s is {kept}"),
        }
    }
}

/// Describes the policies of one direction.
pub fn rate(rules: &Rules) -> String {
    let policy = |it: &Policy| {
        let unit = if it.percent { "%" } else { " Pods" };
        format!("{}{unit} per {} s", it.value, it.period)
    };
    let word = match rules.select {
        Select::Disabled => return "no change in this direction".into(),
        Select::Max => "or",
        Select::Min => "and",
    };
    rules.policies.iter().map(policy).collect::<Vec<_>>().join(&format!(" {word} "))
}

/// Describes a metric and what it asks for.
pub fn asks(metric: &Metric, value: i64, seen: &Observed, wanted: i32) -> String {
    let (name, value) = (&metric.name, display(value));
    match metric.goal {
        Goal::Value(target) if seen.spec == 0 => format!("{name} {value} / {} asks for {wanted}", display(target)),
        Goal::Value(target) => {
            format!("{} ready × {name} {value} / {} asks for {wanted}", seen.ready, display(target))
        }
        Goal::AverageValue(target) if metric.source == Source::Pods => {
            format!("{} ready × {name} {value} per Pod / {} asks for {wanted}", seen.ready, display(target))
        }
        Goal::AverageValue(target) => format!("{name} {value} / {} asks for {wanted}", display(target)),
        Goal::Utilization => format!("{name} asks for {wanted}"),
    }
}
