//! A namespace for each test. Its state is printed when the test fails.

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
/// How many lines of each log a dump contains.
const LOG_LINES: usize = 60;

/// A namespace for one test.
///
/// When the test panics, `Drop` prints the state of the namespace. For a test that returns an error, [`Namespace::test`]
/// does the same.
pub struct Namespace {
    name: String,
    kubectl: Kubectl,
    admin: Identity,
    /// Whether to delete the namespace at the end. A cluster that this process started disappears as a whole.
    delete: bool,
    logs: Mutex<Vec<PathBuf>>,
}

impl Namespace {
    /// Creates a namespace in the [shared cluster](shared::cluster). Its name is `prefix` and a few random characters.
    pub async fn new(prefix: &str) -> Result<Self> {
        Self::create(shared::cluster().await?, prefix).await
    }

    /// Creates a namespace in `cluster`.
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

    /// Runs a test in a new namespace of the shared cluster. Prints the state of the namespace when the test returns an
    /// error or panics.
    pub async fn test(prefix: &str, body: impl AsyncFnOnce(&Self) -> Result<()>) -> Result<()> {
        let namespace = Self::new(prefix).await?;
        let result = body(&namespace).await;
        namespace.dump_on_error(result)
    }

    /// Prints the error of a test and the state of the namespace.
    pub fn dump_on_error(&self, result: Result<()>) -> Result<()> {
        if let Err(error) = &result {
            eprintln!("===== error: {error:#}\n{}", self.dump());
        }
        result
    }

    /// The name of the namespace.
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

    /// Runs kubectl as admin in this namespace and returns its standard output.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl.run(&self.admin, &[&["--namespace", &self.name], args].concat()).await
    }

    /// Adds a log file, such as an operator's, to the dump.
    pub fn add_log(&self, log: impl Into<PathBuf>) {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).push(log.into());
    }

    /// The state of the namespace: everything that helps to find out why a test failed. Short, informative output comes
    /// first, because some reports keep only the beginning.
    pub fn dump(&self) -> String {
        let mut text = format!("===== namespace {}\n", self.name);
        let kinds = self.output(&["api-resources", &format!("--api-group={GROUP}"), "--verbs=list", "--output=name"]);
        let kinds: Vec<_> = ["pods"].into_iter().chain(kinds.lines().filter(|line| line.ends_with(GROUP))).collect();
        for kind in &kinds {
            self.section(&mut text, &["get", kind, "--output=wide"]);
        }
        self.section(&mut text, &["get", "events", "--sort-by=.metadata.creationTimestamp"]);
        // Without the content: a test may use real credentials.
        self.section(&mut text, &["get", "secrets"]);
        for log in self.logs.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(text, "--- the end of {}\n{}", log.display(), log_tail(log, LOG_LINES));
        }
        for kind in &kinds {
            self.section(&mut text, &["get", kind, "--output=yaml"]);
        }
        // Only containers on a real node have logs.
        for pod in self.output(&["get", "pods", "--output=name"]).lines().filter(|line| line.starts_with("pod/")) {
            self.section(&mut text, &["logs", pod, "--all-containers", "--prefix", "--tail=40"]);
        }
        text + "===== end"
    }

    fn section(&self, text: &mut String, args: &[&str]) {
        let _ = writeln!(text, "--- kubectl {}\n{}", args.join(" "), self.output(args));
    }

    /// Runs kubectl. It blocks and does not fail, because it also runs in `Drop` while a test panics.
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
