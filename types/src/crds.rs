//! The definitions of the four kinds, as the API server gets them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps,
};
use kube::CustomResourceExt;

use crate::{Mask, MaskConsumer, MaskProvider, MaskReservation};

/// The CustomResourceDefinitions of all kinds, ready to be applied: what is in `crds/`.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        optional_spec(Mask::crd()),
        optional_spec(MaskConsumer::crd()),
        MaskProvider::crd(),
        MaskReservation::crd(),
    ]
}

/// Lets `spec` be null or absent: the API server then stores `{}`.
fn optional_spec(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for root in crd.spec.versions.iter_mut().filter_map(root_schema) {
        if let Some(required) = &mut root.required {
            required.retain(|field| field != "spec");
        }
        root.required.take_if(|required| required.is_empty());
        if let Some(spec) = root.properties.as_mut().and_then(|p| p.get_mut("spec")) {
            spec.default = Some(JSON(serde_json::json!({})));
        }
    }
    crd
}

fn root_schema(
    version: &mut k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionVersion,
) -> Option<&mut JSONSchemaProps> {
    version.schema.as_mut()?.open_api_v3_schema.as_mut()
}
