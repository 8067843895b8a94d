//! The JSON documents of the metrics API, as the published types of `k8s.io/metrics` have them.

use std::collections::BTreeSet;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value as Json, json};

use super::{
    names::{custom_names, external_names},
    offers::{Offers, Resource},
    request::{EXTERNAL, Group, Groups},
    values::Value,
};

/// The resources of a version of a group: those of this server, and those that another one offers under other names.
fn resources(group: Group, version: &'static str, prefix: &str, offers: &Offers) -> Vec<Resource> {
    let (names, kind) = match group {
        Group::Custom => (custom_names(prefix), "MetricValueList"),
        Group::External => (external_names(prefix), "ExternalMetricValueList"),
    };
    let own = names.into_iter().map(|name| {
        let namespaced = !name.starts_with("namespaces/");
        Resource { name, kind: kind.to_owned(), namespaced }
    });
    let mut all: Vec<_> = own.collect();
    let own: BTreeSet<_> = all.iter().map(|resource| resource.name.clone()).collect();
    all.extend(offers.of(group, version).iter().filter(|other| !own.contains(&other.name)).cloned());
    all
}

fn group_document(group: Group) -> Json {
    let version = |version: &&str| json!({"groupVersion": format!("{}/{version}", group.name()), "version": version});
    let versions: Vec<_> = group.versions().iter().map(version).collect();
    json!({"name": group.name(), "preferredVersion": versions[0], "versions": versions})
}

/// `/apis/GROUP`.
pub fn group(group: Group) -> Json {
    let mut document = group_document(group);
    document["kind"] = json!("APIGroup");
    document["apiVersion"] = json!("v1");
    document
}

/// `/apis`.
pub fn groups(groups: Groups) -> Json {
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups.iter().map(group_document).collect::<Vec<_>>()})
}

/// `/apis/GROUP/VERSION`.
pub fn resource_list(group: Group, version: &'static str, prefix: &str, offers: &Offers) -> Json {
    let resources = resources(group, version, prefix, offers).into_iter().map(|Resource { name, kind, namespaced }| {
        json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get"]})
    });
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": format!("{}/{version}", group.name()),
        "resources": resources.collect::<Vec<_>>(),
    })
}

/// `/apis` as aggregated discovery ([KEP-3352]). `version` is `v2` or `v2beta1`.
///
/// [KEP-3352]: https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/3352-aggregated-discovery
pub fn aggregated_discovery(groups: Groups, prefix: &str, version: &str, offers: &Offers) -> Json {
    let document = |Resource { name, kind, namespaced }| {
        json!({
            "resource": name,
            "responseKind": {"group": "", "version": "", "kind": kind},
            "scope": if namespaced { "Namespaced" } else { "Cluster" },
            "singularResource": "",
            "verbs": ["get"],
        })
    };
    let items = groups.iter().map(|group| {
        let versions = group.versions().iter().map(|version| {
            let resources = resources(group, version, prefix, offers).into_iter().map(document);
            json!({"version": version, "resources": resources.collect::<Vec<_>>(), "freshness": "Current"})
        });
        json!({
            "metadata": {"name": group.name(), "creationTimestamp": null},
            "versions": versions.collect::<Vec<_>>(),
        })
    });
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items.collect::<Vec<_>>(),
    })
}

/// A list of custom metrics in a version.
pub fn custom_values(version: &str, values: &[Value], selector: Option<&Json>, now: DateTime<Utc>) -> Json {
    let items = values.iter().map(|value| {
        let mut object = json!({});
        if let Some(described) = &value.object {
            object = json!({"kind": described.kind, "name": described.name, "apiVersion": described.api_version});
            if let Some(namespace) = &described.namespace {
                object["namespace"] = json!(namespace);
            }
        }
        let (value, metric) = (quantity(value.value), &value.metric);
        let (timestamp, selector) = (timestamp(now), selector.cloned().unwrap_or_default());
        match version {
            "v1beta1" => json!({
                "describedObject": object, "metricName": metric, "timestamp": timestamp, "value": value,
                "selector": selector,
            }),
            _ => json!({
                "describedObject": object, "metric": {"name": metric, "selector": selector}, "timestamp": timestamp,
                "value": value,
            }),
        }
    });
    json!({
        "kind": "MetricValueList",
        "apiVersion": format!("custom.metrics.k8s.io/{version}"),
        "metadata": {},
        "items": items.collect::<Vec<_>>(),
    })
}

/// A list of external metrics.
pub fn external_values(values: &[Value], now: DateTime<Utc>) -> Json {
    let items = values.iter().map(|value| {
        json!({
            "metricName": value.metric,
            "metricLabels": value.labels,
            "timestamp": timestamp(now),
            "value": quantity(value.value),
        })
    });
    json!({
        "kind": "ExternalMetricValueList",
        "apiVersion": format!("{EXTERNAL}/v1beta1"),
        "metadata": {},
        "items": items.collect::<Vec<_>>(),
    })
}

/// A Status for an error.
pub fn failure(code: u16, reason: &str, message: &str) -> Json {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason,
        "code": code,
    })
}

/// `/openapi/v2`.
pub fn openapi_v2(groups: Groups) -> Json {
    json!({
        "swagger": "2.0",
        "info": {"title": "vpn-operator metrics API", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths(groups.iter()),
        "definitions": {},
    })
}

/// `/openapi/v3`: where the documents of the versions are.
pub fn openapi_v3(groups: Groups) -> Json {
    let mut all = serde_json::Map::new();
    for group in groups.iter() {
        for version in group.versions() {
            let path = format!("apis/{}/{version}", group.name());
            let url = format!("/openapi/v3/{path}?hash={}", env!("CARGO_PKG_VERSION"));
            all.insert(path, json!({ "serverRelativeURL": url }));
        }
    }
    json!({ "paths": all })
}

/// `/openapi/v3/apis/GROUP/VERSION`.
pub fn openapi_v3_of(group: Group) -> Json {
    json!({
        "openapi": "3.0.0",
        "info": {"title": "vpn-operator metrics API", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths([group]),
    })
}

fn paths(groups: impl IntoIterator<Item = Group>) -> Json {
    let mut all = serde_json::Map::new();
    for group in groups {
        for version in group.versions() {
            let path = format!("/apis/{}/{version}/", group.name());
            let get = json!({
                "description": "list available resources",
                "operationId": format!("list{}{version}Resources", group.name().replace('.', "")),
                "responses": {"200": {"description": "OK"}},
            });
            all.insert(path, json!({ "get": get }));
        }
    }
    Json::Object(all)
}

fn timestamp(now: DateTime<Utc>) -> String {
    now.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A quantity, in thousandths where it has to be, rounded up as Kubernetes does.
fn quantity(value: f64) -> String {
    let milli = (value * 1000.0).ceil();
    if milli % 1000.0 == 0.0 { format!("{:.0}", milli / 1000.0) } else { format!("{milli:.0}m") }
}

#[cfg(test)]
mod tests {
    use super::quantity;

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for (value, text) in
            [(0.0, "0"), (5.0, "5"), (0.5, "500m"), (-1.25, "-1250m"), (0.0001, "1m"), (1e12, "1000000000000")]
        {
            assert_eq!(quantity(value), text);
        }
    }
}
