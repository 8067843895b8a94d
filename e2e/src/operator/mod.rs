//! The operator under test: one process for all controllers, or one for each.
//!
//! Each process has a ServiceAccount, with exactly the permissions that the [chart] grants.

pub mod chart;
pub mod metrics_api;
pub mod webhook;

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep},
};

use crate::{
    auth::Identity,
    cluster::{Cluster, shared},
    faults::FaultProxy,
    host::cargo,
    process::{Process, ProcessSpec, Signal, log_tail},
    wait::TIMEOUT,
};

/// When this variable is set, it is the path of the operator to test. Otherwise, the operator of this checkout is built.
pub const BINARY: &str = "E2E_OPERATOR";

/// The namespace of the ServiceAccounts.
pub const NAMESPACE: &str = chart::RELEASE;
const CRDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds");
/// The log message of the operator when its caches are filled.
pub const READY: &str = "ready: all watches have listed";
/// The interval between two reads of the log file.
const POLL: Duration = Duration::from_millis(20);

/// How the controllers are divided into processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// All controllers in one process.
    Combined,
    /// One process for each controller.
    FourProcesses,
}

impl Layout {
    /// The names of the processes. `vpn-operator manage-{name}` runs one.
    fn names(self, injection: bool, servers: bool) -> Vec<&'static str> {
        match self {
            Self::Combined => vec!["all"],
            Self::FourProcesses => {
                let optional = [(injection, "pods"), (servers, "servers")];
                let optional = optional.into_iter().filter(|(runs, _)| *runs).map(|(_, name)| name);
                ["masks", "consumers", "reservations", "providers"].into_iter().chain(optional).collect()
            }
        }
    }
}

/// How an operator is started.
#[derive(Clone)]
pub struct OperatorOptions {
    layout: Layout,
    proxy: Option<Arc<FaultProxy>>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    soft_open_files: Option<u32>,
    webhooks: usize,
    metrics_api: Option<metrics_api::Role>,
    servers: bool,
    certificate: Option<String>,
}

impl OperatorOptions {
    /// The default options.
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            proxy: None,
            args: Vec::new(),
            env: Vec::new(),
            soft_open_files: None,
            webhooks: 0,
            metrics_api: None,
            servers: false,
            certificate: None,
        }
    }

    /// Puts this proxy between the operator and the API server.
    #[must_use]
    pub fn via_proxy(self, proxy: &Arc<FaultProxy>) -> Self {
        Self { proxy: Some(Arc::clone(proxy)), ..self }
    }

    /// Adds an argument for each process.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Serves Pods with the label `vpn.beebs.dev/inject`, with this number of webhook processes. They listen on
    /// loopback, where the API server of a local cluster can reach them.
    #[must_use]
    pub fn injection(self, webhooks: usize) -> Self {
        Self { webhooks, ..self }
    }

    /// Serves the metrics API from a separate process that listens on loopback.
    #[must_use]
    pub fn metrics_api(self) -> Self {
        Self { metrics_api: Some(metrics_api::Role::Server), ..self }
    }

    /// Runs the metrics API process only for its `/metrics`. Another server serves the API groups.
    #[must_use]
    pub fn metrics_service(self) -> Self {
        Self { metrics_api: Some(metrics_api::Role::Exporter), ..self }
    }

    /// Runs OpenVPN servers.
    #[must_use]
    pub fn servers(self) -> Self {
        Self { servers: true, ..self }
    }

    /// Lets cert-manager keep the certificate of the webhook, in a Secret with the name of the Certificate.
    #[must_use]
    pub fn certificate(self, name: &str) -> Self {
        Self { certificate: Some(name.to_owned()), ..self }
    }

    /// Sets the soft limit of open files, as a container runtime may do. The hard limit does not change.
    #[must_use]
    pub fn soft_open_files(self, limit: u32) -> Self {
        Self { soft_open_files: Some(limit), ..self }
    }

    /// Adds a variable to the environment of each process.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    fn spec(&self, name: &str, identity: &Identity, binary: &Path, dir: &Path) -> ProcessSpec {
        let mut spec = spec(name, identity, binary, dir);
        spec.args.extend(self.args.iter().cloned());
        spec.env.insert("SERVERS".to_owned(), self.servers.to_string());
        spec.env.extend(self.env.iter().cloned());
        if let Some(limit) = self.soft_open_files {
            let script = format!("ulimit -S -n {limit} && exec \"$0\" \"$@\"");
            let program = std::mem::replace(&mut spec.program, "/bin/sh".into()).display().to_string();
            spec.args.splice(0..0, ["-c".to_owned(), script, program]);
        }
        spec
    }
}

