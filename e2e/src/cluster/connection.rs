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

/// A cluster to test against. It has the same interface in both cases.
pub enum Cluster {
    /// A control plane that this process started.
    Local(Box<ControlPlane>),
    /// The cluster of the user.
    Existing(Box<Existing>),
}

/// A connection to the cluster of the user.
pub struct Existing {
    admin: Identity,
    supervisor: Supervisor,
    dir: PathBuf,
}

impl Cluster {
    /// Connects to the cluster of the user when [`KUBECONFIG`] is set. Otherwise, starts a control plane.
    pub async fn connect(options: ControlPlaneOptions) -> Result<Self> {
        if env::var_os(KUBECONFIG).is_none_or(|path| path.is_empty()) {
            return Ok(Self::Local(Box::new(ControlPlane::start(options).await?)));
        }
        let existing = Existing::connect().await?;
        let url = &existing.admin.config.cluster_url;
        eprintln!("{KUBECONFIG} is set: using the cluster at {url} (unset it for a control plane of our own)");
        Ok(Self::Existing(Box::new(existing)))
    }

    /// Whether this process started the control plane. If not, tests that need its audit log or its processes do not apply.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }

    /// The control plane, if this process started it.
    pub fn control_plane(&self) -> Option<&ControlPlane> {
        match self {
            Self::Local(control_plane) => Some(control_plane),
            Self::Existing(_) => None,
        }
    }

    /// The cluster administrator, or the identity in the kubeconfig of the user.
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

    /// Creates a user with a client certificate, in at most one group. This works only on a control plane that this process
    /// started; [`Self::service_account`] works everywhere.
    pub async fn user(&self, name: &str, group: Option<&str>) -> Result<Identity> {
        match self {
            Self::Local(control_plane) => control_plane.user(name, group).await,
            Self::Existing(_) => bail!("no client certificate for {name}: the cluster is not ours"),
        }
    }

    /// The identity of an existing ServiceAccount, with a token from the TokenRequest API.
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

    /// Runs kubectl as [`Self::admin`] and returns its standard output.
    pub async fn run_kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl().run(self.admin(), args).await
    }

    /// Applies the CRDs in `crds`, and the other files, and waits until the CRDs are established.
    pub async fn apply_with_crds(&self, crds: &str, files: &[String]) -> Result<()> {
        let mut apply = vec!["apply", "--server-side", "-f", crds];
        apply.extend(files.iter().flat_map(|file| ["-f", file]));
        self.run_kubectl(&apply).await?;
        let wait = ["wait", "--for=condition=Established", "--timeout=60s", "-f", crds];
        self.run_kubectl(&wait).await.map(drop)
    }

    /// helm for this cluster.
    pub fn helm(&self) -> Helm {
        match self {
            Self::Local(control_plane) => Helm::new(control_plane.binaries().helm(), control_plane.state_dir()),
            Self::Existing(existing) => Helm::new("helm".into(), &existing.dir),
        }
    }

    /// Runs helm as [`Self::admin`] and returns its standard output.
    pub async fn run_helm(&self, args: &[&str]) -> Result<String> {
        self.helm().run(self.admin(), args).await
    }

    /// The audit log. Only a control plane that this process started has one.
    pub fn audit(&self) -> Option<&AuditLog> {
        self.control_plane().map(ControlPlane::audit)
    }

    /// A directory for files of the run. It is removed at the end.
    pub fn state_dir(&self) -> &Path {
        match self {
            Self::Local(control_plane) => control_plane.state_dir(),
            Self::Existing(existing) => &existing.dir,
        }
    }

    /// Runs a program, such as an operator. It ends with the run, however the run ends.
    pub async fn run(&self, spec: ProcessSpec) -> Result<Process> {
        match self {
            Self::Local(control_plane) => control_plane.run(spec).await,
            Self::Existing(existing) => existing.supervisor.start(spec).await,
        }
    }

    /// Stops everything that was started. Dropping does the same.
    pub async fn stop(self) -> Result<()> {
        Ok(tokio::task::spawn_blocking(move || drop(self)).await?)
    }
}

impl Existing {
    async fn connect() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("vpn-operator-e2e-").tempdir()?;
        let supervisor = Supervisor::spawn(Some(dir.path()))?;
        // From now on, the supervisor removes it.
        let dir = dir.keep();
        // KUBECONFIG may list several files. Some programs take only a single path.
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
