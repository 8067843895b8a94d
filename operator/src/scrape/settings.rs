//! The settings in the annotations of a Pod for its metrics.

use std::{collections::BTreeMap, sync::Arc};

use thiserror::Error;
use vpn_types::pod_metrics::*;

use crate::model::intern;

/// The path if the Pod names none.
pub const DEFAULT_PATH: &str = "/metrics";
/// The largest number of metrics of a Pod.
pub const MAX_NAMES: usize = 16;
/// The largest length of the name of a metric, in bytes.
pub const MAX_NAME: usize = 253;
/// The largest length of a path, in bytes.
pub const MAX_PATH: usize = 1024;

/// The reason why annotations are not understood. The text names the annotation.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// The Pod has some of the annotations, but not this one.
    #[error("annotation {0} is missing")]
    Missing(&'static str),
    /// The value is not a port.
    #[error("annotation {METRICS_PORT_ANNOTATION}: expected a port from 1 to 65535, but found {0:?}")]
    Port(String),
    /// The value is not a path.
    #[error("annotation {METRICS_PATH_ANNOTATION}: expected a path such as /metrics, but found {0:?}")]
    Path(String),
    /// One of the names is not that of a metric.
    #[error("annotation {METRICS_NAMES_ANNOTATION}: expected names of metrics, separated by commas, but found {0:?}")]
    Name(String),
    /// There are more names than allowed.
    #[error("annotation {METRICS_NAMES_ANNOTATION}: at most {MAX_NAMES} names are allowed, but there are {0}")]
    TooManyNames(usize),
}

/// What the annotations of a Pod say about its metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The port of the Pod.
    pub port: u16,
    /// The path, with its query.
    pub path: Arc<str>,
    /// The names of the metrics, each once.
    pub names: Arc<[Arc<str>]>,
}

impl Settings {
    /// Parses the annotations of a Pod. Without any of them, the answer is `None`.
    ///
    /// # Errors
    /// Names the annotation, and says what was expected.
    pub fn parse(annotations: &BTreeMap<String, String>) -> Result<Option<Self>, SettingsError> {
        if !ANNOTATIONS.iter().any(|name| annotations.contains_key(*name)) {
            return Ok(None);
        }
        let get = |name: &'static str| annotations.get(name).map(|text| text.trim());
        let port = get(METRICS_PORT_ANNOTATION).ok_or(SettingsError::Missing(METRICS_PORT_ANNOTATION))?;
        let names = get(METRICS_NAMES_ANNOTATION).ok_or(SettingsError::Missing(METRICS_NAMES_ANNOTATION))?;
        Ok(Some(Self {
            port: port.parse().ok().filter(|port| *port > 0).ok_or_else(|| SettingsError::Port(shortened(port)))?,
            path: path(get(METRICS_PATH_ANNOTATION).unwrap_or(DEFAULT_PATH))?,
            names: list(names)?,
        }))
    }
}

