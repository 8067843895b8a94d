//! The labels that the operator's metrics API knows in the selector of a metric.

use crate::hpa::{autoscaler::Source, meaning::Meaning};

/// The labels that the selector of a metric may have, and whether they are parameters instead of labels of series.
pub fn known_labels(meaning: Meaning, base: &str, source: Source) -> (&'static [&'static str], bool) {
    match (meaning, source) {
        (Meaning::Claimable, Source::External) => (&["tag", "reserve", "priority", "workload", "resource"], true),
        (Meaning::Claimable, _) => (&["tag", "reserve", "priority"], true),
        (Meaning::Fits | Meaning::Available, _) => {
            (&["cpu", "memory", "reserve-cpu", "reserve-memory", "priority-below"], true)
        }
        _ if base.starts_with("provider_") => (&["namespace", "provider"], false),
        _ if base.starts_with("tag_") => (&["tag"], false),
        _ => (&["namespace"], false),
    }
}
