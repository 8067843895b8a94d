//! The metrics API of the operator: its process, and the Service and APIServices of the chart, for loopback.

use anyhow::{Context, Result};
use k8s_openapi::{api::core::v1::Service, kube_aggregator::pkg::apis::apiregistration::v1::APIService};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::timeout;

use super::chart;
use crate::{
    cluster::Cluster,
    wait::{TIMEOUT, await_condition},
};

/// The name of a process.
pub const NAME: &str = "metrics-api";
/// The log message of a process that is ready.
pub const READY: &str = "serving the metrics API";

/// What the process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The process serves the API groups.
    Server,
    /// Clients read only `/metrics` of the process.
    Exporter,
}

/// Returns the arguments of a process with these ports.
pub fn args(role: Role, port: u16, metrics_port: u16) -> Vec<String> {
    let groups = ["--metrics-api-custom", "--metrics-api-external", "--metrics-api-capacity"];
    let groups = groups.into_iter().filter(|_| role == Role::Server);
    let fixed = [
        "--metrics-api-names=vpn-operator-metrics-api.vpn-operator.svc,127.0.0.1",
        "--metrics-api-secret=vpn-operator-metrics-api",
        "--lease-namespace=vpn-operator",
    ];
    let ports = [format!("--metrics-api-port={port}"), format!("--metrics-port={metrics_port}")];
    ["serve-metrics-api"].into_iter().chain(groups).chain(fixed).map(str::to_owned).chain(ports).collect()
}

/// Applies the APIServices of the chart. Their Service resolves to loopback, where the process listens.
pub async fn register(cluster: &Cluster, port: u16) -> Result<()> {
    let client = cluster.client()?;
    let params = PatchParams::apply("e2e").force();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "vpn-operator-metrics-api"},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    });
    let services: Api<Service> = Api::namespaced(client.clone(), chart::RELEASE);
    services.patch("vpn-operator-metrics-api", &params, &Patch::Apply(service)).await?;
    let api: Api<APIService> = Api::all(client);
    for mut object in
        chart::render(cluster, &chart::METRICS_API).await?.into_iter().filter(|one| one["kind"] == "APIService")
    {
        object["spec"]["service"]["port"] = json!(port);
        let name = object["metadata"]["name"].as_str().context("no name")?.to_owned();
        api.patch(&name, &params, &Patch::Apply(object)).await?;
    }
    Ok(())
}

/// Waits until the API server has reached the process for each APIService.
pub async fn wait_until_available(cluster: &Cluster) -> Result<()> {
    wait_for_availability(cluster, true).await
}

/// Waits until every APIService is available, or until every one is unavailable.
pub async fn wait_for_availability(cluster: &Cluster, wanted: bool) -> Result<()> {
    let wanted = if wanted { "True" } else { "False" };
    let api: Api<APIService> = Api::all(cluster.client()?);
    for name in api.list(&Default::default()).await?.items.iter().map(ResourceExt::name_any) {
        if !name.contains(".metrics.k8s.io") {
            continue;
        }
        let is_so = |service: Option<&APIService>| {
            let conditions = service.and_then(|service| service.status.as_ref()?.conditions.as_ref());
            conditions.into_iter().flatten().any(|one| one.type_ == "Available" && one.status == wanted)
        };
        let waited = timeout(TIMEOUT, await_condition(api.clone(), &name, is_so)).await;
        waited.with_context(|| format!("APIService {name}: Available is not {wanted}"))??;
    }
    Ok(())
}