/// A running operator. Dropping it kills its processes, so a failed test leaves none behind for the next test.
pub struct Operator {
    options: OperatorOptions,
    parts: Vec<ControllerProcess>,
    binary: PathBuf,
    state_dir: PathBuf,
}

struct ControllerProcess {
    name: &'static str,
    identity: Identity,
    process: Process,
}

impl Drop for Operator {
    fn drop(&mut self) {
        for part in &self.parts {
            // Fails if the cluster, and the processes with it, have already stopped.
            drop(part.process.signal(Signal::KILL));
        }
    }
}

/// Installs what an operator needs: the CustomResourceDefinitions, and the ServiceAccounts with their permissions.
pub async fn install(cluster: &Cluster) -> Result<()> {
    install_with(cluster, None, false).await
}

async fn install_with(cluster: &Cluster, certificate: Option<&str>, servers: bool) -> Result<()> {
    let file = tempfile::Builder::new().prefix("rights-").suffix(".yaml").tempfile_in(cluster.state_dir())?;
    let namespace = format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n");
    // kubectl applies in the order of the file.
    let rights = match (certificate, servers) {
        (None, false) => chart::rights(cluster).await?,
        _ => {
            let mut args = chart::injection_args(certificate);
            args.extend(chart::METRICS_API.map(str::to_owned));
            args.extend(servers.then(|| chart::SERVERS.to_owned()));
            &chart::render_rights(cluster, &args).await?
        }
    };
    fs::write(file.path(), namespace + rights)?;
    let file = file.path().to_str().context("the path is not UTF-8")?;
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", file, "-f", CRDS];
    cluster.run_kubectl(&apply).await?;
    let wait = ["wait", "--for=condition=Established", "--timeout=60s", "-f", CRDS];
    cluster.run_kubectl(&wait).await.map(drop)
}

/// The operator that the tests of this process share, in the [shared cluster](shared::cluster).
pub async fn shared() -> Result<&'static Operator> {
    static OPERATOR: OnceCell<Operator> = OnceCell::const_new();
    OPERATOR.get_or_try_init(async || Operator::start(shared::cluster().await?, Layout::Combined).await).await
}

impl Operator {
    /// [Installs](install) what an operator needs, starts one and returns when it is ready.
    pub async fn start(cluster: &Cluster, layout: Layout) -> Result<Self> {
        Self::start_with(cluster, OperatorOptions::new(layout)).await
    }

