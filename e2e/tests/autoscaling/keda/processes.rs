//! The operator and the metrics server of KEDA, as processes on loopback, with the permissions of KEDA's manifests.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use e2e::{
    Cluster, Identity, Process, ProcessSpec,
    host::{go, notice},
    operator::{wait_for_log, webhook::free_port},
    testing::framework::ensure_eq,
    wait::{TIMEOUT, await_condition},
};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::{Value, json};
use tokio::{sync::OnceCell, time::timeout};

const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/keda");
/// The namespace in KEDA's manifests.
pub const NAMESPACE: &str = "keda";
/// The Service of the metrics server.
pub const SERVICE: &str = "keda-metrics-apiserver";
/// The Secret in which the operator keeps the certificates of both.
const SECRET: &str = "kedaorg-certs";
/// The log message of an operator that can be asked for metrics.
const READY: &str = "Starting Metrics Service gRPC Server";

/// Which server has the API group of external metrics.
#[derive(Clone, Copy)]
pub enum Setup {
    /// KEDA, as by default.
    Alone,
    /// Another one, which stands in front of KEDA.
    Behind,
}

/// A running KEDA.
pub struct Keda {
    pub operator: Process,
    pub adapter: Process,
    /// The port of the metrics server.
    pub port: u16,
    /// The certificate authority of the metrics server.
    pub ca: PathBuf,
}

impl Keda {
    pub async fn start(cluster: &Cluster, setup: Setup) -> Result<Self> {
        // The tests of this process run at the same time, and share one build.
        static BUILT: OnceCell<(PathBuf, PathBuf)> = OnceCell::const_new();
        let (programs, source) = BUILT.get_or_try_init(async || tokio::task::spawn_blocking(build).await?).await?;
        let (port, grpc_port) = (free_port()?, free_port()?);
        install(cluster, source).await?;
        let certificates = cluster.state_dir().join("keda-certs");
        fs::create_dir(&certificates)?;
        let identity = cluster.service_account(NAMESPACE, "keda-operator").await?;
        let mut operator = operator(programs, &identity, cluster.state_dir(), &certificates, grpc_port);
        operator = match setup {
            Setup::Alone => {
                register(cluster, source, port).await?;
                operator
            }
            // The server in front of it has the APIService, and reaches KEDA by this name.
            Setup::Behind => {
                operator.flag("enable-apiservice-patching", false).flag("metrics-server-service-name", "localhost")
            }
        };
        make_certificates(cluster, &operator, &certificates).await?;
        operator.log = cluster.state_dir().join("keda-operator.log");
        let operator = cluster.run(operator).await?;
        wait_for_log(&operator, READY).await?;
        let adapter = adapter(programs, &identity, cluster.state_dir(), &certificates)
            .flag("secure-port", port)
            .flag("metrics-service-address", format_args!("127.0.0.1:{grpc_port}"));
        let adapter = cluster.run(adapter).await?;
        Ok(Self { operator, adapter, port, ca: certificates.join("ca.crt") })
    }
}

/// Returns the directory of the programs, and that of their source.
fn build() -> Result<(PathBuf, PathBuf)> {
    notice("building KEDA, if that is not done yet: 16 minutes of processor time");
    let programs = go::tools(Path::new(MODULE), "keda")?;
    Ok((programs, go::source(Path::new(MODULE), "github.com/kedacore/keda/v2")?))
}

/// The name of the operator's server for metrics, which the metrics server asks.
fn authority() -> String {
    format!("keda-operator.{NAMESPACE}.svc")
}

/// Installs the custom resources and the permissions.
async fn install(cluster: &Cluster, source: &Path) -> Result<()> {
    let file = |name: &str| source.join("config").join(name).display().to_string();
    let crds = file("crd/bases");
    let files = [
        file("general/namespace.yaml"),
        file("service_account/service_account.yaml"),
        file("rbac/role.yaml"),
        file("rbac/role_binding.yaml"),
        file("metrics-server/role.yaml"),
        file("metrics-server/role_binding.yaml"),
    ];
    cluster.apply_with_crds(&crds, &files).await
}

