//! What is special about a ScaledObject.

use super::{
    edit::Edit,
    finding::{
        Finding,
        Level::{Error, Info, Warning},
    },
};
use crate::hpa::{
    autoscaler::{Autoscaler, Goal},
    meaning::{Meaning, meaning},
};

/// Returns the findings about a ScaledObject.
pub fn findings(autoscaler: &Autoscaler) -> Vec<Finding> {
    let Some(keda) = &autoscaler.keda else { return Vec::new() };
    let mut found = Vec::new();
    let by_value = autoscaler.metrics.iter().find(|metric| matches!(metric.goal, Goal::Value(_)));
    if let Some(metric) = by_value.filter(|_| keda.fallback) {
        let why = format!(
            "KEDA before 2.18 ignores fallback for {}, because its metricType is not AverageValue.",
            metric.name
        );
        found.push(Finding::new(Warning, "fallback-needs-average-value", why));
    }
    if let Some(idle) = keda.idle.filter(|idle| *idle > 0) {
        let why = format!(
            "KEDA supports only 0 for idleReplicaCount. With {idle}, its HorizontalPodAutoscaler scales to \
             minReplicaCount again.",
        );
        found.push(Finding::new(Warning, "idle-not-zero", why));
    }
    if let Some(paused) = keda.paused {
        let why = format!("While the annotation {paused} is set, KEDA does not scale, or only in one direction.");
        found.push(Finding::new(Info, "paused", why));
    }
    let claimable = autoscaler.metrics.iter().any(|metric| meaning(&metric.name) == Some(Meaning::Claimable));
    if claimable && keda.min == 0 && !autoscaler.target.is_provider() {
        let why = format!(
            "minReplicaCount is 0. While no slot can be claimed, one replica remains for the cooldown period of {} s, \
             and starts again {} s or less after a slot becomes free. Set minReplicaCount to 1 if a replica may always \
             hold a slot.",
            keda.cooldown, keda.polling
        );
        found.push(Finding::new(Info, "min-zero-claimable", why));
    }
    if autoscaler.target.is_provider() && keda.min == 0 {
        let why = "minReplicaCount is 0, so KEDA sets maxSlots to 0 when there is no demand, and a new Mask waits \
                   until the next poll.";
        found.push(Finding::new(Error, "provider-to-zero", why).with(vec![Edit::set("spec.minReplicaCount", 1)]));
    }
    found
}