    /// Does the same with options.
    pub async fn start_with(cluster: &Cluster, options: OperatorOptions) -> Result<Self> {
        let certificate = options.certificate.as_deref();
        let (installed, binary) =
            tokio::join!(install_with(cluster, certificate, options.servers), executable(cluster));
        installed?;
        let (binary, state_dir) = (binary?, cluster.state_dir().to_owned());
        let mut parts = Vec::new();
        for name in options.layout.names(options.webhooks > 0, options.servers) {
            let mut identity = cluster.service_account(NAMESPACE, &format!("vpn-operator-{name}")).await?;
            if let Some(proxy) = &options.proxy {
                identity = proxy.proxied_identity(&identity, &state_dir).await?;
            }
            let process = cluster.run(options.spec(name, &identity, &binary, &state_dir)).await?;
            parts.push(ControllerProcess { name, identity, process });
        }
        for number in 0..options.webhooks {
            let port = webhook::free_port()?;
            if number == 0 {
                webhook::register(cluster, port, certificate).await?;
            }
            let identity = cluster.service_account(NAMESPACE, "vpn-operator-webhook").await?;
            let mut spec = options.spec(webhook::NAME, &identity, &binary, &state_dir);
            spec.args = webhook::args(port, certificate);
            let process = cluster.run(spec).await?;
            parts.push(ControllerProcess { name: webhook::NAME, identity, process });
        }
        if let Some(role) = options.metrics_api {
            let (port, metrics_port) = (webhook::free_port()?, webhook::free_port()?);
            if role == metrics_api::Role::Server {
                metrics_api::register(cluster, port).await?;
            }
            let identity = cluster.service_account(NAMESPACE, "vpn-operator-metrics-api").await?;
            let mut spec = options.spec(metrics_api::NAME, &identity, &binary, &state_dir);
            spec.args = metrics_api::args(role, port, metrics_port);
            let process = cluster.run(spec).await?;
            parts.push(ControllerProcess { name: metrics_api::NAME, identity, process });
        }
        let operator = Self { options, parts, binary, state_dir };
        operator.ready().await?;
        Ok(operator)
    }

    /// Restarts the processes that have ended, and returns when they are ready.
    pub async fn restart(&mut self, cluster: &Cluster) -> Result<()> {
        for part in &mut self.parts {
            if part.process.pid().is_none() {
                let mut spec = self.options.spec(part.name, &part.identity, &self.binary, &self.state_dir);
                // The arguments of a webhook contain its port.
                spec.args = part.process.spec().args.clone();
                part.process = cluster.run(spec).await?;
            }
        }
        self.ready().await
    }

    /// Stops all processes with SIGTERM. Fails unless each exits with code 0.
    pub async fn stop(&self) -> Result<()> {
        for part in &self.parts {
            let end = part.process.stop(TIMEOUT).await?;
            ensure!(end == "exit code 0", "vpn-operator manage-{}: {end}\n{}", part.name, part.process.log_tail(30));
        }
        Ok(())
    }

    /// Kills all processes with SIGKILL, like a crash.
    pub async fn kill(&self) -> Result<()> {
        for part in &self.parts {
            part.process.signal(Signal::KILL)?;
        }
        for part in &self.parts {
            part.process.exited().await;
        }
        Ok(())
    }

    /// Kills one process with SIGKILL: `masks`, `consumers`, `reservations`, `providers`, `pods`, or a `webhook`.
    pub async fn kill_part(&self, name: &str) -> Result<()> {
        let part = self.parts.iter().find(|part| part.name == name).context("no such process")?;
        part.process.signal(Signal::KILL)?;
        part.process.exited().await;
        Ok(())
    }

    /// The user names of the processes in the audit log.
    pub fn users(&self) -> Vec<String> {
        self.parts.iter().filter_map(|part| part.identity.user.clone()).collect()
    }

    /// The URL of the metrics API.
    pub fn metrics_api(&self) -> Option<String> {
        self.port("--metrics-api-port=").map(|port| format!("https://127.0.0.1:{port}"))
    }

    /// The address of `/metrics` of the metrics API.
    pub fn metrics_service(&self) -> Option<String> {
        self.port("--metrics-port=").map(|port| format!("127.0.0.1:{port}"))
    }

    fn port(&self, flag: &str) -> Option<&str> {
        let part = self.parts.iter().find(|part| part.name == metrics_api::NAME)?;
        part.process.spec().args.iter().find_map(|arg| arg.strip_prefix(flag))
    }

    /// The process IDs of the running processes.
    pub fn pids(&self) -> impl Iterator<Item = i32> {
        self.parts.iter().filter_map(|part| part.process.pid())
    }

