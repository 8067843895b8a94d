//! The Helm chart, rendered by helm.
//!
//! The tests and the demo run the operator with exactly the permissions that the chart grants.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::cluster::Cluster;

/// The chart of this checkout.
pub const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../chart");
/// The chart with the values of `stable/openvpn`.
pub const OPENVPN_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../chart/charts/openvpn");
/// Typical values of users of `stable/openvpn`.
pub const OPENVPN_VALUES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/stable-openvpn.yaml");
/// The name of the release, and its namespace.
pub const RELEASE: &str = "vpn-operator";

/// The arguments of helm that enable the metrics API.
pub const METRICS_API: [&str; 3] =
    ["--set=metricsApi.custom=true", "--set=metricsApi.external=true", "--set=metricsApi.capacity=true"];

/// The kinds that define the permissions of the operator.
const RIGHTS: [&str; 5] = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];

/// Renders the objects of the chart. `args` are arguments of `helm template`, such as `--set=replicas=2`.
pub async fn render(cluster: &Cluster, args: &[&str]) -> Result<Vec<Value>> {
    rendered(cluster, RELEASE, DIR, args).await
}

/// Renders the objects of [`OPENVPN_DIR`] with [`OPENVPN_VALUES`], for the same namespace.
pub async fn render_openvpn(cluster: &Cluster, args: &[&str]) -> Result<Vec<Value>> {
    rendered(cluster, "openvpn", OPENVPN_DIR, &[&["--values", OPENVPN_VALUES], args].concat()).await
}

async fn rendered(cluster: &Cluster, release: &str, dir: &str, args: &[&str]) -> Result<Vec<Value>> {
    let template = ["template", release, dir, "--namespace", RELEASE];
    let text = cluster.run_helm(&[&template[..], args].concat()).await?;
    let objects = serde_yaml::Deserializer::from_str(&text).map(Value::deserialize);
    let objects: Vec<Value> = objects.collect::<Result<_, _>>().context("helm rendered invalid YAML")?;
    // A template that renders only comments leaves an empty document.
    Ok(objects.into_iter().filter(|object| !object.is_null()).collect())
}

/// The argument of helm that enables OpenVPN servers.
pub const SERVERS: &str = "--set=servers.enabled=true";

/// The arguments of `helm template` that enable injection. If cert-manager issues the certificate of the webhook,
/// `secret` is the name of the Secret and of the Certificate.
pub fn injection_args(secret: Option<&str>) -> Vec<String> {
    let mut args = vec!["--set=injection.enabled=true".to_owned()];
    if let Some(secret) = secret {
        let annotations = json!({ "cert-manager.io/inject-ca-from": format!("{RELEASE}/{secret}") });
        args.push(format!("--set=injection.certificate.secretName={secret}"));
        args.push(format!("--set-json=injection.certificate.annotations={annotations}"));
    }
    args
}

/// The ServiceAccounts and RBAC objects of both layouts (one Deployment for each controller, or one for all), as YAML. Their
/// names differ, so one cluster can have both.
pub async fn rights(cluster: &Cluster) -> Result<&'static str> {
    static RENDERED: OnceCell<String> = OnceCell::const_new();
    let render = async || {
        let metrics_api = METRICS_API.map(str::to_owned);
        let args: Vec<_> = injection_args(None).into_iter().chain(metrics_api).collect();
        render_rights(cluster, &args).await
    };
    RENDERED.get_or_try_init(render).await.map(String::as_str)
}

/// The same with other values, as arguments of `helm template`.
pub async fn render_rights(cluster: &Cluster, args: &[String]) -> Result<String> {
    let mut text = String::new();
    for combined in ["--set=combined.enabled=false", "--set=combined.enabled=true"] {
        let args: Vec<_> = [combined].into_iter().chain(args.iter().map(String::as_str)).collect();
        for object in render(cluster, &args).await? {
            if RIGHTS.iter().any(|kind| object["kind"] == *kind) {
                text.push_str("---\n");
                text.push_str(&serde_yaml::to_string(&object)?);
            }
        }
    }
    Ok(text)
}
