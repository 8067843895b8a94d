//! An autoscaler, whether it is written as a HorizontalPodAutoscaler or as a ScaledObject of KEDA.

use crate::model::WORKLOADS;

/// An autoscaler with the defaults of the API server filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Autoscaler {
    /// The kind of the manifest.
    pub kind: &'static str,
    /// The name in the manifest.
    pub name: String,
    /// What is scaled.
    pub target: Target,
    /// The lowest number of replicas that the HorizontalPodAutoscaler sets.
    pub min: i32,
    /// The highest number of replicas.
    pub max: i32,
    /// The metrics. The one that asks for the most replicas wins.
    pub metrics: Vec<Metric>,
    /// `behavior`, with the defaults for what is absent. Without any, older rules apply.
    pub behavior: Option<Behavior>,
    /// Where `behavior` is in the manifest.
    pub behavior_path: &'static str,
    /// What KEDA does itself.
    pub keda: Option<Keda>,
}

/// A reference to an object, such as the one that an autoscaler scales.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The version of the API.
    pub api_version: Option<String>,
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
}

impl Target {
    /// Whether the replicas are the slots of a MaskProvider, instead of Pods that need slots.
    pub fn is_provider(&self) -> bool {
        self.kind == "MaskProvider"
    }

    /// The resource, as in the label `resource` of a selector, if this is one of the usual workloads.
    pub fn resource(&self) -> Option<&'static str> {
        WORKLOADS.iter().find(|(.., kind)| *kind == self.kind).map(|(resource, ..)| *resource)
    }
}

/// A metric of an autoscaler.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Where it is in the manifest, such as `spec.metrics[0].object`.
    pub path: String,
    /// Where the value comes from.
    pub source: Source,
    /// The name. In a ScaledObject, the first known name in the query, or else the type of the trigger.
    pub name: String,
    /// The object that a metric of type Object describes.
    pub described: Option<Target>,
    /// The labels that the selector asks for, with the value if there is only one.
    pub labels: Vec<(String, Option<String>)>,
    /// The target.
    pub goal: Goal,
    /// The fields of a trigger of KEDA.
    pub trigger: Option<Trigger>,
}

/// Where the value of a metric comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// One value that describes an object.
    Object,
    /// The sum of all series that match.
    External,
    /// The average of the Pods.
    Pods,
    /// CPU, memory, or a trigger about something else, such as the time of day. It is not simulated.
    Other,
}

/// The target of a metric, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The metric is to have this value. It is assumed to be proportional to the number of ready replicas.
    Value(i64),
    /// The metric is to have this value for each replica.
    AverageValue(i64),
    /// A percentage of the requests of the Pods.
    Utilization,
}

/// The text fields of a trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// The key in `metadata` with the query or the location.
    pub query_key: &'static str,
    /// The query or the location.
    pub query: String,
    /// The key in `metadata` with the target.
    pub target_key: &'static str,
}

/// `behavior` of an autoscaler.
#[derive(Clone, Debug, PartialEq)]
pub struct Behavior {
    /// Rules to add replicas.
    pub up: Rules,
    /// Rules to remove replicas.
    pub down: Rules,
}

/// Rules for one direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// `stabilizationWindowSeconds`. If absent, the controller has a setting for it.
    pub window: Option<i32>,
    /// Which policy wins.
    pub select: Select,
    /// The policies.
    pub policies: Vec<Policy>,
    /// Changes below this ratio are ignored. If absent, the controller has a setting for it.
    pub tolerance: Option<f64>,
}

/// Which of several policies wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// The one that allows the largest change.
    Max,
    /// The one that allows the smallest change.
    Min,
    /// No change in this direction.
    Disabled,
}

/// A limit on the change of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether `value` is a percentage instead of a number of replicas.
    pub percent: bool,
    /// How many replicas, or percent of them.
    pub value: i32,
    /// In how many seconds.
    pub period: i32,
}

/// What KEDA does beside its HorizontalPodAutoscaler.
#[derive(Clone, Debug, PartialEq)]
pub struct Keda {
    /// `minReplicaCount`.
    pub min: i32,
    /// `idleReplicaCount`.
    pub idle: Option<i32>,
    /// `pollingInterval`, in seconds.
    pub polling: u64,
    /// `cooldownPeriod`, in seconds.
    pub cooldown: u64,
    /// The value of each metric above which KEDA scales from zero.
    pub activations: Vec<f64>,
    /// Whether there is a `fallback`.
    pub fallback: bool,
    /// The annotation that pauses it.
    pub paused: Option<&'static str>,
}

impl Default for Behavior {
    fn default() -> Self {
        let percent = Policy { percent: true, value: 100, period: 15 };
        let pods = Policy { percent: false, value: 4, period: 15 };
        Self {
            up: Rules { window: Some(0), select: Select::Max, policies: vec![pods, percent], tolerance: None },
            down: Rules { window: None, select: Select::Max, policies: vec![percent], tolerance: None },
        }
    }
}

impl Autoscaler {
    /// Returns the tolerances that the manifest sets, for fewer and for more replicas.
    pub fn tolerances(&self) -> (Option<f64>, Option<f64>) {
        let behavior = self.behavior.as_ref();
        (behavior.and_then(|it| it.down.tolerance), behavior.and_then(|it| it.up.tolerance))
    }
}
