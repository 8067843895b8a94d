//! Metrics that this server does not know, but the server that had the API group before does: the requests to that
//! server, and the conversion of its responses. Pure.
//!
//! Invariant: a metric of this server is never asked of another one, and a request is passed on once at most.

use std::collections::BTreeSet;

use http::{HeaderMap, Uri, header::VIA};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{
    names::NAMESPACES,
    offers::{Offers, Resource},
    request::{CustomQuery, Group, Objects, Request},
    response::Response,
};

/// What this server calls itself in the header `Via` of requests that it passes on.
pub const PSEUDONYM: &str = "vpn-operator-metrics-api";
/// The maximum number of resources of a version that are shown of another server. What is beyond them can be read, but
/// is in no list.
const MAX_RESOURCES: usize = 5000;
/// The longest name of a resource with its metric, in bytes.
const MAX_NAME_BYTES: usize = 512;
/// The longest part of a message of another server, in characters.
const MAX_MESSAGE_CHARS: usize = 500;
/// What is encoded in a segment of a path.
const SEGMENT: AsciiSet =
    NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'*').remove(b':');

/// Parses the address of another server.
///
/// # Errors
///
/// If it is not `https://HOST` or `https://HOST:PORT`.
pub fn parse_address(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
    let plain = uri.path() == "/" && uri.query().is_none() && !text.contains('@') && !text.ends_with('/');
    if uri.scheme_str() != Some("https") || !plain || uri.host().is_none_or(str::is_empty) {
        return Err("expected https://HOST or https://HOST:PORT".to_owned());
    }
    Ok(uri)
}

/// Whether a request has been passed on by this server, or by another of its kind.
pub fn is_passed_on(headers: &HeaderMap) -> bool {
    let entries = headers.get_all(VIA).into_iter().filter_map(|value| value.to_str().ok());
    let mut entries = entries.flat_map(|value| value.split(','));
    entries.any(|entry| entry.split_whitespace().nth(1).is_some_and(|name| name.eq_ignore_ascii_case(PSEUDONYM)))
}

/// A question to another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The group.
    pub group: Group,
    /// The version in which it is asked.
    pub asked: &'static str,
    /// The version in which it is answered.
    pub wanted: &'static str,
    /// Path and query.
    pub path: String,
}

impl Question {
    /// Returns the question for a request, or `None` if it is not for a metric, or a name in it cannot be part of a path.
    ///
    /// The path is built from the authorized attributes, because two servers may parse the same path in different ways.
    pub fn of(request: &Request, query: &str, offers: &Offers) -> Option<Self> {
        let (group, wanted, segments) = match request {
            Request::Custom { version, query: CustomQuery { namespace, resource, objects, metric, .. } } => {
                let object = match objects {
                    Objects::Named(name) => name,
                    Objects::Selected(_) => "*",
                };
                let segments = match &**resource {
                    NAMESPACES => vec![NAMESPACES, namespace, "metrics", metric],
                    resource => vec![NAMESPACES, namespace, resource, object, metric],
                };
                (Group::Custom, *version, segments)
            }
            Request::Cluster { version, resource, name, metric } => {
                (Group::Custom, *version, vec![&**resource, name, metric])
            }
            Request::External { namespace, metric, .. } => {
                (Group::External, Group::External.versions()[0], vec![NAMESPACES, namespace, metric])
            }
            _ => return None,
        };
        let is_segment = |text: &&str| !["", ".", ".."].contains(text) && !text.contains(['/', '%']);
        if !segments.iter().all(is_segment) {
            return None;
        }
        // A server that only has the older version is asked in that one.
        let served = |version: &&'static str| offers.serves(group, version);
        let others = group.versions().iter().copied().find(served);
        let asked = if served(&wanted) { wanted } else { others.unwrap_or(wanted) };
        let segments: Vec<_> = segments.iter().map(|text| utf8_percent_encode(text, &SEGMENT).to_string()).collect();
        let mut path = format!("/apis/{}/{asked}/{}", group.name(), segments.join("/"));
        if !query.is_empty() {
            path = format!("{path}?{query}");
        }
        Some(Self { group, asked, wanted, path })
    }
}

