#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use super::*;
use crate::metrics_api::{offers::Resource, request::Group};

const ALL: Groups = Groups { custom: true, external: true };

fn get(path: &str, accept: &str, if_none_match: &str, snapshot: Option<&Snapshot>) -> Response {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    match Request::parse(ALL, path, query) {
        Ok(request) => respond(
            &request,
            &Inputs {
                groups: ALL,
                prefix: "vpno",
                offers: &Offers::default(),
                snapshot: snapshot.map(|snapshot| (snapshot, DateTime::from_timestamp(1_800_000_000, 0).unwrap())),
                accept,
                if_none_match,
            },
        ),
        Err(unknown) => Response::unknown(&unknown),
    }
}

#[test]
fn before_the_first_lists_there_is_no_value() {
    for path in [
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/vpn/metrics/vpno_masks",
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/vpn/vpno_masks",
    ] {
        let response = get(path, "", "", None);
        assert_eq!((response.code, response.body.unwrap()["reason"].as_str()), (503, Some("ServiceUnavailable")));
        assert_eq!(get(path, "", "", Some(&Snapshot::default())).code, 200);
    }
    for path in ["/apis", "/apis/custom.metrics.k8s.io/v1beta1", "/openapi/v2", "/openapi/v3"] {
        assert_eq!(get(path, "", "", None).code, 200, "{path}");
    }
}

#[test]
fn values_have_the_form_of_their_version() {
    let snapshot = Snapshot::default();
    let at = |version: &str| {
        let path = "namespaces/vpn/metrics/vpno_masks?metricLabelSelector=phase%3DActive";
        get(&format!("/apis/custom.metrics.k8s.io/{version}/{path}"), "", "", Some(&snapshot)).body.unwrap()
    };
    let object = json!({"kind": "Namespace", "name": "vpn", "apiVersion": "v1"});
    let selector = json!({"matchLabels": {"phase": "Active"}});
    assert_eq!(
        at("v1beta1"),
        json!({
            "kind": "MetricValueList", "apiVersion": "custom.metrics.k8s.io/v1beta1", "metadata": {},
            "items": [{
                "describedObject": object, "metricName": "vpno_masks", "timestamp": "2027-01-15T08:00:00Z", "value": "0",
                "selector": selector,
            }],
        })
    );
    assert_eq!(
        at("v1beta2"),
        json!({
            "kind": "MetricValueList", "apiVersion": "custom.metrics.k8s.io/v1beta2", "metadata": {},
            "items": [{
                "describedObject": object, "metric": {"name": "vpno_masks", "selector": selector},
                "timestamp": "2027-01-15T08:00:00Z", "value": "0",
            }],
        })
    );
    let path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/vpn/vpno_masks_waiting";
    assert_eq!(
        get(path, "", "", Some(&snapshot)).body.unwrap(),
        json!({
            "kind": "ExternalMetricValueList", "apiVersion": "external.metrics.k8s.io/v1beta1", "metadata": {},
            "items": [{
                "metricName": "vpno_masks_waiting", "metricLabels": {"namespace": "vpn"},
                "timestamp": "2027-01-15T08:00:00Z", "value": "0",
            }],
        })
    );
}

#[test]
fn the_selector_of_a_metric_is_a_label_selector() {
    let at = |selector: &str| {
        let path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/vpn/metrics/vpno_masks?metricLabelSelector=";
        let body = get(&format!("{path}{selector}"), "", "", Some(&Snapshot::default())).body.unwrap();
        body["items"][0]["metric"]["selector"].clone()
    };
    assert_eq!(at(""), Json::Null);
    assert_eq!(at("phase%3DActive"), json!({"matchLabels": {"phase": "Active"}}));
    assert_eq!(
        at("phase+in+(Active,Waiting),!other,more!%3Dx,none+notin+(a),namespace%3Dvpn"),
        json!({
            "matchLabels": {"namespace": "vpn"},
            "matchExpressions": [
                {"key": "more", "operator": "NotIn", "values": ["x"]},
                {"key": "none", "operator": "NotIn", "values": ["a"]},
                {"key": "other", "operator": "DoesNotExist"},
                {"key": "phase", "operator": "In", "values": ["Active", "Waiting"]},
            ],
        })
    );
}

