//! The Prometheus Operator, as a process on loopback with the permissions of its manifests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, Identity, ProcessSpec,
    host::{command::run, go, notice},
};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/prometheus-operator");
/// The namespace in its manifests, for the Prometheus Operator and for Prometheus.
pub const NAMESPACE: &str = "default";
/// The name of the Prometheus.
pub const NAME: &str = "e2e";
/// The directory of the configuration in the container of Prometheus.
const ETC: &str = "/etc/prometheus";

/// What the Prometheus Operator generates, in files that a process can read.
pub struct Generated {
    /// The configuration of Prometheus.
    pub file: PathBuf,
    /// The content of that file.
    pub config: Value,
    /// The contents of the files with rules.
    pub rules: Vec<Value>,
}

impl Generated {
    /// Returns the scrape configuration of a job.
    pub fn job(&self, name: &str) -> Option<&Value> {
        self.config["scrape_configs"].as_array()?.iter().find(|config| config["job_name"] == name)
    }
}

/// Applies objects such as PodMonitors. Returns what the Prometheus Operator generates for a Prometheus that selects
/// all of them.
pub async fn generate(cluster: &Cluster, objects: &[Value]) -> Result<Generated> {
    // The tests of this process run at the same time, and share one build.
    static BUILT: OnceCell<(PathBuf, PathBuf)> = OnceCell::const_new();
    let (programs, source) = BUILT.get_or_try_init(async || tokio::task::spawn_blocking(build).await?).await?;
    install(cluster, source).await?;
    let prometheus = prometheus(cluster).await?;
    let items = [objects, &[prometheus]].concat();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    let file = cluster.state_dir().join("monitoring.json");
    fs::write(&file, list.to_string())?;
    cluster.run_kubectl(&["apply", "--server-side", "-f", &file.to_string_lossy()]).await?;

    // It starts when everything is there, so its first configuration is complete.
    let identity = cluster.service_account(NAMESPACE, "prometheus-operator").await?;
    let log = cluster.state_dir().join("prometheus-operator.log");
    let spec = ProcessSpec::new("prometheus-operator", programs.join("operator"), log)
        .env("KUBECONFIG", identity.kubeconfig.display())
        .flag("web.listen-address", "127.0.0.1:0");
    let process = cluster.run(spec).await?;
    let namespace = format!("--namespace={NAMESPACE}");
    let object = format!("prometheus/{NAME}");
    let wait = ["wait", "--for=condition=Reconciled", "--timeout=120s", &namespace, &object];
    let reconciled = cluster.run_kubectl(&wait).await;
    reconciled.with_context(|| format!("the Prometheus Operator does not reconcile:\n{}", process.log_tail(30)))?;
    files(cluster).await
}

/// Returns the directory of the program, and that of its source.
fn build() -> Result<(PathBuf, PathBuf)> {
    notice("building the Prometheus Operator, if that is not done yet: 4 minutes of processor time");
    let program = go::tools(Path::new(MODULE), "prometheus-operator")?;
    Ok((program, go::source(Path::new(MODULE), "github.com/prometheus-operator/prometheus-operator")?))
}

/// Installs the custom resources, and the permissions of the Prometheus Operator and of Prometheus.
async fn install(cluster: &Cluster, source: &Path) -> Result<()> {
    let file = |name: &str| source.join("example").join(name).display().to_string();
    let crds = file("prometheus-operator-crd");
    let files = [
        file("rbac/prometheus-operator/prometheus-operator-cluster-role.yaml"),
        file("rbac/prometheus-operator/prometheus-operator-cluster-role-binding.yaml"),
        file("rbac/prometheus-operator/prometheus-operator-service-account.yaml"),
        file("rbac/prometheus/prometheus-cluster-role.yaml"),
        file("rbac/prometheus/prometheus-cluster-role-binding.yaml"),
        file("rbac/prometheus/prometheus-service-account.yaml"),
    ];
    cluster.apply_with_crds(&crds, &files).await
}

/// Returns a Prometheus that selects everything. Its process is not in a Pod, so it needs the address of the API server
/// and the files of its ServiceAccount.
async fn prometheus(cluster: &Cluster) -> Result<Value> {
    let identity = cluster.service_account(NAMESPACE, "prometheus").await?;
    let (authority, token) = credentials(&identity)?;
    let dir = cluster.state_dir().join("prometheus-serviceaccount");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("ca.crt"), authority)?;
    fs::write(dir.join("token"), token)?;
    Ok(json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "Prometheus",
        "metadata": { "name": NAME, "namespace": NAMESPACE },
        "spec": {
            "serviceAccountName": "prometheus",
            "apiserverConfig": {
                "host": identity.config.cluster_url.to_string(),
                "authorization": { "credentialsFile": dir.join("token") },
                "tlsConfig": { "caFile": dir.join("ca.crt") },
            },
            "podMonitorSelector": {},
            "podMonitorNamespaceSelector": {},
            "serviceMonitorSelector": {},
            "serviceMonitorNamespaceSelector": {},
            "ruleSelector": {},
            "ruleNamespaceSelector": {},
            "scrapeInterval": "1s",
            "evaluationInterval": "1s",
        },
    }))
}

/// Returns the certificate authority of the API server, and the token of a ServiceAccount.
fn credentials(identity: &Identity) -> Result<(Vec<u8>, String)> {
    let kubeconfig: Value = serde_yaml::from_str(&fs::read_to_string(&identity.kubeconfig)?)?;
    let authority = &kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"];
    let authority: ByteString = serde_json::from_value(authority.clone()).context("no certificate authority")?;
    let token = kubeconfig["users"][0]["user"]["token"].as_str().context("no token")?;
    Ok((authority.0, token.to_owned()))
}

/// Writes the files that the container of Prometheus would have.
async fn files(cluster: &Cluster) -> Result<Generated> {
    let dir = cluster.state_dir().join("etc-prometheus");
    fs::create_dir_all(&dir)?;
    let secrets: Api<Secret> = Api::namespaced(cluster.client()?, NAMESPACE);
    let data = secrets.get(&format!("prometheus-{NAME}")).await?.data.unwrap_or_default();
    let packed = dir.join("prometheus.yaml.gz");
    fs::write(&packed, &data.get("prometheus.yaml.gz").context("no configuration")?.0)?;
    let text = run(Command::new("gzip").args(["--decompress", "--stdout"]).arg(&packed))?;
    // The container before Prometheus replaces these variables.
    let text = text.replace("$(SHARD)", "0").replace("$(POD_NAME)", &format!("prometheus-{NAME}-0"));
    let text = text.replace(ETC, &dir.to_string_lossy());
    let file = dir.join("prometheus.yaml");
    fs::write(&file, &text)?;

    let maps: Api<ConfigMap> = Api::namespaced(cluster.client()?, NAMESPACE);
    let of_prometheus = ListParams::default().labels(&format!("prometheus-name={NAME}"));
    let mut rules = Vec::new();
    for map in maps.list(&of_prometheus).await? {
        let dir = dir.join("rules").join(map.name_any());
        fs::create_dir_all(&dir)?;
        for (name, text) in map.data.iter().flatten() {
            fs::write(dir.join(name), text)?;
            rules.push(serde_yaml::from_str(text)?);
        }
    }
    ensure!(!rules.is_empty(), "the Prometheus Operator generated no rules");
    Ok(Generated { file, config: serde_yaml::from_str(&text)?, rules })
}
