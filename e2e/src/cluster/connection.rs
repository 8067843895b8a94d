//! A cluster to test against: a control plane that this process starts, or one that the user has.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use kube::{Client, config::Kubeconfig};

use crate::{
    audit::AuditLog,
    auth::{Identity, identity::KUBECONFIG},
    control_plane::{ControlPlane, ControlPlaneOptions},
    process::{Process, ProcessSpec, Supervisor},
    tools::{Helm, Kubectl},
};

/// A cluster to test against.
pub enum Cluster {
    /// Started by us, for this run.
    Local(Box<ControlPlane>),
    /// The user's.
    Existing(Box<Existing>),
}

/// A cluster of the user's own.
pub struct Existing {
    admin: Identity,
    supervisor: Supervisor,
    dir: PathBuf,
}

impl Cluster {
    /// The user's cluster when [`KUBECONFIG`] is set, else a control plane started now.
    pub async fn connect(options: ControlPlaneOptions) -> Result<Self> {
        if env::var_os(KUBECONFIG).is_none_or(|path| path.is_empty()) {
            return Ok(Self::Local(Box::new(ControlPlane::start(options).await?)));
        }
        let existing = Existing::connect().await?;
        let url = &existing.admin.config.cluster_url;
        eprintln!("{KUBECONFIG} is set: using the cluster at {url} (unset it for a control plane of our own)");
        Ok(Self::Existing(Box::new(existing)))
    }

    /// Whether the control plane was started by us; else tests that need its audit log or
    /// its processes do not apply.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }

    /// The control plane, when it is ours.
    pub fn control_plane(&self) -> Option<&ControlPlane> {
        match self {
            Self::Local(control_plane) => Some(control_plane),
            Self::Existing(_) => None,
        }
    }

    /// The user that may do everything, or the user's own.
    pub fn admin(&self) -> &Identity {
        match self {
            Self::Local(control_plane) => control_plane.admin(),
            Self::Existing(existing) => &existing.admin,
        }
    }

    /// A new client of [`Self::admin`].
    pub fn client(&self) -> Result<Client> {
        self.admin().client()
    }

    /// The kubeconfig file of [`Self::admin`].
    pub fn kubeconfig(&self) -> &Path {
        &self.admin().kubeconfig
    }

    /// A user of its own, by client certificate, in at most one group. Only our own control
    /// plane lets us sign one; [`Self::service_account`] works everywhere.
    pub async fn user(&self, name: &str, group: Option<&str>) -> Result<Identity> {
        match self {
            Self::Local(control_plane) => control_plane.user(name, group).await,
            Self::Existing(_) => bail!("no client certificate for {name}: the cluster is not ours"),
        }
    }

    /// The identity of an existing ServiceAccount, by a token from the TokenRequest API.
    pub async fn service_account(&self, namespace: &str, name: &str) -> Result<Identity> {
        self.admin().service_account(namespace, name, self.state_dir()).await
    }

    /// kubectl for this cluster.
    pub fn kubectl(&self) -> Kubectl {
        match self {
            Self::Local(control_plane) => Kubectl::built(control_plane.binaries(), control_plane.state_dir()),
            Self::Existing(existing) => Kubectl::from_path(&existing.dir),
        }
    }

    /// Runs kubectl as [`Self::admin`] and gives its standard output.
    pub async fn run_kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl().run(self.admin(), args).await
    }

    /// helm for this cluster.
    pub fn helm(&self) -> Helm {
        match self {
            Self::Local(control_plane) => Helm::new(control_plane.binaries().helm(), control_plane.state_dir()),
            Self::Existing(existing) => Helm::new("helm".into(), &existing.dir),
        }
    }

    /// Runs helm as [`Self::admin`] and gives its standard output.
    pub async fn run_helm(&self, args: &[&str]) -> Result<String> {
        self.helm().run(self.admin(), args).await
    }

    /// The log of all requests; only our own control plane has one.
    pub fn audit(&self) -> Option<&AuditLog> {
        self.control_plane().map(ControlPlane::audit)
    }

    /// A directory for files of the run; it is removed at the end.
    pub fn state_dir(&self) -> &Path {
        match self {
            Self::Local(control_plane) => control_plane.state_dir(),
            Self::Existing(existing) => &existing.dir,
        }
    }

    /// Runs a program, such as an operator, that ends with the run, however that ends.
    pub async fn run(&self, spec: ProcessSpec) -> Result<Process> {
        match self {
            Self::Local(control_plane) => control_plane.run(spec).await,
            Self::Existing(existing) => existing.supervisor.start(spec).await,
        }
    }

    /// Ends the run: stops what was started. Dropping does the same.
    pub async fn stop(self) -> Result<()> {
        Ok(tokio::task::spawn_blocking(move || drop(self)).await?)
    }
}

impl Existing {
    async fn connect() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("vpn-operator-e2e-").tempdir()?;
        let supervisor = Supervisor::spawn(Some(dir.path()))?;
        // From here on the supervisor removes it.
        let dir = dir.keep();
        // One file, whatever KUBECONFIG lists, for programs that take a single path.
        let merged = Kubeconfig::from_env()?
            .map_or_else(Kubeconfig::read, Ok)
            .with_context(|| format!("{KUBECONFIG} is set, but names no usable kubeconfig"))?;
        let path = dir.join("kubeconfig");
        std::fs::write(&path, serde_yaml::to_string(&merged)?)?;
        let admin = Identity::from_file(&path, None).await?;
        let version = admin.client()?.apiserver_version().await;
        version.with_context(|| format!("{KUBECONFIG} is set, but {} does not answer", admin.config.cluster_url))?;
        Ok(Self { admin, supervisor, dir })
    }
}
