//! What the names of metrics mean.

/// What a metric says about slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// All slots.
    Total,
    /// Slots that no one holds. It falls with each replica.
    Free,
    /// Slots that one workload may fill. It does not depend on its replicas.
    Claimable,
    /// Slots that are held or waited for.
    Demanded,
    /// Slots that are held.
    Used,
    /// Masks without a slot.
    Waiting,
    /// CPU or memory that no Pod requests. It falls with each replica.
    Remaining,
    /// CPU or memory that no other Pod requests.
    Available,
    /// Replicas for which there is room. It does not depend on the replicas.
    Fits,
}

/// Names without the prefix of the operator's metrics.
const NAMES: &[(&str, Meaning)] = &[
    ("claimable_slots", Meaning::Claimable),
    ("provider_slots_demanded", Meaning::Demanded),
    ("provider_slots_free", Meaning::Free),
    ("provider_slots_used", Meaning::Used),
    ("provider_slots", Meaning::Total),
    ("tag_slots_free", Meaning::Free),
    ("tag_masks_waiting", Meaning::Waiting),
    ("masks_waiting", Meaning::Waiting),
    ("cpu_capacity_remaining", Meaning::Remaining),
    ("cpu_capacity_available", Meaning::Available),
    ("mem_capacity_remaining", Meaning::Remaining),
    ("mem_capacity_available", Meaning::Available),
    ("replicas_that_fit", Meaning::Fits),
];

/// Returns all known names.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

/// Splits a name into prefix and known name.
fn split(name: &str) -> Option<(&str, &'static str, Meaning)> {
    NAMES.iter().find_map(|&(known, meaning)| {
        let prefix = name.strip_suffix(known)?;
        (prefix.is_empty() || prefix.ends_with('_')).then_some((prefix, known, meaning))
    })
}

/// Returns what a metric means.
pub fn meaning(name: &str) -> Option<Meaning> {
    split(name).map(|(_, _, meaning)| meaning)
}

/// Returns the known name without its prefix.
pub fn base(name: &str) -> Option<&'static str> {
    split(name).map(|(_, known, _)| known)
}

/// Returns the name of another metric with the prefix of this one.
pub fn renamed(name: &str, to: &str) -> String {
    match split(name) {
        Some((prefix, _, _)) => format!("{prefix}{to}"),
        None => to.to_owned(),
    }
}

/// Returns the first known name in a query, such as one for Prometheus.
pub fn find(query: &str) -> Option<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    query.split(|c| !is_name(c)).find(|word| meaning(word).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_meaning_with_and_without_a_prefix() {
        assert_eq!(meaning("vpno_provider_slots_free"), Some(Meaning::Free));
        assert_eq!(meaning("claimable_slots"), Some(Meaning::Claimable));
        assert_eq!(meaning("team_vpn_masks_waiting"), Some(Meaning::Waiting));
        assert_eq!(meaning("vpno_provider_slots"), Some(Meaning::Total));
        assert_eq!(meaning("timeslots_free"), None);
        assert_eq!(meaning("queue_length"), None);
        assert_eq!(
            find("sum(max by (provider) (vpno_provider_slots_free{tag=\"a\"}))"),
            Some("vpno_provider_slots_free")
        );
        assert_eq!(renamed("vpno_tag_slots_free", "claimable_slots"), "vpno_claimable_slots");
    }
}
