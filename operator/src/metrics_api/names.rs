//! Which metrics there are, by name.
//!
//! Invariant: what is not known here is never read from a snapshot, so whether a metric is one of this server does not
//! depend on the state of the cluster.

use super::request::{CustomQuery, Request};
use crate::{metrics::PROVIDER, model::WORKLOADS};

/// The resource of MaskProviders.
pub const MASK_PROVIDERS: &str = "maskproviders.vpn.beebs.dev";
/// The resource of namespaces.
pub const NAMESPACES: &str = "namespaces";
/// The resource of Pods, whose metrics are their own.
pub const PODS: &str = "pods";
/// The resource of Services. Their metrics are the sums over their Pods, and the capacity that is left for these.
pub const SERVICES: &str = "services";
/// The metric of workloads, without the prefix.
pub(super) const CLAIMABLE: &str = "claimable_slots";
/// The metrics of namespaces, without the prefix.
pub(super) const NAMESPACE: [&str; 3] = ["masks", "masks_waiting", "masks_oldest_wait_seconds"];
/// The metrics of tags, without the prefix.
pub(super) const TAG: [&str; 2] = ["tag_slots_free", "tag_masks_waiting"];
/// Returns the names of custom metrics, each as `resource/metric`.
pub fn custom_names(prefix: &str) -> Vec<String> {
    let providers = PROVIDER.iter().map(|(name, ..)| format!("{MASK_PROVIDERS}/{prefix}_{name}"));
    let namespaces = NAMESPACE.iter().map(|name| format!("{NAMESPACES}/{prefix}_{name}"));
    let workloads = WORKLOADS.iter().map(|(resource, ..)| format!("{resource}/{prefix}_{CLAIMABLE}"));
    let mut names: Vec<_> = providers.chain(namespaces).chain(workloads).collect();
    names.sort();
    names
}

/// Returns the names of external metrics.
pub fn external_names(prefix: &str) -> Vec<String> {
    let providers = PROVIDER.iter().map(|(name, ..)| *name);
    let mut names: Vec<_> =
        providers.chain(NAMESPACE).chain(TAG).chain([CLAIMABLE]).map(|name| format!("{prefix}_{name}")).collect();
    names.sort();
    names
}

/// Returns the name of a metric without the prefix, or nothing if it has another one.
pub(super) fn without_prefix<'a>(prefix: &str, metric: &'a str) -> &'a str {
    metric.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_')).unwrap_or_default()
}

/// Returns a message if the slots have no such metric, or `None` if they have it. Metrics of Pods and Services are not
/// among them.
pub(super) fn unknown_custom(prefix: &str, resource: &str, metric: &str) -> Option<String> {
    let name = without_prefix(prefix, metric);
    let is_known = match resource {
        MASK_PROVIDERS => PROVIDER.iter().any(|(known, ..)| *known == name),
        NAMESPACES => NAMESPACE.contains(&name),
        PODS | SERVICES => false,
        _ => name == CLAIMABLE,
    };
    if is_known {
        return None;
    }
    let known = custom_names(prefix);
    let known = known.iter().filter_map(|name| name.split_once('/'));
    let of_resource: Vec<_> = known.filter(|(other, _)| *other == resource).map(|(_, metric)| metric).collect();
    let known = if of_resource.is_empty() { "none".to_owned() } else { of_resource.join(", ") };
    Some(format!("the server could not find the metric {metric} for {resource}; known metrics of {resource}: {known}"))
}

/// Returns a message if there is no such external metric, or `None` if there is.
pub(super) fn unknown_external(prefix: &str, metric: &str) -> Option<String> {
    let known = external_names(prefix);
    if known.iter().any(|name| name == metric) {
        return None;
    }
    Some(format!("the server could not find the metric {metric}; known metrics: {}", known.join(", ")))
}

/// Returns a message if a request is for a metric that this server does not know by its name. Metrics of Pods and
/// Services have any name.
pub fn unknown(request: &Request, prefix: &str) -> Option<String> {
    match request {
        Request::Custom { query: CustomQuery { resource, metric, .. }, .. } => unknown_custom(prefix, resource, metric),
        Request::Cluster { resource, metric, .. } => Some(format!(
            "the server could not find the metric {metric} for {resource}: it has no metrics of objects without a \
             namespace"
        )),
        Request::External { metric, .. } => unknown_external(prefix, metric),
        _ => None,
    }
}
