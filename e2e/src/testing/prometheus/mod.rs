//! Prometheus, as a process on loopback.
//!
//! Quick tests use Debian's package, from `PATH` or unpacked into the cache of the user. They install nothing into the
//! system and start no service. [`scrape_configs`] translates PodMonitors in the same way as the Prometheus Operator.
//! Debian's build has no service discovery for Kubernetes, so [`targets`] lists the Pods in a file, with the same
//! labels. `cargo test -p e2e --test metrics discovery -- --ignored` compares this with the Prometheus Operator.

mod pod_monitors;

use std::{
    collections::BTreeMap,
    env,
    fmt::Debug,
    fs,
    fs::File,
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    cluster::Cluster,
    host::{cache_dir, command::run, notice},
    process::{Process, ProcessSpec},
    testing::http,
    wait::TIMEOUT,
};

pub use pod_monitors::{scrape_configs, targets};

/// The time between two queries. Prometheus scrapes once a second.
const POLL: Duration = Duration::from_millis(250);

/// The directory of `prometheus` and `promtool`.
#[derive(Clone, Debug)]
pub struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// The programs in a directory.
    pub fn in_dir(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Returns the programs in `PATH`, or those of Debian's package. The first use unpacks the package.
    ///
    /// # Errors
    /// If `PATH` does not have them, and no Debian archive is reachable.
    pub fn ensure() -> Result<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let in_path = env::split_paths(&path).map(Self::in_dir).find(Self::are_there);
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
        // Test binaries run in parallel. One of them unpacks the package, and the others wait.
        let lock = File::create(tools.join(".prometheus.lock"))?;
        lock.lock()?;
        if !unpacked.are_there() {
            notice(&format!("unpacking Debian's prometheus into {}: needed once", target.display()));
            let unfinished = tempfile::Builder::new().prefix(".unpacking-").tempdir_in(&tools)?;
            unpack(unfinished.path())
                .context("the tests of the metrics need Prometheus: put `prometheus` and `promtool` into PATH")?;
            // Only the rename makes the result visible, so an interrupted run leaves no partial result.
            fs::rename(unfinished.keep(), &target)?;
        }
        Ok(unpacked)
    }

    fn are_there(&self) -> bool {
        ["prometheus", "promtool"].iter().all(|name| self.dir.join(name).is_file())
    }

    /// Runs promtool with this standard input. Returns whether it succeeded, and its output.
    ///
    /// # Errors
    /// If it cannot be run.
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

/// Downloads the package and unpacks it. Neither step needs root.
fn unpack(dir: &Path) -> Result<()> {
    let download = |dir: &Path| run(Command::new("apt-get").current_dir(dir).args(["download", "prometheus"]));
    if download(dir).is_err() {
        notice("apt-get update, because the package lists are missing or old");
        run(Command::new("apt-get").arg("update"))?;
        download(dir)?;
    }
    let package = fs::read_dir(dir)?.find_map(|entry| Some(entry.ok()?.path())).context("nothing was downloaded")?;
    run(Command::new("dpkg").arg("-x").arg(&package).arg(dir))?;
    Ok(fs::remove_file(package)?)
}

/// A running Prometheus.
pub struct Prometheus {
    process: Process,
    port: u16,
}

/// One series and its value.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its labels. The name of the metric is the label `__name__`.
    pub labels: BTreeMap<String, String>,
    /// Its value now.
    pub value: f64,
}

/// Returns a configuration that scrapes, and evaluates `rules`, once a second.
pub fn configuration(scrape: &[Value], rules: &Path) -> Value {
    json!({
        "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
        "rule_files": [rules],
        "scrape_configs": scrape,
    })
}

impl Prometheus {
    /// Starts the Prometheus of [`Programs::ensure`] with [`configuration`]. It ends with the cluster.
    ///
    /// # Errors
    /// If it does not start, for example because the configuration is not valid.
    pub async fn start(cluster: &Cluster, scrape: &[Value], rules: &Path) -> Result<Self> {
        let programs = tokio::task::spawn_blocking(Programs::ensure).await??;
        let file = cluster.state_dir().join("prometheus.yaml");
        fs::write(&file, serde_yaml::to_string(&configuration(scrape, rules))?)?;
        Self::start_with(cluster, &programs, &file).await
    }

