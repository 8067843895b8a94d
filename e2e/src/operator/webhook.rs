//! The webhook of the operator: its processes, and the MutatingWebhookConfiguration of the chart, for loopback.

use std::net::TcpListener;

use anyhow::{Context, Result};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::chart;
use crate::cluster::Cluster;

/// The name of a process.
pub const NAME: &str = "webhook";
/// The log message of a process that answers.
pub const READY: &str = "serving the webhook";

/// Returns the arguments of a process with this port.
pub fn args(port: u16) -> Vec<String> {
    let names = ["--webhook-names=127.0.0.1", "--webhook-configuration=vpn-operator-webhook"];
    let secret = ["--webhook-secret=vpn-operator-webhook", "--lease-namespace=vpn-operator"];
    let fixed = names.into_iter().chain(secret).map(str::to_owned);
    ["serve-webhook".to_owned(), format!("--webhook-port={port}")].into_iter().chain(fixed).collect()
}

/// Returns a port of loopback that nothing uses.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Applies the configuration of the chart, with the address of a process instead of a Service.
pub async fn register(cluster: &Cluster, port: u16) -> Result<()> {
    let objects = chart::render(cluster, &["--set=injection.enabled=true"]).await?;
    let is_configuration = |object: &&Value| object["kind"] == "MutatingWebhookConfiguration";
    let mut configuration = objects.iter().find(is_configuration).context("the chart has no webhook")?.clone();
    for webhook in configuration["webhooks"].as_array_mut().context("no webhooks")? {
        webhook["clientConfig"] = json!({ "url": format!("https://127.0.0.1:{port}/inject") });
    }
    let name = configuration["metadata"]["name"].as_str().context("no name")?.to_owned();
    let api: Api<MutatingWebhookConfiguration> = Api::all(cluster.client()?);
    let params = PatchParams::apply("e2e").force();
    api.patch(&name, &params, &Patch::Apply(configuration)).await?;
    Ok(())
}
