//! The chart, by the real helm, on a real API server.

mod commands;
mod documents;
mod followed;
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

/// One at a time: a release has objects without a namespace.
static ALONE: Mutex<()> = Mutex::const_new(());

/// A file beside this one.
fn file(name: &str) -> String {
    format!("{}/tests/chart/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The arguments for a file of values.
fn values(name: &str) -> String {
    format!("--values={}", file(&format!("values/{name}.yaml")))
}

/// helm, which has to fail; gives what it says.
async fn refused(cluster: &Cluster, args: &[&str]) -> Result<String> {
    match cluster.run_helm(args).await {
        Ok(output) => Err(anyhow::anyhow!("helm {} was not refused:\n{output}", args.join(" "))),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// The objects of a kind.
fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// The names of the objects of a kind, sorted.
fn names(objects: &[Value], kind: &str) -> Vec<String> {
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut names: Vec<_> = of_kind(objects, kind).into_iter().map(name).collect();
    names.sort();
    names
}

/// The container of a Deployment.
fn container(deployment: &Value) -> Result<&Value> {
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array().context("no containers")?;
    ensure!(containers.len() == 1 && containers[0]["name"] == "operator", "not one container, operator");
    Ok(&containers[0])
}

/// An installed release, in a namespace of its own.
struct Release<'a> {
    cluster: &'a Cluster,
    name: &'a str,
}

impl Release<'_> {
    /// helm for this release; the command takes a release and perhaps a chart.
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

    /// Installs or upgrades to the chart of this checkout, and waits until its Deployments are Available.
    async fn upgrade(&self, args: &[&str]) -> Result<String> {
        let args = [&["--install", "--wait", "--timeout=90s"], args].concat();
        self.helm("upgrade", Some(chart::DIR), &args).await
    }

    /// What it has put into the cluster, as the API server shows it.
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

    /// Removes it, and what helm leaves: the kinds.
    async fn remove(&self) -> Result<()> {
        self.helm("uninstall", None, &["--wait", "--ignore-not-found"]).await?;
        kinds::delete(self.cluster).await
    }
}

/// The kinds, for kubectl.
const CRDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds");

fn path_text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}