/// Applies KEDA's APIService. Its Service is a name for loopback.
async fn register(cluster: &Cluster, source: &Path, port: u16) -> Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE, "namespace": NAMESPACE},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    });
    let path = source.join("config/metrics-server/api_service.yaml");
    let mut api_service: Value = serde_yaml::from_str(&fs::read_to_string(path)?)?;
    ensure_eq("its Service", api_service["spec"]["service"]["name"].as_str(), Some(SERVICE))?;
    api_service["spec"]["service"]["port"] = json!(port);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [service, api_service]});
    let file = tempfile::Builder::new().suffix(".json").tempfile()?;
    fs::write(file.path(), list.to_string())?;
    cluster.run_kubectl(&["apply", "-f", file.path().to_str().context("no text")?]).await.map(drop)
}

fn process(name: &str, program: PathBuf, identity: &Identity, dir: &Path) -> ProcessSpec {
    ProcessSpec::new(name, program, dir.join(format!("{name}.log")))
        .env("KUBECONFIG", identity.kubeconfig.display())
        .env("POD_NAMESPACE", NAMESPACE)
        .env("KEDA_CLUSTER_OBJECT_NAMESPACE", NAMESPACE)
        // All namespaces.
        .env("WATCH_NAMESPACE", "")
}

fn operator(programs: &Path, identity: &Identity, dir: &Path, certificates: &Path, grpc_port: u16) -> ProcessSpec {
    process("keda-operator", programs.join("operator"), identity, dir)
        .flag("enable-cert-rotation", true)
        .path_flag("cert-dir", certificates)
        .flag("metrics-service-bind-address", format_args!("127.0.0.1:{grpc_port}"))
        .flag("zap-encoder", "console")
        // Its admission webhooks are not here.
        .flag("enable-webhook-patching", false)
        // Nothing needs these servers.
        .flag("metrics-bind-address", 0)
        .flag("health-probe-bind-address", 0)
}

fn adapter(programs: &Path, identity: &Identity, dir: &Path, certificates: &Path) -> ProcessSpec {
    process("keda-adapter", programs.join("adapter"), identity, dir)
        .flag("bind-address", "127.0.0.1")
        .path_flag("cert-dir", certificates)
        .path_flag("client-ca-file", &certificates.join("ca.crt"))
        .path_flag("tls-cert-file", &certificates.join("tls.crt"))
        .path_flag("tls-private-key-file", &certificates.join("tls.key"))
        .path_flag("lister-kubeconfig", &identity.kubeconfig)
        .path_flag("authentication-kubeconfig", &identity.kubeconfig)
        .path_flag("authorization-kubeconfig", &identity.kubeconfig)
        .flag("metrics-service-grpc-authority", authority())
        // Its own metrics, which nothing reads, on any port.
        .flag("port", 0)
}

/// Lets the operator make the certificates, and puts the files where kubelet would. The operator ends after that: its
/// container would start again and find them.
async fn make_certificates(cluster: &Cluster, operator: &ProcessSpec, dir: &Path) -> Result<()> {
    let mut first = operator.clone();
    first.log = cluster.state_dir().join("keda-certificates.log");
    let first = cluster.run(first).await?;
    let secrets: Api<Secret> = Api::namespaced(cluster.client()?, NAMESPACE);
    let is_made = |secret: Option<&Secret>| {
        secret.and_then(|secret| secret.data.as_ref()).is_some_and(|data| data.contains_key("tls.key"))
    };
    let made = timeout(TIMEOUT, await_condition(secrets, SECRET, is_made)).await;
    let made = made.with_context(|| format!("KEDA makes no certificates:\n{}", first.log_tail(30)))??;
    for (name, content) in made.and_then(|secret| secret.data).context("no Secret")? {
        fs::write(dir.join(name), content.0)?;
    }
    let end = timeout(TIMEOUT, first.exited()).await;
    let end = end.with_context(|| format!("KEDA does not restart:\n{}", first.log_tail(30)))?;
    ensure_eq("the end of the first process", &*end, "exit code 0")
}
