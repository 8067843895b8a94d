//! What the annotations of a Pod ask for.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use vpn_types::{inject::*, pod_metrics};

use super::value;

/// The prefix of labels and annotations of the operator.
const PREFIX: &str = "vpn.beebs.dev/";

/// Annotations of the operator that are not settings.
const OTHERS: [&str; 1] = [INJECTED_ANNOTATION];

/// What the annotations of a Pod ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// Use the slot of this Mask.
    pub mask: Option<String>,
    /// Tags of acceptable providers.
    pub providers: Option<Vec<String>>,
    /// Priority in the queue.
    pub priority: Option<i32>,
    /// Whether to add gluetun.
    pub sidecar: bool,
    /// What a rolling update does when no slot is free.
    pub surge: Surge,
    /// Image of the sidecar.
    pub image: Option<String>,
    /// Resources of the sidecar.
    pub resources: Option<ResourceRequirements>,
    /// Networks outside of the VPN.
    pub outbound_subnets: Option<Vec<String>>,
    /// Ports that are reachable from outside of the VPN.
    pub input_ports: Option<Vec<u16>>,
}

impl Request {
    /// Parses the annotations.
    ///
    /// # Errors
    ///
    /// Names the annotation, and what was expected.
    pub fn parse(annotations: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> Result<Self, String> {
        let known = |name: &str| {
            ANNOTATIONS.contains(&name) || pod_metrics::ANNOTATIONS.contains(&name) || OTHERS.contains(&name)
        };
        if let Some(unknown) = annotations.keys().find(|name| name.starts_with(PREFIX) && !known(name)) {
            let all = ANNOTATIONS.iter().chain(&pod_metrics::ANNOTATIONS);
            let all: Vec<_> = all.map(|name| name.trim_start_matches(PREFIX)).collect();
            let all = all.join(", ");
            return Err(format!("unknown annotation {unknown}: after {PREFIX} expected one of {all}"));
        }
        if let Some(label) = labels.keys().find(|name| ANNOTATIONS.contains(&name.as_str())) {
            return Err(format!("{label} is a label; set it as an annotation"));
        }
        fn get<T>(
            annotations: &BTreeMap<String, String>,
            name: &str,
            parse: impl FnOnce(&str) -> Result<T, String>,
        ) -> Result<Option<T>, String> {
            let value = annotations.get(name).map(|text| parse(text));
            value.transpose().map_err(|why| format!("annotation {name}: {why}"))
        }
        let word = |text: &str, words: [&str; 2]| match words.iter().position(|word| *word == text) {
            Some(position) => Ok(position == 0),
            None => Err(format!("expected {} or {}, but found {text:?}", words[0], words[1])),
        };
        let request = Self {
            mask: get(annotations, MASK_ANNOTATION, value::name)?,
            providers: get(annotations, PROVIDERS_ANNOTATION, value::tags)?,
            priority: get(annotations, PRIORITY_ANNOTATION, value::priority)?,
            sidecar: get(annotations, SIDECAR_ANNOTATION, |text| word(text, ["gluetun", "none"]))?.unwrap_or(true),
            surge: match get(annotations, SURGE_ANNOTATION, |text| word(text, ["evict", "wait"]))? {
                Some(false) => Surge::Wait,
                _ => Surge::Evict,
            },
            image: get(annotations, IMAGE_ANNOTATION, value::image)?,
            resources: get(annotations, RESOURCES_ANNOTATION, value::resources)?,
            outbound_subnets: get(annotations, OUTBOUND_SUBNETS_ANNOTATION, value::subnets)?,
            input_ports: get(annotations, INPUT_PORTS_ANNOTATION, value::ports)?,
        };
        request.check(annotations)?;
        Ok(request)
    }

    /// Checks annotations that exclude each other.
    fn check(&self, annotations: &BTreeMap<String, String>) -> Result<(), String> {
        let present = |names: &[&'static str]| names.iter().find(|name| annotations.contains_key(**name)).copied();
        if self.mask.is_some()
            && let Some(name) = present(&[PROVIDERS_ANNOTATION, PRIORITY_ANNOTATION])
        {
            return Err(format!("annotation {name} has no effect with {MASK_ANNOTATION}: set it in the Mask"));
        }
        let of_sidecar = [IMAGE_ANNOTATION, RESOURCES_ANNOTATION, OUTBOUND_SUBNETS_ANNOTATION, INPUT_PORTS_ANNOTATION];
        if !self.sidecar
            && let Some(name) = present(&of_sidecar)
        {
            return Err(format!("annotation {name} has no effect with {SIDECAR_ANNOTATION}: none"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_labeled_pod_may_offer_metrics() {
        let all = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect();
        assert_eq!(Request::parse(&all(&pod_metrics::ANNOTATIONS), &all(&[])).map(|request| request.sidecar), Ok(true));
        let unknown = Request::parse(&all(&["vpn.beebs.dev/metric-port"]), &all(&[]));
        assert!(unknown.is_err_and(|why| why.contains("metrics-port")));
    }
}
