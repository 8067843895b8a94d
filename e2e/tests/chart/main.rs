//! The chart, installed with helm on a real API server.

mod commands;
mod documents;
mod followed;
mod injection;
mod kinds;
mod readme;
mod release;
mod rights;
mod templates;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, operator::chart};
use serde_json::Value;
use tokio::sync::Mutex;

/// One test at a time, because a release has cluster-scoped objects.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Returns the path of a file beside this one.
fn file(name: &str) -> String {
    format!("{}/tests/chart/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Returns the helm argument for a values file.
fn values(name: &str) -> String {
    format!("--values={}", file(&format!("values/{name}.yaml")))
}

/// Runs helm, which must fail, and returns its error message.
async fn refused(cluster: &Cluster, args: &[&str]) -> Result<String> {
    match cluster.run_helm(args).await {
        Ok(output) => Err(anyhow::anyhow!("helm {} was not refused:\n{output}", args.join(" "))),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// Returns the objects of a kind.
fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// Returns the names of the objects of a kind, sorted.
fn names(objects: &[Value], kind: &str) -> Vec<String> {
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut names: Vec<_> = of_kind(objects, kind).into_iter().map(name).collect();
    names.sort();
    names
}

/// Returns the container of a Deployment.
fn container(deployment: &Value) -> Result<&Value> {
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array().context("no containers")?;
    ensure!(containers.len() == 1 && containers[0]["name"] == "operator", "the only container is not `operator`");
    Ok(&containers[0])
}

/// A release in its own namespace.
struct Release<'a> {
    cluster: &'a Cluster,
    name: &'a str,
}

impl Release<'_> {
    /// Runs helm for this release. The command takes a release name and optionally a chart.
    async fn helm(&self, command: &str, chart: Option<&str>, args: &[&str]) -> Result<String> {
        self.cluster.run_helm(&self.args(command, chart, args)).await
    }

    fn args<'b>(&'b self, command: &'b str, chart: Option<&'b str>, args: &[&'b str]) -> Vec<&'b str> {
        let mut all = vec![command, self.name, "--namespace", self.name];
        if let Some(chart) = chart {
            all.insert(2, chart);
            all.push("--create-namespace");
        }
        all.extend(args);
        all
    }

    /// Installs or upgrades the release from this checkout, and waits until its Deployments are Available.
    async fn upgrade(&self, args: &[&str]) -> Result<String> {
        let args = [&["--install", "--wait", "--timeout=90s"], args].concat();
        self.helm("upgrade", Some(chart::DIR), &args).await
    }

    /// Returns its objects from the API server.
    async fn objects(&self) -> Result<Vec<Value>> {
        let text = self.cluster.run_helm(&["get", "manifest", self.name, "--namespace", self.name]).await?;
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("manifest.yaml");
        std::fs::write(&path, text)?;
        let path = path_text(&path)?;
        let shown = self.cluster.run_kubectl(&["get", "--output=json", "-f", path]).await?;
        let shown: Value = serde_json::from_str(&shown)?;
        Ok(shown["items"].as_array().cloned().unwrap_or_default())
    }

    /// Uninstalls the release, and deletes the CRDs, which helm keeps.
    async fn remove(&self) -> Result<()> {
        self.helm("uninstall", None, &["--wait", "--ignore-not-found"]).await?;
        kinds::delete(self.cluster).await
    }
}

/// The CRDs, for kubectl.
const CRDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds");

fn path_text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
