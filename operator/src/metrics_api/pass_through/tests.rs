#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::metrics_api::{
    names::unknown,
    request::{Attributes, Groups},
};

const ALL: Groups = Groups { custom: true, external: true };
const SERVER: &str = "https://adapter.monitoring.svc:443";
const CUSTOM: &str = "/apis/custom.metrics.k8s.io";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io";

fn request(path: &str, query: &str) -> Request {
    Request::parse(ALL, path, query).unwrap()
}

fn question(path: &str, query: &str, offers: &Offers) -> Option<Question> {
    Question::of(&request(path, query), query, offers)
}

fn offers(versions: &[&'static str]) -> Offers {
    let mut offers = Offers::default();
    offers.replace(Group::Custom, versions.iter().map(|version| (*version, Vec::new())));
    offers
}

fn json_answer(code: u16, body: &Json) -> Answer {
    Answer { code, content_type: "application/json; charset=utf-8".to_owned(), body: body.to_string().into_bytes() }
}

/// Returns code, reason and message of the response.
fn status(question: &Question, answer: Result<Answer, String>) -> (u16, String, String) {
    let Response { code, body, .. } = respond(question, answer, "no such metric here", SERVER);
    let body = body.unwrap();
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    assert_eq!((body["kind"].as_str(), body["code"].as_u64()), (Some("Status"), Some(code.into())), "{body}");
    (code, text("reason"), text("message"))
}

#[test]
fn the_same_path_and_query_are_asked() {
    for (path, query) in [
        (format!("{CUSTOM}/v1beta2/namespaces/media/pods/*/load"), "labelSelector=app%3Da&metricLabelSelector=b"),
        (format!("{CUSTOM}/v1beta1/namespaces/media/services/web/http:load%7Cmax"), ""),
        (format!("{CUSTOM}/v1beta2/namespaces/media/metrics/load"), "metricLabelSelector=b"),
        (format!("{CUSTOM}/v1beta2/nodes/*/load"), ""),
        (format!("{EXTERNAL}/v1beta1/namespaces/media/s0-queue"), "labelSelector=scaledobject.keda.sh%2Fname%3Da"),
    ] {
        let asked = question(&path, query, &Offers::default()).unwrap();
        let wanted = if query.is_empty() { path } else { format!("{path}?{query}") };
        assert_eq!(asked.path, wanted);
        assert_eq!(asked.asked, asked.wanted);
    }
    for path in ["/apis", CUSTOM, "/apis/custom.metrics.k8s.io/v1beta1", "/openapi/v3"] {
        assert_eq!(question(path, "", &Offers::default()), None, "{path}");
    }
}

#[test]
fn a_name_that_another_server_could_read_as_a_path_is_not_passed_on() {
    for name in ["..", ".", "%2e%2e", "a%2Fb", "..%2F..%2Fother", "a%252Fb", "%2F"] {
        for path in [
            format!("{CUSTOM}/v1beta2/namespaces/mine/pods/*/{name}"),
            format!("{CUSTOM}/v1beta2/namespaces/mine/pods/{name}/load"),
            format!("{CUSTOM}/v1beta2/namespaces/{name}/pods/a/load"),
            format!("{CUSTOM}/v1beta2/nodes/a/{name}"),
            format!("{EXTERNAL}/v1beta1/namespaces/{name}/load"),
        ] {
            assert_eq!(question(&path, "", &Offers::default()), None, "{path}");
        }
    }
}

#[test]
fn a_server_is_asked_in_a_version_that_it_has() {
    let path = format!("{CUSTOM}/v1beta2/namespaces/media/pods/*/load");
    for (served, asked) in [
        (&["v1beta1", "v1beta2"][..], "v1beta2"),
        (&["v1beta1"], "v1beta1"),
        (&["v1beta2"], "v1beta2"),
        (&[], "v1beta2"),
    ] {
        let question = question(&path, "", &offers(served)).unwrap();
        assert_eq!((question.asked, question.wanted), (asked, "v1beta2"));
        assert!(question.path.contains(asked), "{}", question.path);
        // Also while it is down.
        let mut offers = offers(served);
        offers.clear(Group::Custom);
        assert_eq!(Question::of(&request(&path, ""), "", &offers), Some(question));
    }
    let question = question(&path, "", &offers(&["v1beta1"])).unwrap();
    let old = json!({
        "kind": "MetricValueList", "apiVersion": "custom.metrics.k8s.io/v1beta1", "metadata": {},
        "items": [{
            "describedObject": {"kind": "Pod", "name": "a"}, "metricName": "load", "timestamp": "2027-01-15T08:00:00Z",
            "window": 60, "value": "500m", "selector": null,
        }],
    });
    let new = json!({
        "kind": "MetricValueList", "apiVersion": "custom.metrics.k8s.io/v1beta2", "metadata": {},
        "items": [{
            "describedObject": {"kind": "Pod", "name": "a"}, "metric": {"name": "load", "selector": null},
            "timestamp": "2027-01-15T08:00:00Z", "windowSeconds": 60, "value": "500m",
        }],
    });
    let response = respond(&question, Ok(json_answer(200, &old)), "", SERVER);
    assert_eq!((response.code, response.body), (200, Some(new)));
}

#[test]
fn values_are_handed_on_as_they_are() {
    let question = question(&format!("{EXTERNAL}/v1beta1/namespaces/media/load"), "", &Offers::default()).unwrap();
    let values =
        json!({"kind": "ExternalMetricValueList", "items": [{"metricName": "load", "value": "1", "more": {}}]});
    let response = respond(&question, Ok(json_answer(200, &values)), "", SERVER);
    assert_eq!((response.code, response.body), (200, Some(values)));
}

#[test]
fn whatever_the_answer_is_there_is_a_status_that_names_the_server() {
    let question = question(&format!("{CUSTOM}/v1beta2/namespaces/media/pods/*/load"), "", &Offers::default()).unwrap();
    let of_status = |code: u16, reason: &str| {
        json_answer(code, &json!({"kind": "Status", "code": code, "reason": reason, "message": "because"}))
    };
    let html = Answer { code: 200, content_type: "text/html".to_owned(), body: b"<html>".to_vec() };
    let broken = Answer { body: b"{".to_vec(), ..json_answer(200, &json!(0)) };
    for (answer, code, reason, says) in [
        (Err("connection refused".to_owned()), 503, "ServiceUnavailable", "gives no answer: connection refused"),
        (Ok(html), 503, "ServiceUnavailable", "answered 200 with the type \"text/html\", not JSON"),
        (Ok(broken), 503, "ServiceUnavailable", "broken JSON"),
        (Ok(Answer { code: 302, ..Answer::default() }), 503, "ServiceUnavailable", "answered 302"),
        (Ok(json_answer(200, &json!({"kind": "PodList", "items": []}))), 503, "ServiceUnavailable", "\"PodList\""),
        (Ok(json_answer(200, &json!({"kind": "MetricValueList"}))), 503, "ServiceUnavailable", "not with values"),
        (Ok(json_answer(200, &json!([1]))), 503, "ServiceUnavailable", "not with values"),
        (Ok(of_status(401, "Unauthorized")), 503, "ServiceUnavailable", "refuses the ServiceAccount"),
        (Ok(of_status(403, "Forbidden")), 503, "ServiceUnavailable", "refuses the ServiceAccount"),
        (Ok(of_status(404, "NotFound")), 404, "NotFound", "no such metric here; https://adapter"),
        (Ok(json_answer(404, &json!({"paths": []}))), 503, "ServiceUnavailable", "answered 404"),
        (Ok(of_status(429, "TooManyRequests")), 429, "TooManyRequests", "because"),
        (Ok(of_status(500, "InternalError")), 500, "InternalError", "because"),
        (Ok(of_status(508, "LoopDetected")), 508, "LoopDetected", "because"),
        (Ok(of_status(999, "Odd")), 503, "ServiceUnavailable", "answered 999"),
    ] {
        let (found, why, message) = status(&question, answer);
        assert_eq!((found, &*why), (code, reason), "{message}");
        assert!(message.contains(says) && message.contains(SERVER), "{message}");
    }
    let long = json_answer(500, &json!({"kind": "Status", "message": "x".repeat(100_000)}));
    assert!(status(&question, Ok(long)).2.len() < 1000);
}

#[test]
fn lists_of_resources_are_bounded() {
    let list = |resources: Json| json_answer(200, &json!({"kind": "APIResourceList", "resources": resources}));
    let one = json!({"name": "pods/load", "kind": "MetricValueList", "namespaced": true, "verbs": ["get"]});
    let resource = Resource { name: "pods/load".to_owned(), kind: "MetricValueList".to_owned(), namespaced: true };
    assert_eq!(list(json!([one, one])).resources(), Ok(Some(vec![resource])));
    assert_eq!(Answer { code: 404, ..Answer::default() }.resources(), Ok(None));
    let strange = json!([{"name": ""}, {"name": "x".repeat(513)}, {"name": "x", "kind": "x".repeat(513)}]);
    assert_eq!(list(strange).resources(), Ok(Some(Vec::new())));
    let many: Vec<_> = (0..6000).map(|number| json!({ "name": format!("pods/{number}") })).collect();
    assert_eq!(list(json!(many)).resources().unwrap().unwrap().len(), 5000);
    for answer in [
        list(json!("none")),
        json_answer(200, &json!({"kind": "APIGroup"})),
        json_answer(403, &json!({"kind": "Status", "message": "no"})),
        Answer { code: 200, content_type: "text/html".to_owned(), body: Vec::new() },
    ] {
        assert!(answer.resources().is_err(), "{answer:?}");
    }
}

#[test]
fn a_request_is_passed_on_once() {
    let headers = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(VIA, HeaderValue::from_str(value).unwrap());
        }
        headers
    };
    assert!(is_passed_on(&headers(&["1.1 vpn-operator-metrics-api"])));
    assert!(is_passed_on(&headers(&["2.0 proxy", "1.0 a, 1.1 VPN-operator-metrics-api (of b)"])));
    for other in [&[][..], &["1.1 proxy"], &["vpn-operator-metrics-api"], &["1.1 vpn-operator-metrics-apis"]] {
        assert!(!is_passed_on(&headers(other)), "{other:?}");
    }
}

