//! The attributes of a request as in the audit log: verb, resource, name.

use http::{Method, Uri};
use jiff::Timestamp;
use serde_json::Value;

use crate::audit::Request;

/// Derives the attributes from an HTTP request. The user and the result are unknown.
pub(super) fn read(method: &Method, uri: &Uri, user_agent: &str, body: &[u8]) -> Request {
    let now = Timestamp::now();
    let mut request = Request {
        user: String::new(),
        user_agent: user_agent.to_owned(),
        verb: method.as_str().to_lowercase(),
        group: String::new(),
        resource: String::new(),
        subresource: String::new(),
        namespace: String::new(),
        name: String::new(),
        uri: uri.to_string(),
        code: 0,
        received: now,
        answered: now,
    };
    let segments: Vec<_> = uri.path().split('/').filter(|segment| !segment.is_empty()).collect();
    let rest = match segments.as_slice() {
        ["api", _, rest @ ..] => rest,
        ["apis", group, _, rest @ ..] => {
            request.group = (*group).to_owned();
            rest
        }
        _ => return request,
    };
    let rest = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => {
            request.namespace = (*namespace).to_owned();
            rest
        }
        rest => rest,
    };
    let mut words = rest.iter().map(|word| (*word).to_owned());
    request.resource = words.next().unwrap_or_default();
    request.name = words.next().unwrap_or_default();
    request.subresource = words.next().unwrap_or_default();
    let query = uri.query().unwrap_or_default();
    let is_watch = query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"));
    request.verb = match *method {
        Method::GET if is_watch => "watch",
        Method::GET if request.name.is_empty() => "list",
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => return request,
    }
    .to_owned();
    if request.verb == "create" {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        request.name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: Method, uri: &'static str, body: &str) -> [String; 6] {
        let Request { verb, group, resource, subresource, namespace, name, .. } =
            read(&method, &Uri::from_static(uri), "", body.as_bytes());
        [verb, group, resource, subresource, namespace, name]
    }

    #[test]
    fn requests_are_called_as_in_the_audit_log() {
        for (method, uri, body, expected) in [
            (Method::GET, "/apis/g/v1/things?limit=5", "", ["list", "g", "things", "", "", ""]),
            (Method::GET, "/apis/g/v1/things?watch=true&x=1", "", ["watch", "g", "things", "", "", ""]),
            (Method::GET, "/api/v1/namespaces/n/secrets?&watch=1", "", ["watch", "", "secrets", "", "n", ""]),
            (Method::GET, "/api/v1/namespaces/n/pods/p", "", ["get", "", "pods", "", "n", "p"]),
            (Method::GET, "/api/v1/namespaces/n", "", ["get", "", "namespaces", "", "", "n"]),
            (
                Method::POST,
                "/api/v1/namespaces",
                r#"{"metadata":{"name":"n"}}"#,
                ["create", "", "namespaces", "", "", "n"],
            ),
            (
                Method::PATCH,
                "/apis/g/v1/namespaces/n/things/t/status",
                "",
                ["patch", "g", "things", "status", "n", "t"],
            ),
            (Method::DELETE, "/apis/g/v1/namespaces/n/things/t", "", ["delete", "g", "things", "", "n", "t"]),
            (Method::GET, "/readyz", "", ["get", "", "", "", "", ""]),
        ] {
            assert_eq!(of(method, uri, body), expected.map(str::to_owned), "{uri}");
        }
    }
}
