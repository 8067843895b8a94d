//! The yardstick: its process, its values and its APIServices.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, Process, ProcessSpec,
    host::{go, notice},
    operator::{chart, metrics_api::wait_until_available, webhook::free_port},
    testing::http::ask,
    wait::TIMEOUT,
};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

use super::{
    Answer,
    queries::{Query, Way},
};
use crate::SYNC;

const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/metrics-yardstick");
const CUSTOM: &str = "/apis/custom.metrics.k8s.io/v1beta2";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1";

/// Returns what the yardstick has to offer: the metrics that our discovery lists, and our values of external metrics.
pub fn offered(queries: &[Query], ours: &[Answer]) -> Result<Value> {
    let answer = |path: &str| {
        let position = queries.iter().position(|query| query.way == Way::ApiServer && query.path == path);
        position.map(|position| &ours[position].body).with_context(|| path.to_owned())
    };
    let names = |path: &str| -> Result<Vec<String>> {
        let resources = answer(path)?["resources"].as_array().context("no resources")?;
        Ok(resources.iter().filter_map(|one| one["name"].as_str()).map(str::to_owned).collect())
    };
    let mut external = Vec::new();
    for name in names(EXTERNAL)? {
        let asked = queries
            .iter()
            .zip(ours)
            .find(|(query, _)| query.path.starts_with(EXTERNAL) && query.path.ends_with(&format!("/{name}")));
        let items = asked.and_then(|(_, answer)| answer.body["items"].as_array()).cloned();
        // The others are only listed.
        let unasked = json!({"metricName": name, "metricLabels": {}, "timestamp": null, "value": "0"});
        external.extend(items.unwrap_or_else(|| vec![unasked]));
    }
    Ok(json!({"custom": names(CUSTOM)?, "external": external}))
}

/// Writes our values of custom metrics into the yardstick, with the labels that their selectors demand.
pub async fn feed(yardstick: &Yardstick, namespace: &str, queries: &[Query], ours: &[Answer]) -> Result<()> {
    for (query, answer) in queries.iter().zip(ours) {
        let prefix = format!("{CUSTOM}/namespaces/{namespace}/");
        let Some(rest) = query.path.strip_prefix(&prefix) else { continue };
        for item in answer.body["items"].as_array().into_iter().flatten() {
            let (path, _) = rest.split_once('?').unwrap_or((rest, ""));
            let name = item["describedObject"]["name"].as_str().context("no name")?;
            let path = path.replace('*', name);
            let labels = match &item["metric"]["selector"]["matchLabels"] {
                Value::Object(labels) => {
                    labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or(""))).collect()
                }
                _ if rest.starts_with("maskproviders") => vec![format!("provider={name}")],
                _ => Vec::new(),
            };
            let labels = labels.join(",").replace('=', "%3D");
            yardstick.write(&format!("namespaces/{namespace}/{path}?labels={labels}"), &item["value"]).await?;
        }
    }
    Ok(())
}

/// A running yardstick.
pub struct Yardstick {
    process: Process,
    port: u16,
    write_port: u16,
}

impl Yardstick {
    /// Builds it, if that is not done yet, and starts it.
    pub async fn start(cluster: &Cluster, offered: &Value) -> Result<Self> {
        let build = || {
            notice(
                "building sigs.k8s.io/custom-metrics-apiserver, if that is not done yet: 7 minutes of processor time",
            );
            go::programs(Path::new(MODULE), "metrics-yardstick")
        };
        let programs = tokio::task::spawn_blocking(build).await??;
        let dir = cluster.state_dir().join("yardstick");
        std::fs::create_dir_all(&dir)?;
        let file = dir.join("offered.json");
        std::fs::write(&file, offered.to_string())?;
        let (port, write_port) = (free_port()?, free_port()?);
        let mut spec = ProcessSpec::new("yardstick", programs.join("metrics-yardstick"), dir.join("log"))
            .path_flag("offered", &file)
            .flag("write-address", format_args!("127.0.0.1:{write_port}"))
            .flag("bind-address", "127.0.0.1")
            .flag("secure-port", port)
            .path_flag("cert-dir", &dir);
        for flag in ["lister-kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
            spec = spec.path_flag(flag, cluster.kubeconfig());
        }
        let yardstick = Self { process: cluster.run(spec).await?, port, write_port };
        let deadline = Instant::now() + TIMEOUT;
        while ask(write_port, "/").await.is_err() {
            ensure!(Instant::now() < deadline, "it does not answer\n{}", yardstick.process.log_tail(30));
            sleep(SYNC / 10).await;
        }
        Ok(yardstick)
    }

    /// The file with its output.
    pub fn log(&self) -> PathBuf {
        self.process.spec().log.clone()
    }

    /// Its URL.
    pub fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    async fn write(&self, path: &str, value: &Value) -> Result<()> {
        let body = value.to_string();
        let head = format!("POST /write-metrics/{path} HTTP/1.0\r\nContent-Type: application/json\r\n");
        let mut stream = TcpStream::connect(("127.0.0.1", self.write_port)).await?;
        stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(answer.split(' ').nth(1) == Some("200"), "{path}: {answer}");
        Ok(())
    }

    /// Replaces the APIServices of the chart by those of the yardstick.
    pub async fn register(&self, cluster: &Cluster) -> Result<()> {
        let client: Client = cluster.client()?;
        let api: Api<APIService> = Api::all(client);
        for (group, version, priority) in
            [("custom", "v1beta1", 100), ("custom", "v1beta2", 200), ("external", "v1beta1", 100)]
        {
            let group = format!("{group}.metrics.k8s.io");
            let name = format!("{version}.{group}");
            api.delete(&name, &DeleteParams::default()).await?;
            let object = json!({"metadata": {"name": name}, "spec": {
                "group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": priority,
                "insecureSkipTLSVerify": true,
                "service": {"namespace": chart::RELEASE, "name": "vpn-operator-metrics-api", "port": self.port},
            }});
            api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        }
        wait_until_available(cluster).await
    }
}