#[test]
fn metrics_of_this_server_are_not_asked_of_another_one() {
    let is_unknown = |path: &str| unknown(&request(path, ""), "vpno").is_some();
    for path in [
        format!("{CUSTOM}/v1beta2/namespaces/media/maskproviders.vpn.beebs.dev/gone/vpno_provider_slots"),
        format!("{CUSTOM}/v1beta2/namespaces/media/metrics/vpno_masks"),
        format!("{CUSTOM}/v1beta2/namespaces/media/deployments.apps/a/vpno_claimable_slots"),
        format!("{EXTERNAL}/v1beta1/namespaces/media/vpno_tag_slots_free"),
        CUSTOM.to_owned(),
        "/apis".to_owned(),
    ] {
        assert!(!is_unknown(&path), "{path}");
    }
    for path in [
        format!("{CUSTOM}/v1beta2/namespaces/media/maskproviders.vpn.beebs.dev/one/other"),
        format!("{CUSTOM}/v1beta2/namespaces/media/metrics/load"),
        format!("{CUSTOM}/v1beta2/namespaces/media/deployments.apps/a/load"),
        format!("{CUSTOM}/v1beta2/namespaces/media/pods/*/vpno_claimable_slots"),
        format!("{CUSTOM}/v1beta2/nodes/a/vpno_claimable_slots"),
        format!("{EXTERNAL}/v1beta1/namespaces/media/s0-queue"),
    ] {
        assert!(is_unknown(&path), "{path}");
    }
}

#[test]
fn an_address_has_a_host_and_nothing_behind_it() {
    for text in ["https://adapter.monitoring.svc:443", "https://adapter.monitoring.svc", "https://[::1]:8443"] {
        assert!(parse_address(text).is_ok(), "{text}");
    }
    for text in ["", "adapter", "http://adapter", "https://", "https://a/", "https://a/b", "https://a?b", "https://u@a"]
    {
        assert!(parse_address(text).is_err(), "{text}");
    }
}

proptest! {
    /// What is asked is what the user has permission for.
    #[test]
    fn what_is_asked_is_read_as_the_same_request(path in "/apis/custom.metrics.k8s.io/v1beta2(/[a-z.*%0-9]{1,12}){3,5}") {
        if let Ok(request) = Request::parse(ALL, &path, "")
            && let Some(question) = Question::of(&request, "", &Offers::default())
        {
            let again = Request::parse(ALL, &question.path, "").unwrap();
            let (one, other): (Attributes, Attributes) = (request.attributes(&path), again.attributes(&question.path));
            prop_assert_eq!(one, other);
        }
    }
}
