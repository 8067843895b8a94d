//! Settings of an installation for all injected Pods.

use k8s_openapi::api::core::v1::ResourceRequirements;

/// What the annotations of a Pod override.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// Image of the sidecar.
    pub image: String,
    /// Resources of the sidecar.
    pub resources: Option<ResourceRequirements>,
    /// Networks that Pods reach outside of the VPN, such as those of the Pods and Services of the cluster.
    pub outbound_subnets: Vec<String>,
}