/// Whether the labels of a namespace allow its Pods to offer metrics.
pub fn is_enabled(labels_of_namespace: &BTreeMap<String, String>) -> bool {
    labels_of_namespace.get(POD_METRICS_LABEL).is_some_and(|value| value == POD_METRICS_ENABLED)
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

fn path(text: &str) -> Result<Arc<str>, SettingsError> {
    let parsed = text.parse::<http::uri::PathAndQuery>();
    let same = parsed.is_ok_and(|parsed| parsed.as_str() == text);
    // Two slashes at the start would be the name of another host.
    match same && text.len() <= MAX_PATH && text.starts_with('/') && !text.starts_with("//") {
        true => Ok(intern(text)),
        false => Err(SettingsError::Path(shortened(text))),
    }
}

fn list(text: &str) -> Result<Arc<[Arc<str>]>, SettingsError> {
    let mut names: Vec<&str> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Err(SettingsError::Name(shortened(text)));
    }
    if let Some(other) = names.iter().find(|name| !is_name(name)) {
        return Err(SettingsError::Name(shortened(other)));
    }
    names.sort_unstable();
    names.dedup();
    if names.len() > MAX_NAMES {
        return Err(SettingsError::TooManyNames(names.len()));
    }
    Ok(names.into_iter().map(intern).collect())
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
    text.len() <= MAX_NAME && bytes.next().is_some_and(first) && bytes.all(|byte| first(byte) || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(all: &[(&str, &str)]) -> Result<Option<Settings>, SettingsError> {
        Settings::parse(&all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    fn names(settings: &Settings) -> Vec<&str> {
        settings.names.iter().map(|name| &**name).collect()
    }

    #[test]
    fn a_pod_opts_in_by_annotations() {
        assert_eq!(parse(&[("vpn.beebs.dev/priority", "1")]), Ok(None));
        let port = (METRICS_PORT_ANNOTATION, "9176");
        let settings =
            parse(&[port, (METRICS_NAMES_ANNOTATION, "openvpn_up, a:b,a:b,")]).expect("valid").expect("some");
        assert_eq!((settings.port, &*settings.path, names(&settings)), (9176, "/metrics", vec!["a:b", "openvpn_up"]));
        let path = (METRICS_PATH_ANNOTATION, "/probe?module=a%20b");
        let settings = parse(&[port, path, (METRICS_NAMES_ANNOTATION, "up")]).expect("valid").expect("some");
        assert_eq!(&*settings.path, "/probe?module=a%20b");
        let labels = |value: &str| [(POD_METRICS_LABEL.to_owned(), value.to_owned())].into();
        assert!(is_enabled(&labels("enabled")));
        assert!(!is_enabled(&labels("disabled")) && !is_enabled(&BTreeMap::new()));
    }

    #[test]
    fn an_error_names_the_annotation() {
        let port = (METRICS_PORT_ANNOTATION, "9176");
        let up = (METRICS_NAMES_ANNOTATION, "up");
        let many = (0..17).map(|number| format!("m{number}")).collect::<Vec<_>>().join(",");
        let long = format!("/{}", "a".repeat(MAX_PATH));
        for (annotations, name) in [
            (vec![up], METRICS_PORT_ANNOTATION),
            (vec![port], METRICS_NAMES_ANNOTATION),
            (vec![(METRICS_PATH_ANNOTATION, "/metrics")], METRICS_PORT_ANNOTATION),
            (vec![(METRICS_PORT_ANNOTATION, "0"), up], METRICS_PORT_ANNOTATION),
            (vec![(METRICS_PORT_ANNOTATION, "65536"), up], METRICS_PORT_ANNOTATION),
            (vec![(METRICS_PORT_ANNOTATION, "http"), up], METRICS_PORT_ANNOTATION),
            (vec![port, (METRICS_NAMES_ANNOTATION, " , ")], METRICS_NAMES_ANNOTATION),
            (vec![port, (METRICS_NAMES_ANNOTATION, "up,1up")], METRICS_NAMES_ANNOTATION),
            (vec![port, (METRICS_NAMES_ANNOTATION, "up{a=\"b\"}")], METRICS_NAMES_ANNOTATION),
            (vec![port, (METRICS_NAMES_ANNOTATION, &many)], METRICS_NAMES_ANNOTATION),
            (vec![port, up, (METRICS_PATH_ANNOTATION, "metrics")], METRICS_PATH_ANNOTATION),
            (vec![port, up, (METRICS_PATH_ANNOTATION, "//other/metrics")], METRICS_PATH_ANNOTATION),
            (vec![port, up, (METRICS_PATH_ANNOTATION, "http://other/metrics")], METRICS_PATH_ANNOTATION),
            (vec![port, up, (METRICS_PATH_ANNOTATION, "/a\r\nHost: b")], METRICS_PATH_ANNOTATION),
            (vec![port, up, (METRICS_PATH_ANNOTATION, "/a#b")], METRICS_PATH_ANNOTATION),
            (vec![port, up, (METRICS_PATH_ANNOTATION, &long)], METRICS_PATH_ANNOTATION),
        ] {
            let error = parse(&annotations).expect_err("invalid").to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_annotation_panics(port in "\\PC*", path in "\\PC*", names in "\\PC*") {
            let _ = parse(&[
                (METRICS_PORT_ANNOTATION, &port),
                (METRICS_PATH_ANNOTATION, &path),
                (METRICS_NAMES_ANNOTATION, &names),
            ]);
        }
    }
}
