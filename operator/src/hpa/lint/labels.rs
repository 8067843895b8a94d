//! The labels that the operator's metrics API knows in the selector of a metric.

use crate::{
    hpa::{autoscaler::Source, meaning::Meaning},
    model::{CAPACITY_LABELS, CLAIM_LABELS, CLAIM_PARAMETERS},
};

/// The labels that the selector of a metric may have, and whether they are parameters instead of labels of series.
pub fn known_labels(meaning: Meaning, base: &str, source: Source) -> (&'static [&'static str], bool) {
    match (meaning, source) {
        (Meaning::Claimable, Source::External) => (&CLAIM_LABELS, true),
        (Meaning::Claimable, _) => (CLAIM_PARAMETERS, true),
        (Meaning::Fits | Meaning::Available, _) => (&CAPACITY_LABELS, true),
        _ if base.starts_with("provider_") => (&["namespace", "provider"], false),
        _ if base.starts_with("tag_") => (&["tag"], false),
        _ => (&["namespace"], false),
    }
}