/// An answer of another server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub code: u16,
    /// The media type.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Parses the body. Anything can be behind an address.
    fn document(&self) -> Result<Json, String> {
        let media_type = self.content_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            return Err(format!("answered {} with the type {:?}, not JSON", self.code, short(media_type)));
        }
        serde_json::from_slice(&self.body).map_err(|error| format!("answered {} with broken JSON: {error}", self.code))
    }

    /// Returns the resources in a list of discovery, or `None` if the version is not served.
    ///
    /// # Errors
    ///
    /// If it is no such list.
    pub fn resources(&self) -> Result<Option<Vec<Resource>>, String> {
        #[derive(Deserialize)]
        struct List {
            kind: String,
            resources: Vec<Resource>,
        }
        if self.code == 404 {
            return Ok(None);
        }
        let document = self.document()?;
        if self.code != 200 {
            return Err(format!("answered {}: {}", self.code, message(&document)));
        }
        let list = List::deserialize(document).map_err(|error| format!("its list of resources is broken: {error}"))?;
        if list.kind != "APIResourceList" {
            return Err(format!("answered with {:?}, not with a list of resources", short(&list.kind)));
        }
        let mut names = BTreeSet::new();
        let usable = list.resources.into_iter().filter(|resource| {
            (1..=MAX_NAME_BYTES).contains(&resource.name.len())
                && resource.kind.len() <= MAX_NAME_BYTES
                && names.insert(resource.name.clone())
        });
        Ok(Some(usable.take(MAX_RESOURCES).collect()))
    }
}

/// Returns the response with what another server says. `unknown` is why this server has no answer, and `server` the
/// address of the other one.
pub fn respond(question: &Question, answer: Result<Answer, String>, unknown: &str, server: &str) -> Response {
    let unavailable = |why: &str| Response::failure(503, "ServiceUnavailable", &format!("{unknown}; {server} {why}"));
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => return unavailable(&format!("gives no answer: {why}")),
    };
    let document = match answer.document() {
        Ok(document) => document,
        Err(why) => return unavailable(&why),
    };
    match (answer.code, document["kind"].as_str().unwrap_or_default()) {
        (200, "MetricValueList" | "ExternalMetricValueList") if document["items"].is_array() => {
            Response::document(in_version(document, question))
        }
        (200, kind) => unavailable(&format!("answered with {:?}, not with values of a metric", short(kind))),
        // The user has permission, but the other server denied it to this server.
        (code @ (401 | 403), _) => {
            unavailable(&format!("refuses the ServiceAccount of this server: {code} {}", message(&document)))
        }
        (404, "Status") => {
            let why = format!("{unknown}; {server} says: {}", message(&document));
            Response::failure(404, "NotFound", &why)
        }
        (code @ 400..600, "Status") => {
            let reason = document["reason"].as_str().map_or_else(|| "Unknown".to_owned(), short);
            Response::failure(code, &reason, &format!("{server} says: {}", message(&document)))
        }
        (code, _) => unavailable(&format!("answered {code}")),
    }
}

/// Returns values in the version that is wanted: of `v1beta1` those of `v1beta2`.
fn in_version(mut document: Json, question: &Question) -> Json {
    if (question.asked, question.wanted) != ("v1beta1", "v1beta2") {
        return document;
    }
    document["apiVersion"] = json!(format!("{}/{}", question.group.name(), question.wanted));
    for item in document["items"].as_array_mut().into_iter().flatten() {
        let Some(item) = item.as_object_mut() else { continue };
        let (name, selector) = (item.remove("metricName"), item.remove("selector"));
        item.insert("metric".to_owned(), json!({"name": name, "selector": selector}));
        if let Some(window) = item.remove("window") {
            item.insert("windowSeconds".to_owned(), window);
        }
    }
    document
}

/// Returns the message of a Status.
fn message(document: &Json) -> String {
    document["message"].as_str().map_or_else(|| "no message".to_owned(), short)
}

fn short(text: &str) -> String {
    text.chars().take(MAX_MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests;
