//! Requests to the metrics API, from path and query.

use std::borrow::Cow;

use super::selector::Selector;

/// The group of custom metrics.
pub const CUSTOM: &str = "custom.metrics.k8s.io";
/// The group of external metrics.
pub const EXTERNAL: &str = "external.metrics.k8s.io";

/// A group that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// `custom.metrics.k8s.io`.
    Custom,
    /// `external.metrics.k8s.io`.
    External,
}

impl Group {
    /// The name of the group.
    pub fn name(self) -> &'static str {
        match self {
            Group::Custom => CUSTOM,
            Group::External => EXTERNAL,
        }
    }

    /// The versions, the preferred one first.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Group::Custom => &["v1beta2", "v1beta1"],
            Group::External => &["v1beta1"],
        }
    }
}

/// The groups that a process serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Whether `custom.metrics.k8s.io` is served.
    pub custom: bool,
    /// Whether `external.metrics.k8s.io` is served.
    pub external: bool,
}

impl Groups {
    /// Returns the groups.
    pub fn iter(self) -> impl Iterator<Item = Group> {
        let all = [(self.custom, Group::Custom), (self.external, Group::External)];
        all.into_iter().filter_map(|(served, group)| served.then_some(group))
    }

    /// Returns the group of that name, if it is served.
    pub fn find(self, name: &str) -> Option<Group> {
        self.iter().find(|group| group.name() == name)
    }
}

/// Which objects a request for custom metrics is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objects {
    /// One object, by name.
    Named(String),
    /// The objects that a label selector matches.
    Selected(Selector),
}

/// What a request for a custom metric asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomQuery {
    /// The namespace.
    pub namespace: String,
    /// The resource with its group, such as `deployments.apps`; `namespaces` for the namespace itself.
    pub resource: String,
    /// The objects.
    pub objects: Objects,
    /// The name of the metric.
    pub metric: String,
    /// The selector for labels of the metric.
    pub selector: Selector,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `/apis`.
    Groups,
    /// `/apis/GROUP`.
    Group(Group),
    /// `/apis/GROUP/VERSION`.
    Resources(Group, &'static str),
    /// `/openapi/v2`.
    OpenApiV2,
    /// `/openapi/v3`.
    OpenApiV3,
    /// `/openapi/v3/apis/GROUP/VERSION`.
    OpenApiV3Of(Group, &'static str),
    /// A metric of objects in a namespace, or of the namespace itself.
    Custom {
        /// The version of the response.
        version: &'static str,
        /// What it asks for.
        query: CustomQuery,
    },
    /// A metric of an object without a namespace, such as a Node. This server has none.
    Cluster {
        /// The version of the response.
        version: &'static str,
        /// The resource with its group.
        resource: String,
        /// The name of the object, or `*`.
        name: String,
        /// The name of the metric.
        metric: String,
    },
    /// A metric that belongs to no object.
    External {
        /// The namespace of the caller's object.
        namespace: String,
        /// The name of the metric.
        metric: String,
        /// The selector for labels of the metric.
        selector: Selector,
    },
}

/// Why a path is no request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Nothing is served at this path.
    NotFound,
    /// A parameter is wrong.
    BadRequest(String),
}

impl Request {
    /// Parses the path and the query of a URL.
    ///
    /// # Errors
    ///
    /// If nothing is served there, or a parameter is wrong.
    pub fn parse(groups: Groups, path: &str, query: &str) -> Result<Self, Unknown> {
        let decoded: Vec<Cow<'_, str>> = path.trim_matches('/').split('/').map(decode).collect();
        let segments: Vec<&str> = decoded.iter().map(|segment| &**segment).collect();
        let version = |group: &str, version: &str| {
            let group = groups.find(group).ok_or(Unknown::NotFound)?;
            let known = group.versions().iter().find(|known| **known == version).ok_or(Unknown::NotFound)?;
            Ok((group, *known))
        };
        match segments[..] {
            ["apis"] => Ok(Request::Groups),
            ["apis", group] => groups.find(group).map(Request::Group).ok_or(Unknown::NotFound),
            ["apis", group, name] => version(group, name).map(|(group, name)| Request::Resources(group, name)),
            ["openapi", "v2"] => Ok(Request::OpenApiV2),
            ["openapi", "v3"] => Ok(Request::OpenApiV3),
            ["openapi", "v3", "apis", group, name] => {
                version(group, name).map(|(group, name)| Request::OpenApiV3Of(group, name))
            }
            ["apis", group, name, "namespaces", namespace, ref rest @ ..] => {
                let (group, version) = version(group, name)?;
                metric(group, version, namespace, rest, query)
            }
            ["apis", CUSTOM, version_name, resource, name, metric] => {
                let (_, version) = version(CUSTOM, version_name)?;
                let [resource, name, metric] = [resource, name, metric].map(str::to_owned);
                Ok(Request::Cluster { version, resource, name, metric })
            }
            _ => Err(Unknown::NotFound),
        }
    }
}

