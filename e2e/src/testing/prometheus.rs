//! Prometheus: Debian's package, found in `PATH` or unpacked into the user's cache directory. Nothing is installed into
//! the system, and no service is started.
//!
//! It is told what to scrape as the Prometheus Operator would tell it: [`scrape_configs`] makes of a PodMonitor what
//! that makes of it. Debian's build lacks `kubernetes_sd_configs`, so a file has to say which Pods there are, in the
//! same words: [`targets`].

use std::{
    collections::BTreeMap,
    env, fs,
    fs::File,
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    cluster::Cluster,
    host::{cache_dir, command::run, notice},
    process::{Process, ProcessSpec},
    wait::TIMEOUT,
};

/// Between two queries: Prometheus scrapes each second.
const POLL: Duration = Duration::from_millis(250);

/// Where its programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// Finds them, or unpacks them at the first use.
    ///
    /// # Errors
    /// When they are missing and cannot be had from a Debian archive.
    pub fn ensure() -> Result<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let in_path = env::split_paths(&path).map(|dir| Self { dir }).find(Self::are_there);
        if let Some(found) = in_path {
            return Ok(found);
        }
        let tools = cache_dir("tools")?;
        let target = tools.join("prometheus");
        let unpacked = Self { dir: target.join("usr/bin") };
        if unpacked.are_there() {
            return Ok(unpacked);
        }
        fs::create_dir_all(&tools)?;
        // Test binaries run in parallel: one unpacks, the others wait and find it done.
        let lock = File::create(tools.join(".prometheus.lock"))?;
        lock.lock()?;
        if !unpacked.are_there() {
            notice(&format!("unpacking Debian's prometheus into {}: needed once", target.display()));
            let unfinished = tempfile::Builder::new().prefix(".unpacking-").tempdir_in(&tools)?;
            unpack(unfinished.path()).context(
                "Prometheus is needed for the tests of the metrics: have `prometheus` and `promtool` in PATH",
            )?;
            // The rename is what makes it visible.
            fs::rename(unfinished.keep(), &target)?;
        }
        Ok(unpacked)
    }

    fn are_there(&self) -> bool {
        ["prometheus", "promtool"].iter().all(|name| self.dir.join(name).is_file())
    }

    /// Runs promtool on `input`; whether it succeeded, and all it printed.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn promtool(&self, args: &[&str], input: &str) -> Result<(bool, String)> {
        let mut child = Command::new(self.dir.join("promtool"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run promtool")?;
        child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok((output.status.success(), text))
    }
}

/// Neither needs root: the package is fetched and unpacked, not installed.
fn unpack(dir: &Path) -> Result<()> {
    let download = |dir: &Path| run(Command::new("apt-get").current_dir(dir).args(["download", "prometheus"]));
    if download(dir).is_err() {
        notice("apt-get update, since there are no package lists, or old ones");
        run(Command::new("apt-get").arg("update"))?;
        download(dir)?;
    }
    let package = fs::read_dir(dir)?.find_map(|entry| Some(entry.ok()?.path())).context("nothing was downloaded")?;
    run(Command::new("dpkg").arg("-x").arg(&package).arg(dir))?;
    Ok(fs::remove_file(package)?)
}

/// A running Prometheus.
pub struct Prometheus {
    programs: Programs,
    process: Process,
    url: String,
}

/// One series and its value.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its labels, the name as `__name__`.
    pub labels: BTreeMap<String, String>,
    /// Its value now.
    pub value: f64,
}

impl Prometheus {
    /// Starts one that scrapes, and looks at `rules`, each second. It ends with the cluster.
    ///
    /// # Errors
    /// When it does not start, as with a configuration that it does not understand.
    pub async fn start(cluster: &Cluster, scrape: Vec<Value>, rules: &Path) -> Result<Self> {
        let programs = tokio::task::spawn_blocking(Programs::ensure).await??;
        let dir = cluster.state_dir().join("prometheus");
        fs::create_dir_all(&dir)?;
        let config = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": [rules],
            "scrape_configs": scrape,
        });
        let file = dir.join("prometheus.yaml");
        fs::write(&file, serde_yaml::to_string(&config)?)?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut spec = ProcessSpec::new("prometheus", programs.dir.join("prometheus"), dir.join("prometheus.log"))
            .path_flag("config.file", &file)
            .path_flag("storage.tsdb.path", &dir.join("data"))
            .flag("web.listen-address", format_args!("127.0.0.1:{port}"));
        spec.grace_period_ms = 10_000;
        let process = cluster.run(spec).await?;
        let started = Self { programs, process, url: format!("http://127.0.0.1:{port}") };
        tokio::select! {
            ready = started.wait_until("vector(1)", "it to answer", |samples| !samples.is_empty()) => drop(ready?),
            end = started.process.exited() => bail!("it ended: {end}\n{}", started.process.log_tail(20)),
        }
        Ok(started)
    }

    /// What an expression gives now.
    ///
    /// # Errors
    /// When it is none, or Prometheus does not answer.
    pub async fn query(&self, expression: &str) -> Result<Vec<Sample>> {
        #[derive(Deserialize)]
        struct Answer {
            metric: BTreeMap<String, String>,
            value: (f64, String),
        }
        let (programs, url, expr) = (self.programs.clone(), self.url.clone(), expression.to_owned());
        let query = move || programs.promtool(&["query", "instant", "-o", "json", &url, &expr], "");
        let (success, text) = tokio::task::spawn_blocking(query).await??;
        ensure!(success, "{expression}: {text}");
        let answers: Vec<Answer> = serde_json::from_str(&text).with_context(|| format!("{expression}: {text}"))?;
        let sample = |answer: Answer| Ok(Sample { labels: answer.metric, value: answer.value.1.parse()? });
        answers.into_iter().map(sample).collect()
    }

    /// Waits until an expression gives what it should.
    ///
    /// # Errors
    /// When it does not in time; what it gave last is told.
    pub async fn wait_until(
        &self,
        expression: &str,
        what: &str,
        holds: impl Fn(&[Sample]) -> bool,
    ) -> Result<Vec<Sample>> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let answer = self.query(expression).await;
            match answer {
                Ok(samples) if holds(&samples) => return Ok(samples),
                last if Instant::now() > deadline => {
                    bail!("{expression}: waited for {what}, got {last:?}\n{}", self.process.log_tail(20))
                }
                _ => sleep(POLL).await,
            }
        }
    }

    /// Waits until an expression gives one series with this value.
    ///
    /// # Errors
    /// As [`Self::wait_until`].
    pub async fn wait_until_value(&self, expression: &str, value: f64) -> Result<()> {
        let is = |samples: &[Sample]| matches!(samples, [one] if one.value == value);
        self.wait_until(expression, &value.to_string(), is).await.map(drop)
    }
}

