//! Settings of the pass-through of the metrics API.

use std::path::PathBuf;

use clap::Args;
use http::Uri;

use crate::{
    metrics_api::{
        pass_through::parse_address,
        request::{Group, Groups},
    },
    runtime::metrics_api::{PassThroughSettings, Target},
};

/// Which servers are asked for metrics that the metrics API does not know.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Pass-through of the metrics API")]
pub struct PassThroughArgs {
    /// The server of other metrics of `custom.metrics.k8s.io`, as `https://HOST:PORT`.
    #[arg(long, env = "METRICS_API_PASS_THROUGH_CUSTOM", value_parser = parse_address, global = true)]
    pub metrics_api_pass_through_custom: Option<Uri>,

    /// File with the certificate authorities of that server.
    #[arg(long, env = "METRICS_API_PASS_THROUGH_CUSTOM_CA", global = true)]
    pub metrics_api_pass_through_custom_ca: Option<PathBuf>,

    /// Accept any certificate of that server. Whoever can answer at that address can then give any value.
    #[arg(long, env = "METRICS_API_PASS_THROUGH_CUSTOM_INSECURE", global = true)]
    pub metrics_api_pass_through_custom_insecure: bool,

    /// The server of other metrics of `external.metrics.k8s.io`, as `https://HOST:PORT`.
    #[arg(long, env = "METRICS_API_PASS_THROUGH_EXTERNAL", value_parser = parse_address, global = true)]
    pub metrics_api_pass_through_external: Option<Uri>,

    /// File with the certificate authorities of that server.
    #[arg(long, env = "METRICS_API_PASS_THROUGH_EXTERNAL_CA", global = true)]
    pub metrics_api_pass_through_external_ca: Option<PathBuf>,

    /// Accept any certificate of that server. Whoever can answer at that address can then give any value.
    #[arg(long, env = "METRICS_API_PASS_THROUGH_EXTERNAL_INSECURE", global = true)]
    pub metrics_api_pass_through_external_insecure: bool,

    /// ServiceAccount by which these servers know the metrics API, in the namespace of the lease. The metrics API
    /// requests tokens of it.
    #[arg(
        long,
        env = "METRICS_API_PASS_THROUGH_SERVICE_ACCOUNT",
        default_value = "vpn-operator-metrics-pass-through",
        global = true
    )]
    pub metrics_api_pass_through_service_account: String,
}

impl PassThroughArgs {
    /// Returns the settings for the groups that are served.
    pub(super) fn settings(&self, groups: Groups, namespace: &str) -> PassThroughSettings {
        let target = |group: Group| {
            let (address, ca, insecure) = match group {
                Group::Custom => (
                    &self.metrics_api_pass_through_custom,
                    &self.metrics_api_pass_through_custom_ca,
                    self.metrics_api_pass_through_custom_insecure,
                ),
                Group::External => (
                    &self.metrics_api_pass_through_external,
                    &self.metrics_api_pass_through_external_ca,
                    self.metrics_api_pass_through_external_insecure,
                ),
            };
            Some((group, Target { address: address.clone()?, ca: ca.clone(), insecure }))
        };
        PassThroughSettings {
            targets: groups.iter().filter_map(target).collect(),
            namespace: namespace.to_owned(),
            service_account: self.metrics_api_pass_through_service_account.clone(),
        }
    }
}
