//! The CustomResourceDefinitions, as the API server gets them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;

use crate::{Mask, MaskConsumer, MaskProvider, MaskReservation, OpenVPNClient, OpenVPNServer};

/// All CustomResourceDefinitions, as in `crds/`.
///
/// Use this instead of `Mask::crd()`, which requires `spec`.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        finish(Mask::crd(), optional_spec),
        finish(MaskConsumer::crd(), optional_spec),
        finish(MaskProvider::crd(), |_| {}),
        finish(MaskReservation::crd(), |_| {}),
        finish(OpenVPNServer::crd(), |_| {}),
        finish(OpenVPNClient::crd(), |_| {}),
    ]
}

fn finish(mut crd: CustomResourceDefinition, change: fn(&mut JSONSchemaProps)) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut();
        if let Some(root) = schema.and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            change(root);
            join_lines(root);
        }
    }
    crd
}

/// Lets `spec` be null or absent: the API server then stores `{}`. For null that is so because `spec` is not
/// `nullable`.
fn optional_spec(root: &mut JSONSchemaProps) {
    if let Some(required) = &mut root.required {
        required.retain(|field| field != "spec");
    }
    root.required.take_if(|required| required.is_empty());
    let spec = root.properties.as_mut().and_then(|fields| fields.get_mut("spec"));
    if let Some(spec) = spec {
        spec.default = Some(JSON(serde_json::json!({})));
    }
}

/// Joins the lines within a paragraph of each description: `kubectl explain` breaks them where it needs to.
fn join_lines(schema: &mut JSONSchemaProps) {
    if let Some(text) = &mut schema.description {
        let paragraphs: Vec<String> = text.split("\n\n").map(|p| p.replace('\n', " ")).collect();
        *text = paragraphs.join("\n\n");
    }
    schema.properties.iter_mut().flat_map(|fields| fields.values_mut()).for_each(join_lines);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        join_lines(items);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The formats that kube-apiserver knows, among those that the derives can give.
    const FORMATS: &[&str] = &["int32", "int64", "date-time"];

    fn check(path: &str, schema: &JSONSchemaProps) {
        if let Some(format) = &schema.format {
            assert!(FORMATS.contains(&format.as_str()), "{path}: {format}");
        }
        if path.matches('.').count() > 1 && !path.ends_with("[]") {
            assert!(schema.description.is_some(), "{path} has no description");
        }
        for (name, field) in schema.properties.iter().flatten() {
            check(&format!("{path}.{name}"), field);
        }
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
            check(&format!("{path}[]"), items);
        }
    }

    #[test]
    fn every_field_is_described_and_of_a_known_format() {
        for crd in crds() {
            for version in &crd.spec.versions {
                let root = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()).unwrap();
                check(&crd.spec.names.kind, root);
            }
        }
    }

    #[test]
    fn phase_and_age_are_columns() {
        for crd in crds() {
            let columns = crd.spec.versions[0].additional_printer_columns.as_ref().unwrap();
            for name in ["PHASE", "AGE"] {
                assert!(columns.iter().any(|c| c.name == name), "{}", crd.spec.names.kind);
            }
        }
    }
}