fn metric(
    group: Group,
    version: &'static str,
    namespace: &str,
    rest: &[&str],
    query: &str,
) -> Result<Request, Unknown> {
    let selector = |name: &str| Selector::parse(&parameter(query, name)).map_err(Unknown::BadRequest);
    let custom = |resource: &str, objects: Objects, metric: &str| {
        let query = CustomQuery {
            namespace: namespace.to_owned(),
            resource: resource.to_owned(),
            objects,
            metric: metric.to_owned(),
            selector: selector("metricLabelSelector")?,
        };
        Ok(Request::Custom { version, query })
    };
    match (group, rest) {
        (Group::Custom, ["metrics", metric]) => custom("namespaces", Objects::Named(namespace.to_owned()), metric),
        (Group::Custom, [resource, "*", metric]) => {
            custom(resource, Objects::Selected(selector("labelSelector")?), metric)
        }
        (Group::Custom, [resource, name, metric]) => custom(resource, Objects::Named((*name).to_owned()), metric),
        (Group::External, [metric]) => Ok(Request::External {
            namespace: namespace.to_owned(),
            metric: (*metric).to_owned(),
            selector: selector("labelSelector")?,
        }),
        _ => Err(Unknown::NotFound),
    }
}

/// Returns a parameter of a query, or the empty string.
fn parameter(query: &str, name: &str) -> String {
    let all = form_urlencoded::parse(query.as_bytes());
    all.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).next().unwrap_or_default()
}

fn decode(segment: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(segment).decode_utf8_lossy()
}

/// What a caller needs permission for, as in a SubjectAccessReview.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Attributes {
    /// A URL that belongs to no resource.
    Path(String),
    /// A resource.
    Resource {
        /// The verb.
        verb: &'static str,
        /// The group.
        group: &'static str,
        /// The version.
        version: &'static str,
        /// The namespace.
        namespace: String,
        /// The resource.
        resource: String,
        /// The subresource.
        subresource: String,
        /// The name; empty for several objects.
        name: String,
    },
}

impl Request {
    /// Returns what a caller needs permission for. For metrics, it is what kube-apiserver makes of the same path.
    pub fn attributes(&self, path: &str) -> Attributes {
        match self {
            Request::Custom { version, query: CustomQuery { namespace, resource, objects, metric, .. } } => {
                let (resource, name, subresource) = match (&**resource, objects) {
                    ("namespaces", _) => ("metrics", metric.as_str(), ""),
                    (resource, Objects::Named(name)) => (resource, name.as_str(), metric.as_str()),
                    (resource, Objects::Selected(_)) => (resource, "*", metric.as_str()),
                };
                Attributes::Resource {
                    verb: "get",
                    group: CUSTOM,
                    version,
                    namespace: namespace.clone(),
                    resource: resource.to_owned(),
                    subresource: subresource.to_owned(),
                    name: name.to_owned(),
                }
            }
            Request::Cluster { version, resource, name, metric } => Attributes::Resource {
                verb: "get",
                group: CUSTOM,
                version,
                namespace: String::new(),
                resource: resource.clone(),
                subresource: metric.clone(),
                name: name.clone(),
            },
            Request::External { namespace, metric, .. } => Attributes::Resource {
                verb: "list",
                group: EXTERNAL,
                version: "v1beta1",
                namespace: namespace.clone(),
                resource: metric.clone(),
                subresource: String::new(),
                name: String::new(),
            },
            _ => Attributes::Path(path.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
