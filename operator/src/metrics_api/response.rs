//! The response to a request of a caller that has permission for it.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value as Json, json};

use super::{
    documents,
    names::unknown,
    offers::Offers,
    request::{Groups, Request, Unknown},
    selector::Selector,
    values::{NoValue, Value, Values},
};
use crate::{metrics::Snapshot, state::fingerprint};

/// The media type of documents.
const JSON: &str = "application/json";

/// A response.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// The HTTP status.
    pub code: u16,
    /// The media type.
    pub content_type: String,
    /// The entity tag of a document that changes rarely.
    pub etag: Option<String>,
    /// The document. Absent if the caller has it already.
    pub body: Option<Json>,
}

impl Response {
    /// Returns the response with a document.
    pub(super) fn document(body: Json) -> Self {
        Self { code: 200, content_type: JSON.to_owned(), etag: None, body: Some(body) }
    }

    /// Returns the response for an error. `reason` is that of a Status.
    pub fn failure(code: u16, reason: &str, message: &str) -> Self {
        Self { code, ..Self::document(documents::failure(code, reason, message)) }
    }

    /// Returns the response for a path that is no request.
    pub fn unknown(unknown: &Unknown) -> Self {
        match unknown {
            Unknown::NotFound => {
                let why = "the server could not find the requested resource";
                let mut document = documents::failure(404, "NotFound", why);
                // As kube-apiserver does for a path that it does not know.
                document["details"] = json!({});
                Self { code: 404, ..Self::document(document) }
            }
            Unknown::BadRequest(why) => Self::failure(400, "BadRequest", why),
        }
    }

    fn without(why: &NoValue) -> Self {
        match why {
            NoValue::NotFound(why) | NoValue::UnknownMetric(why) => Self::failure(404, "NotFound", why),
            NoValue::BadRequest(why) => Self::failure(400, "BadRequest", why),
            NoValue::Unavailable(why) => Self::failure(503, "ServiceUnavailable", why),
        }
    }

    /// Returns the response with values of a custom metric in a version.
    pub fn of_values(
        version: &str,
        found: &Result<Vec<Value>, NoValue>,
        selector: &Selector,
        now: DateTime<Utc>,
    ) -> Self {
        match found {
            Ok(found) => {
                Self::document(documents::custom_values(version, found, selector_document(selector).as_ref(), now))
            }
            Err(why) => Self::without(why),
        }
    }

    /// Adds the entity tag, and drops the body if the caller has it.
    fn tagged(mut self, known: &str) -> Self {
        let etag = format!("\"{:016X}\"", fingerprint(&self.body));
        if known.split(',').any(|known| known.trim() == etag) {
            (self.code, self.body) = (304, None);
        }
        self.etag = Some(etag);
        self
    }
}

/// What the response depends on, beside the request.
pub struct Inputs<'a> {
    /// The groups that are served.
    pub groups: Groups,
    /// The prefix of the names of metrics.
    pub prefix: &'a str,
    /// The snapshot and its time. Absent while the first lists are not complete.
    pub snapshot: Option<(&'a Snapshot, DateTime<Utc>)>,
    /// What the servers offer that requests are passed on to.
    pub offers: &'a Offers,
    /// The header `Accept`.
    pub accept: &'a str,
    /// The header `If-None-Match`.
    pub if_none_match: &'a str,
}

/// Returns the response to a request.
pub fn respond(request: &Request, inputs: &Inputs<'_>) -> Response {
    let Inputs { groups, prefix, offers, accept, if_none_match, .. } = *inputs;
    let values = inputs.snapshot.map(|(snapshot, now)| Values { snapshot, prefix, now });
    match request {
        Request::Groups => match discovery_version(accept) {
            Some(version) => {
                let content_type = format!("{JSON};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
                let document = documents::aggregated_discovery(groups, prefix, version, offers);
                Response { content_type, ..Response::document(document) }.tagged(if_none_match)
            }
            None => Response::document(documents::groups(groups)),
        },
        Request::Group(group) => Response::document(documents::group(*group)),
        Request::Resources(group, version) => {
            Response::document(documents::resource_list(*group, version, prefix, offers))
        }
        Request::OpenApiV2 => Response::document(documents::openapi_v2(groups)).tagged(if_none_match),
        Request::OpenApiV3 => Response::document(documents::openapi_v3(groups)).tagged(if_none_match),
        Request::OpenApiV3Of(group, _) => Response::document(documents::openapi_v3_of(*group)).tagged(if_none_match),
        Request::Custom { version, query } => {
            let Some(values) = values else { return not_ready() };
            Response::of_values(version, &values.custom(query), &query.selector, values.now)
        }
        Request::Cluster { .. } => Response::failure(404, "NotFound", &unknown(request, prefix).unwrap_or_default()),
        Request::External { namespace, metric, selector } => {
            let Some(values) = values else { return not_ready() };
            match values.external(namespace, metric, selector) {
                Ok(found) => Response::document(documents::external_values(&found, values.now)),
                Err(why) => Response::without(&why),
            }
        }
    }
}

fn not_ready() -> Response {
    let why = "the slots are not known yet: the first lists of the operator are not complete";
    Response::failure(503, "ServiceUnavailable", why)
}

/// Returns the selector of a metric as a LabelSelector, in the order of other servers of metrics.
fn selector_document(selector: &Selector) -> Option<Json> {
    if selector.is_empty() {
        return None;
    }
    let expressions = selector.matcher().expressions().iter().cloned();
    let mut document = LabelSelector::from(expressions.collect::<kube::core::Selector>());
    document.match_expressions.iter_mut().for_each(|all| all.sort_by(|one, other| one.key.cmp(&other.key)));
    Some(json!(document))
}

/// Returns the version of aggregated discovery that a caller prefers to a list of groups.
fn discovery_version(accept: &str) -> Option<&'static str> {
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let parameters: Vec<_> = parts.collect();
        let has = |parameter: &str| parameters.contains(&parameter);
        if media_type == JSON && has("as=APIGroupDiscoveryList") && has("g=apidiscovery.k8s.io") {
            for version in ["v2", "v2beta1"] {
                if has(&format!("v={version}")) {
                    return Some(version);
                }
            }
        } else if matches!(media_type, JSON | "*/*" | "application/*") && !has("as=APIGroupDiscoveryList") {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests;