#[test]
fn discovery_is_aggregated_for_those_who_ask_for_it() {
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    // What the aggregator of kube-apiserver sends.
    let both = format!("{aggregated},application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,*/*");
    let response = get("/apis", &both, "", None);
    assert_eq!(response.content_type, aggregated);
    let body = response.body.unwrap();
    assert_eq!(body["apiVersion"], "apidiscovery.k8s.io/v2");
    let versions: Vec<_> = body["items"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| {
            group["versions"].as_array().unwrap().iter().map(|version| {
                assert!(!version["resources"].as_array().unwrap().is_empty());
                format!("{}/{}", group["metadata"]["name"].as_str().unwrap(), version["version"].as_str().unwrap())
            })
        })
        .collect();
    let all = ["custom.metrics.k8s.io/v1beta2", "custom.metrics.k8s.io/v1beta1", "external.metrics.k8s.io/v1beta1"];
    assert_eq!(versions, all);
    let etag = response.etag.unwrap();
    let again = get("/apis", &both, &etag, None);
    assert_eq!((again.code, again.body), (304, None));

    let beta = get("/apis", "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList", "", None);
    assert_eq!(beta.body.unwrap()["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    for accept in ["", "*/*", "application/json", "application/json,application/json;as=Other"] {
        let plain = get("/apis", accept, "", None);
        assert_eq!(plain.body.unwrap()["kind"], "APIGroupList", "{accept}");
    }
}

#[test]
fn errors_are_statuses() {
    let path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/vpn/vpno_other";
    for (path, code, reason) in [
        ("/apis/custom.metrics.k8s.io/v1", 404, "NotFound"),
        (path, 404, "NotFound"),
        ("/apis/external.metrics.k8s.io/v1beta1/namespaces/vpn/vpno_masks?labelSelector=a%20b", 400, "BadRequest"),
    ] {
        let response = get(path, "", "", Some(&Snapshot::default()));
        let body = response.body.unwrap();
        assert_eq!((response.code, body["kind"].as_str()), (code, Some("Status")), "{path}");
        assert_eq!((body["code"].as_u64(), body["reason"].as_str()), (Some(code.into()), Some(reason)), "{path}");
    }
}

#[test]
fn unknown_paths_are_answered_as_by_kube_apiserver() {
    let body = get("/apis/custom.metrics.k8s.io/v1", "", "", None).body.unwrap();
    let message = "the server could not find the requested resource";
    assert_eq!(
        body,
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
            "reason": "NotFound", "details": {}, "code": 404,
        })
    );
}

#[test]
fn lists_of_resources_are_those_of_all_servers() {
    let name = |text: &str| text.to_owned();
    let other = |name: String| Resource { name, kind: "Other".to_owned(), namespaced: true };
    let mut offers = Offers::default();
    let own = "maskproviders.vpn.beebs.dev/vpno_provider_slots";
    offers.replace(Group::Custom, [("v1beta1", vec![other(name("pods/load")), other(name(own))])]);
    let ask = |path: &str, accept: &str| {
        let request = Request::parse(ALL, path, "").unwrap();
        let inputs = Inputs { groups: ALL, prefix: "vpno", offers: &offers, snapshot: None, accept, if_none_match: "" };
        respond(&request, &inputs).body.unwrap()
    };
    let names = |list: &Json, key: &str| -> Vec<String> {
        list.as_array().unwrap().iter().map(|one| one[key].as_str().unwrap().to_owned()).collect()
    };
    let count = |all: &[String], name: &str| all.iter().filter(|one| **one == *name).count();
    for (version, loads) in [("v1beta1", 1), ("v1beta2", 0)] {
        let list = ask(&format!("/apis/custom.metrics.k8s.io/{version}"), "");
        let all = names(&list["resources"], "name");
        assert_eq!((count(&all, "pods/load"), count(&all, own)), (loads, 1), "{version}");
    }
    let document = ask("/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let versions = &document["items"][0]["versions"];
    for (number, version, loads) in [(0, "v1beta2", 0), (1, "v1beta1", 1)] {
        assert_eq!(versions[number]["version"], version);
        let all = names(&versions[number]["resources"], "resource");
        assert_eq!((count(&all, "pods/load"), count(&all, own)), (loads, 1), "{version}");
    }
}