    /// Starts a Prometheus with a configuration file. It ends with the cluster.
    ///
    /// # Errors
    /// If it does not start, for example because the configuration is not valid.
    pub async fn start_with(cluster: &Cluster, programs: &Programs, config: &Path) -> Result<Self> {
        let dir = cluster.state_dir().join("prometheus");
        fs::create_dir_all(&dir)?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut spec = ProcessSpec::new("prometheus", programs.dir.join("prometheus"), dir.join("prometheus.log"))
            .path_flag("config.file", config)
            .path_flag("storage.tsdb.path", &dir.join("data"))
            .flag("web.listen-address", format_args!("127.0.0.1:{port}"));
        spec.grace_period_ms = 10_000;
        let started = Self { process: cluster.run(spec).await?, port };
        tokio::select! {
            ready = started.wait_until("vector(1)", "an answer", |samples| !samples.is_empty()) => drop(ready?),
            end = started.process.exited() => bail!("Prometheus ended: {end}\n{}", started.process.log_tail(20)),
        }
        Ok(started)
    }

    /// The address of its API.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Stops it.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn stop(&self) -> Result<()> {
        self.process.stop(TIMEOUT).await.map(drop)
    }

    /// The file to which it logs.
    pub fn log(&self) -> &Path {
        &self.process.spec().log
    }

    /// Returns the `data` of an answer of the HTTP API.
    ///
    /// # Errors
    /// If there is no such answer, or one with warnings.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let mut answer: Value = serde_json::from_str(&http::get(self.port, path).await?)?;
        ensure!(answer["status"] == "success" && answer.get("warnings").is_none(), "{path}: {answer}");
        Ok(answer["data"].take())
    }

    /// Returns the value of an expression now.
    ///
    /// # Errors
    /// If the expression is not valid, or Prometheus does not answer.
    pub async fn query(&self, expression: &str) -> Result<Vec<Sample>> {
        #[derive(Deserialize)]
        struct Answer {
            metric: BTreeMap<String, String>,
            value: (f64, String),
        }
        let mut data = self.get(&format!("/api/v1/query?query={}", encoded(expression))).await?;
        let answers: Vec<Answer> =
            serde_json::from_value(data["result"].take()).with_context(|| expression.to_owned())?;
        let sample = |answer: Answer| Ok(Sample { labels: answer.metric, value: answer.value.1.parse()? });
        answers.into_iter().map(sample).collect()
    }

    /// Waits until `holds` is true for the value of an expression. `what` describes that in the error.
    ///
    /// # Errors
    /// After [`TIMEOUT`], with the last value.
    pub async fn wait_until(
        &self,
        expression: &str,
        what: &str,
        holds: impl Fn(&[Sample]) -> bool,
    ) -> Result<Vec<Sample>> {
        self.poll(expression, what, async || self.query(expression).await, |samples: &Vec<_>| holds(samples)).await
    }

    /// Waits until an expression has one series with this value.
    ///
    /// # Errors
    /// As [`Self::wait_until`].
    pub async fn wait_until_value(&self, expression: &str, value: f64) -> Result<()> {
        let is = |samples: &[Sample]| matches!(samples, [one] if one.value == value);
        self.wait_until(expression, &value.to_string(), is).await.map(drop)
    }

    /// Waits until `holds` is true for an answer of the HTTP API, see [`Self::get`].
    ///
    /// # Errors
    /// As [`Self::wait_until`].
    pub async fn wait_for_answer(&self, path: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        self.poll(path, what, async || self.get(path).await, holds).await
    }

    async fn poll<T: Debug>(
        &self,
        question: &str,
        what: &str,
        ask: impl AsyncFn() -> Result<T>,
        holds: impl Fn(&T) -> bool,
    ) -> Result<T> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match ask().await {
                Ok(answer) if holds(&answer) => return Ok(answer),
                last if Instant::now() > deadline => {
                    bail!("{question}: waited for {what}, got {last:?}\n{}", self.process.log_tail(20))
                }
                _ => sleep(POLL).await,
            }
        }
    }
}

/// Encodes a text for the query of a URL.
fn encoded(text: &str) -> String {
    let character = |byte: u8| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(character).collect()
}
