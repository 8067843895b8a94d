//! A namespace per test, with a dump of its state when the test fails.

use std::{
    fmt::Write as _,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Namespace as KubeNamespace;
use kube::{
    Api, ResourceExt,
    api::{ObjectMeta, PostParams},
    core::NamespaceResourceScope,
};

use super::{connection::Cluster, shared};
use crate::{auth::Identity, process::log_tail, tools::Kubectl};

/// The API group of the operator's custom resources.
const GROUP: &str = "vpn.beebs.dev";
/// How much of each log goes into a dump.
const LOG_LINES: usize = 60;

/// A namespace of its own for a test.
///
/// When the test panics, its `Drop` prints what was in it. A test that returns its failure
/// as an error runs inside [`Namespace::test`], which does the same.
pub struct Namespace {
    name: String,
    kubectl: Kubectl,
    admin: Identity,
    /// The user's cluster is left as it was; one of ours goes away as a whole.
    delete: bool,
    logs: Mutex<Vec<PathBuf>>,
}

impl Namespace {
    /// A new namespace in the [shared cluster](shared::cluster), named `prefix` and a few
    /// random characters.
    pub async fn new(prefix: &str) -> Result<Self> {
        Self::create(shared::cluster().await?, prefix).await
    }

    /// A new namespace in `cluster`.
    pub async fn create(cluster: &Cluster, prefix: &str) -> Result<Self> {
        let wanted = KubeNamespace {
            metadata: ObjectMeta { generate_name: Some(format!("{prefix}-")), ..Default::default() },
            ..Default::default()
        };
        let created = Api::<KubeNamespace>::all(cluster.client()?)
            .create(&PostParams::default(), &wanted)
            .await
            .with_context(|| format!("cannot create a namespace {prefix}-…"))?;
        Ok(Self {
            name: created.name_any(),
            kubectl: cluster.kubectl(),
            admin: cluster.admin().clone(),
            delete: !cluster.is_local(),
            logs: Mutex::default(),
        })
    }

    /// Runs a test in a new namespace of the shared cluster and dumps the namespace's state
    /// when the test returns an error or panics.
    pub async fn test(prefix: &str, body: impl AsyncFnOnce(&Self) -> Result<()>) -> Result<()> {
        let namespace = Self::new(prefix).await?;
        let result = body(&namespace).await;
        if result.is_err() {
            eprintln!("{}", namespace.dump());
        }
        result
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A typed client of a kind in this namespace, as admin.
    pub fn api<K>(&self) -> Result<Api<K>>
    where
        K: kube::Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Ok(Api::namespaced(self.admin.client()?, &self.name))
    }

    /// Runs kubectl as admin in this namespace and gives its standard output.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl.run(&self.admin, &[&["--namespace", &self.name], args].concat()).await
    }

    /// Adds a log file, such as an operator's, to the dump.
    pub fn add_log(&self, log: impl Into<PathBuf>) {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).push(log.into());
    }

    /// Everything that helps to see why a test failed.
    pub fn dump(&self) -> String {
        let mut text = format!("===== namespace {}\n", self.name);
        self.section(&mut text, &["get", "pods", "--output=wide"]);
        self.section(&mut text, &["get", "pods", "--output=yaml"]);
        // Names and kinds only: a test may use credentials of somebody.
        self.section(&mut text, &["get", "secrets"]);
        self.section(&mut text, &["get", "events", "--sort-by=.metadata.creationTimestamp"]);
        let kinds = self.output(&["api-resources", &format!("--api-group={GROUP}"), "--verbs=list", "--output=name"]);
        for kind in kinds.lines().filter(|line| line.ends_with(GROUP)) {
            self.section(&mut text, &["get", kind, "--output=yaml"]);
        }
        // Of the containers that really run, if any do.
        for pod in self.output(&["get", "pods", "--output=name"]).lines().filter(|line| line.starts_with("pod/")) {
            self.section(&mut text, &["logs", pod, "--all-containers", "--prefix", "--tail=40"]);
        }
        for log in self.logs.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(text, "--- the end of {}\n{}", log.display(), log_tail(log, LOG_LINES));
        }
        text + "===== end"
    }

    fn section(&self, text: &mut String, args: &[&str]) {
        let _ = writeln!(text, "--- kubectl {}\n{}", args.join(" "), self.output(args));
    }

    /// Blocking, and never failing: it also runs in a `Drop` while a test panics.
    fn output(&self, args: &[&str]) -> String {
        let mut command = self.kubectl.blocking_command(&self.admin);
        command.args(["--namespace", &self.name, "--request-timeout=5s"]).args(args);
        match command.output() {
            Ok(output) => {
                let streams = [output.stdout, output.stderr].concat();
                String::from_utf8_lossy(&streams).trim_end().to_owned()
            }
            Err(error) => format!("cannot run kubectl: {error}"),
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.dump());
        }
        if self.delete {
            self.output(&["delete", "namespace", &self.name, "--wait=false"]);
        }
    }
}