/// The scrape configurations of a PodMonitor, one for each endpoint, as the Prometheus Operator makes them, but for where
/// Pods are looked up: in the file `pods`, which has the [`targets`] of the PodMonitor's namespace.
///
/// # Errors
/// When the PodMonitor lacks what one has to have.
pub fn scrape_configs(monitor: &Value, pods: &Path) -> Result<Vec<Value>> {
    let namespace = monitor["metadata"]["namespace"].as_str().context("a PodMonitor without namespace")?;
    let name = monitor["metadata"]["name"].as_str().context("a PodMonitor without name")?;
    let labels = monitor["spec"]["selector"]["matchLabels"].as_object().context("a PodMonitor without matchLabels")?;
    let endpoints = monitor["spec"]["podMetricsEndpoints"].as_array().context("a PodMonitor without endpoints")?;
    let config = |(index, endpoint): (usize, &Value)| {
        let port = endpoint["port"].as_str().context("an endpoint without the name of a port")?;
        let mut relabel = vec![
            json!({ "source_labels": ["job"], "target_label": "__tmp_prometheus_job_name" }),
            json!({ "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)", "action": "drop" }),
        ];
        for (key, value) in labels {
            let key = sanitized(key);
            let value = value.as_str().context("a label that is no text")?;
            relabel.push(json!({
                "source_labels": [
                    format!("__meta_kubernetes_pod_label_{key}"),
                    format!("__meta_kubernetes_pod_labelpresent_{key}"),
                ],
                "regex": format!("({value});true"),
                "action": "keep",
            }));
        }
        relabel.extend([
            json!({ "source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": port, "action": "keep" }),
            json!({ "source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace" }),
            json!({ "source_labels": ["__meta_kubernetes_pod_container_name"], "target_label": "container" }),
            json!({ "source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod" }),
            json!({ "target_label": "job", "replacement": format!("{namespace}/{name}") }),
            json!({ "target_label": "endpoint", "replacement": port }),
        ]);
        Ok(json!({
            "job_name": format!("podMonitor/{namespace}/{name}/{index}"),
            "honor_labels": endpoint["honorLabels"].as_bool().unwrap_or(false),
            "file_sd_configs": [{ "files": [pods] }],
            "relabel_configs": relabel,
        }))
    };
    endpoints.iter().enumerate().map(config).collect()
}

/// What Prometheus would find as `kubernetes_sd_configs` with the role `pod`: a target for each port of each container,
/// with labels of the same names.
pub fn targets(pods: &[Pod]) -> Value {
    let mut targets = Vec::new();
    for pod in pods {
        let status = pod.status.clone().unwrap_or_default();
        let Some(address) = status.pod_ip else { continue };
        let mut of_pod = serde_json::Map::new();
        let mut label = |name: &str, value: &str| of_pod.insert(format!("__meta_kubernetes_{name}"), json!(value));
        label("namespace", &pod.namespace().unwrap_or_default());
        label("pod_name", &pod.name_any());
        label("pod_ip", &address);
        label("pod_phase", &status.phase.unwrap_or_default());
        for (key, value) in pod.labels() {
            let key = sanitized(key);
            label(&format!("pod_label_{key}"), value);
            label(&format!("pod_labelpresent_{key}"), "true");
        }
        for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
            for port in container.ports.iter().flatten() {
                let mut labels = of_pod.clone();
                labels.insert("__meta_kubernetes_pod_container_name".into(), json!(container.name));
                labels.insert("__meta_kubernetes_pod_container_port_name".into(), json!(port.name));
                targets.push(json!({ "targets": [format!("{address}:{}", port.container_port)], "labels": labels }));
            }
        }
    }
    Value::Array(targets)
}

/// As Prometheus makes a name of its own of a label's.
fn sanitized(key: &str) -> String {
    key.replace(|other: char| !other.is_ascii_alphanumeric(), "_")
}
