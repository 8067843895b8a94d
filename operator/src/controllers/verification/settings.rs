//! Settings of an installation for all verifications: images, addresses, timeouts, resources.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::ResourceRequirements;
use vpn_types::MaskProviderVerifySpec;

/// Settings of all verifications.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Image of the container `vpn`: gluetun, or one with its interface.
    pub vpn_image: String,
    /// Image of the container `init`: one with `sh` and `curl`.
    pub init_image: String,
    /// Image of the container `probe`: one with `sh` and `curl`.
    pub probe_image: String,
    /// Services that answer a GET with only the address of the caller, in the order in which they are tried.
    pub ip_services: Vec<String>,
    /// How long connecting may take where `spec.verify.timeout` is absent.
    pub timeout: Duration,
    /// How long scheduling the Pod and pulling its images may take.
    pub scheduling_timeout: Duration,
    /// Resources by container: `init`, `vpn`, `probe`.
    pub resources: BTreeMap<String, ResourceRequirements>,
}

pub use crate::gluetun::IMAGE as VPN_IMAGE;
/// The curl image that reads the address before and after the connection.
pub const CURL_IMAGE: &str = "curlimages/curl:8.16.0";
/// Services that answer with the address of the caller.
pub const IP_SERVICES: &str = "https://icanhazip.com,https://api.ipify.org,https://ifconfig.me/ip";
/// How long scheduling and pulling may take: the default of the command line.
const SCHEDULING_TIMEOUT: Duration = Duration::from_secs(300);

impl Default for Settings {
    fn default() -> Self {
        Self {
            vpn_image: VPN_IMAGE.to_owned(),
            init_image: CURL_IMAGE.to_owned(),
            probe_image: CURL_IMAGE.to_owned(),
            ip_services: IP_SERVICES.split(',').map(str::to_owned).collect(),
            timeout: MaskProviderVerifySpec::DEFAULT_TIMEOUT,
            scheduling_timeout: SCHEDULING_TIMEOUT,
            resources: BTreeMap::new(),
        }
    }
}