    /// The log files of the processes.
    pub fn logs(&self) -> impl Iterator<Item = PathBuf> {
        self.parts.iter().map(|part| part.process.spec().log.clone())
    }

    /// Waits until the caches of all processes are filled.
    async fn ready(&self) -> Result<()> {
        for part in &self.parts {
            let words = match part.name {
                webhook::NAME => webhook::READY,
                metrics_api::NAME => metrics_api::READY,
                _ => READY,
            };
            wait_for_log(&part.process, words).await?;
        }
        Ok(())
    }
}

/// The executable of the operator, for tests that start processes without an [`Operator`].
pub async fn executable(cluster: &Cluster) -> Result<PathBuf> {
    let dir = cluster.state_dir().to_owned();
    tokio::task::spawn_blocking(move || executable_in(&dir)).await?
}

/// The executable of the operator in a directory of a test, for tests without a cluster.
pub fn executable_in(dir: &Path) -> Result<PathBuf> {
    own_link(&binary()?, dir)
}

/// Waits until the log of a process contains `words`.
pub async fn wait_for_log(process: &Process, words: &str) -> Result<()> {
    let (log, deadline) = (&process.spec().log, Instant::now() + TIMEOUT);
    let is_there = async {
        while !fs::read_to_string(log).is_ok_and(|text| text.contains(words)) {
            ensure!(Instant::now() < deadline, "no {words:?} after {} s", TIMEOUT.as_secs());
            sleep(POLL).await;
        }
        Ok(())
    };
    tokio::select! {
        result = is_there => result,
        end = process.exited() => Err(anyhow::anyhow!("it ended: {end}")),
    }
    .with_context(|| format!("{}\n{}", process.spec().name, log_tail(log, 30)))
}

fn spec(name: &str, identity: &Identity, binary: &Path, dir: &Path) -> ProcessSpec {
    // Each start has a new log, because the log shows when the process is ready.
    static STARTS: AtomicU64 = AtomicU64::new(0);
    let start = STARTS.fetch_add(1, Ordering::Relaxed);
    let mut spec =
        ProcessSpec::new(format!("vpn-operator-{name}"), binary, dir.join(format!("operator-{name}-{start}.log")))
            .arg(format_args!("manage-{name}"))
            .env("KUBECONFIG", identity.kubeconfig.display())
            .env("RUST_LOG", env::var("RUST_LOG").unwrap_or_else(|_| "info,vpn_operator=debug".into()))
            .env("NO_COLOR", "1");
    // Requests in flight may take 5 s.
    spec.grace_period_ms = 10_000;
    spec
}

/// The operator of this checkout. cargo builds it once per process, so that it is up to date.
fn binary() -> Result<PathBuf> {
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    match &*built {
        Some(path) => Ok(path.clone()),
        None => Ok(built.insert(build()?).clone()),
    }
}

fn build() -> Result<PathBuf> {
    if let Some(path) = env::var_os(BINARY) {
        return Ok(path.into());
    }
    // target/<profile>/deps/<test> or target/<profile>/e2e
    let own = env::current_exe()?;
    let profile_dir =
        own.ancestors().skip(1).find(|dir| !dir.ends_with("deps")).context("not in a target directory")?;
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let mut build = cargo::command();
    // Built together with e2e, the dependencies have the same features, and nothing is built twice.
    build.args(["build", "--package=e2e", "--package=vpn-operator", "--bin=vpn-operator", "--profile", profile]);
    cargo::built(&mut build).context("cannot build the operator; set E2E_OPERATOR to use an existing binary")
}

/// Links the binary into a directory, so that a build in the meantime does not change what the tests run.
fn own_link(binary: &Path, dir: &Path) -> Result<PathBuf> {
    let link = dir.join("vpn-operator");
    match fs::hard_link(binary, &link) {
        Ok(()) => {}
        // Copying the binary over a link to itself would truncate it.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(_) => drop(fs::copy(binary, &link).with_context(|| format!("cannot copy {}", binary.display()))?),
    }
    Ok(link)
}
