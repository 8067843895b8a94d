//! A control plane that belongs to one process.

mod components;
pub mod kwok;

use std::{
    collections::HashMap,
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use futures::future::select_all;
use k8s_openapi::{
    api::core::v1::ServiceAccount, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::PostParams,
    runtime::{conditions::is_crd_established, wait::await_condition},
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use crate::{
    audit::AuditLog,
    auth::{
        Pki,
        identity::{self, Identity},
    },
    node::{self, ContainerNode, images},
    process::{Isolation, Process, ProcessSpec, Signal, Supervisor},
    tools::Binaries,
};
use components::{Components, Ports};

/// When this variable is set, the logs and the data of a control plane are kept after its end.
pub const KEEP_STATE: &str = "E2E_KEEP_STATE";

/// The timeout for the start, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);
/// The interval between two requests for `/readyz`, which cannot be watched.
const POLL: Duration = Duration::from_millis(50);
/// How many times to try to start when another process takes one of the ports in the meantime.
const PORT_ATTEMPTS: usize = 5;

/// What a control plane consists of.
#[derive(Clone, Debug)]
pub struct ControlPlaneOptions {
    /// How many nodes kwok simulates: `kwok-node-0` and so on.
    pub kwok_nodes: usize,
    /// Whether there is a [node] that runs containers.
    pub container_node: bool,
    /// Additional arguments of kube-apiserver.
    pub apiserver_args: Vec<String>,
    /// Additional arguments of kube-controller-manager.
    pub controller_manager_args: Vec<String>,
}

impl ControlPlaneOptions {
    /// A node that runs containers, and no kwok nodes.
    pub fn with_container_node() -> Self {
        Self { kwok_nodes: 0, container_node: true, ..Self::default() }
    }
}

impl Default for ControlPlaneOptions {
    fn default() -> Self {
        Self { kwok_nodes: 1, container_node: false, apiserver_args: Vec::new(), controller_manager_args: Vec::new() }
    }
}

/// A running control plane. Dropping it stops everything and removes its files.
pub struct ControlPlane {
    supervisor: Supervisor,
    processes: Vec<Process>,
    /// Processes that were restarted, by name.
    restarted: Mutex<HashMap<&'static str, Process>>,
    binaries: Binaries,
    pki: Pki,
    dir: PathBuf,
    server: String,
    admin: Identity,
    audit: AuditLog,
    node: Option<ContainerNode>,
}

impl ControlPlane {
    /// Starts everything, and returns when Pods can be created and run.
    pub async fn start(options: ControlPlaneOptions) -> Result<Self> {
        // This blocks: at first use, it builds for minutes.
        let needs_node = options.container_node;
        let binaries = tokio::task::spawn_blocking(move || {
            if needs_node {
                node::install()?;
            }
            Binaries::ensure()
        })
        .await??;
        for _ in 1..PORT_ATTEMPTS {
            match Self::start_once(&options, &binaries).await {
                Err(error) if format!("{error:#}").contains("address already in use") => {}
                result => return result,
            }
        }
        Self::start_once(&options, &binaries).await
    }

    async fn start_once(options: &ControlPlaneOptions, binaries: &Binaries) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("vpn-operator-e2e-").tempdir()?;
        let keep = env::var_os(KEEP_STATE).is_some();
        let remove = (!keep).then_some(dir.path());
        let (supervisor, node) = if options.container_node {
            let isolation = Isolation::pick(dir.path())?;
            (Supervisor::spawn_isolated(remove, &isolation)?, Some(ContainerNode::new(dir.path(), isolation)?))
        } else {
            (Supervisor::spawn(remove)?, None)
        };
        let node_address = node.as_ref().map(|node| node.isolation().node);
        // From now on, the supervisor removes it.
        let dir = dir.keep();
        let pki = Pki::create(&dir.join("pki"), node_address)?;
        let ports = Ports::pick()?;
        std::fs::write(dir.join("audit-policy.yaml"), include_str!("../../audit-policy.yaml"))?;
        let components = Components { binaries, dir: &dir, pki: &pki, ports: &ports, node: node_address };
        let server = format!("https://{}:{}", components.address(), ports.apiserver);
        let admin = certificate_identity(&pki, &dir, &server, "e2e-admin", Some("system:masters")).await?;

        let audit = AuditLog::new(components.audit_log(), admin.clone());
        let etcd = components.etcd();
        let apiserver = components.apiserver(&options.apiserver_args);
        let user = |name| certificate_identity(&pki, &dir, &server, name, None);
        let mut controller_manager =
            components.controller_manager(&user("system:kube-controller-manager").await?.kubeconfig);
        controller_manager.args.extend(options.controller_manager_args.iter().map(Into::into));
        let scheduler = components.scheduler(&user("system:kube-scheduler").await?.kubeconfig);
        let kwok_user = certificate_identity(&pki, &dir, &server, "kwok", Some("system:masters")).await?;
        let kwok = (options.kwok_nodes > 0).then(|| kwok::process(binaries, &dir, &kwok_user)).transpose()?;

        let binaries = binaries.clone();
        let (processes, restarted) = (Vec::new(), Mutex::default());
        let mut started = Self { supervisor, processes, restarted, binaries, pki, dir, server, admin, audit, node };
        // Each program depends on those before it. They stop in reverse order.
        started.add(etcd).await?;
        started.add(apiserver).await?;
        let client = started.admin.client()?;
        started.fail_on_exit(ready(&client)).await.context("the API server did not become ready")?;
        // The kinds come before the garbage collector, which looks for new kinds only every 30 s.
        started.fail_on_exit(create_kinds(&client)).await.context("the kinds of vpn-operator are not served")?;
        started.add(controller_manager).await?;
        started.add(scheduler).await?;
        if let Some(kwok) = kwok {
            started.add(kwok).await?;
        }
        started.start_node().await?;
        for index in 0..options.kwok_nodes {
            kwok::create_node(&client, &kwok::node_name(index)).await?;
        }
        let usable = async {
            let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
            let exists = |account: Option<&ServiceAccount>| account.is_some();
            await_condition(accounts, "default", exists).await?;
            for index in 0..options.kwok_nodes {
                kwok::wait_ready(&client, &kwok::node_name(index)).await?;
            }
            if options.container_node {
                kwok::wait_ready(&client, node::NODE).await?;
            }
            Ok(())
        };
        started.fail_on_exit(usable).await.context("the cluster did not become usable")?;
        Ok(started)
    }

    async fn start_node(&mut self) -> Result<()> {
        let Some(node) = &self.node else { return Ok(()) };
        let kubelet = self.user(&format!("system:node:{}", node::NODE), Some("system:nodes")).await?.kubeconfig;
        let proxy = self.user("system:kube-proxy", None).await?.kubeconfig;
        let files = node::Files { pki: &self.pki, kubelet: &kubelet, proxy: &proxy };
        let processes = node.kubelet(&self.binaries.control_plane(), &files)?;
        self.processes.push(self.supervisor.start(node.containerd()?).await?);
        self.fail_on_exit(node.containerd_ready()).await.context("containerd does not answer")?;
        node.import(&images::pause()?).await?;
        for process in processes {
            self.processes.push(self.supervisor.start(process).await?);
        }
        Ok(())
    }

    async fn add(&mut self, spec: ProcessSpec) -> Result<()> {
        self.processes.push(self.supervisor.start(spec).await?);
        Ok(())
    }

    /// Waits for `step`. Fails as soon as one of the programs ends.
    async fn fail_on_exit(&self, step: impl Future<Output = Result<()>>) -> Result<()> {
        tokio::select! {
            result = timeout(START_LIMIT, step) => match result {
                Ok(result) => result,
                Err(_) => bail!("not done after {} s\n{}", START_LIMIT.as_secs(), self.log_tails(10)),
            },
            ended = self.wait_for_exit() => Err(ended),
        }
    }

    /// Waits until one of the programs ends, which none should. Returns the end of its log as an error.
    pub async fn wait_for_exit(&self) -> anyhow::Error {
        let ends = self.processes.iter().map(|process| Box::pin(async move { (process, process.exited().await) }));
        let ((process, status), ..) = select_all(ends).await;
        let (name, tail) = (&process.spec().name, process.log_tail(30));
        anyhow!("{name} ended ({status}). The end of its log:\n{tail}")
    }

    /// The end of the log of every program.
    pub fn log_tails(&self, lines: usize) -> String {
        let tail = |process: &Process| format!("--- {}\n{}\n", process.spec().name, process.log_tail(lines));
        self.processes.iter().map(tail).collect()
    }

    /// The cluster administrator.
    pub fn admin(&self) -> &Identity {
        &self.admin
    }

    /// Creates a user with a client certificate, in at most one group. RBAC decides what the user may do. The audit log
    /// distinguishes it from other users.
    pub async fn user(&self, name: &str, group: Option<&str>) -> Result<Identity> {
        certificate_identity(&self.pki, &self.dir, &self.server, name, group).await
    }

    /// The certificates of the programs.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// Runs a program that ends with the control plane, before the programs of the control plane.
    pub async fn run(&self, spec: ProcessSpec) -> Result<Process> {
        self.supervisor.start(spec).await
    }

    /// The node that runs containers, if there is one.
    pub fn node(&self) -> Option<&ContainerNode> {
        self.node.as_ref()
    }

    /// The audit log.
    pub fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// A directory for files of the run. It is removed at the end.
    pub fn state_dir(&self) -> &Path {
        &self.dir
    }

    /// The programs that were built.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The process of this name: `etcd`, `kube-apiserver`, `kube-controller-manager`, `kube-scheduler`, `kwok`, `containerd`,
    /// `kubelet`, or `kube-proxy`.
    pub fn process(&self, name: &str) -> Option<&Process> {
        self.processes.iter().find(|process| process.spec().name == name)
    }

    /// Stops kube-apiserver with a signal, starts it again, and returns when it is ready.
    pub async fn restart_apiserver(&self, signal: Signal) -> Result<()> {
        let mut restarted = self.restarted.lock().await;
        self.restart_process(&mut restarted, "kube-apiserver", signal).await?;
        let again = restarted.get("kube-apiserver").context("no API server")?;
        let client = self.admin.client()?;
        let ready = timeout(START_LIMIT, ready(&client));
        tokio::select! {
            result = ready => result.context("the API server is not ready again")??,
            end = again.exited() => bail!("the API server ended: {end}\n{}", again.log_tail(30)),
        }
        // Unlike a kubelet, kwok does not retry a request that was interrupted: Pods would never be deleted.
        match self.process("kwok") {
            Some(_) => self.restart_process(&mut restarted, "kwok", Signal::KILL).await,
            None => Ok(()),
        }
    }

    async fn restart_process(
        &self,
        restarted: &mut HashMap<&'static str, Process>,
        name: &'static str,
        signal: Signal,
    ) -> Result<()> {
        let process = restarted.get(name).or_else(|| self.process(name)).with_context(|| format!("no {name}"))?;
        process.signal(signal)?;
        process.exited().await;
        let again = self.supervisor.start(process.spec().clone()).await?;
        restarted.insert(name, again);
        Ok(())
    }

    /// Stops everything and waits for its end. Dropping does the same.
    pub async fn stop(self) -> Result<()> {
        Ok(tokio::task::spawn_blocking(move || drop(self)).await?)
    }
}

async fn certificate_identity(
    pki: &Pki,
    dir: &Path,
    server: &str,
    user: &str,
    group: Option<&str>,
) -> Result<Identity> {
    let path = dir.join(format!("{}.kubeconfig", user.replace([':', '/'], "-")));
    identity::write_certificate(&path, server, pki.authority_pem(), pki.client(user, group)?)?;
    let mut identity = Identity::from_file(&path, Some(user.into())).await?;
    // Loopback is never behind a proxy, even if the environment has one.
    identity.config.proxy_url = None;
    Ok(identity)
}

/// Creates the CustomResourceDefinitions of vpn-operator and waits until they are established.
async fn create_kinds(client: &Client) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let kinds = vpn_types::crds();
    for kind in &kinds {
        definitions.create(&PostParams::default(), kind).await?;
    }
    for kind in &kinds {
        await_condition(definitions.clone(), &kind.name_any(), is_crd_established()).await?;
    }
    Ok(())
}

async fn ready(client: &Client) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let request = http::Request::get("/readyz").body(Vec::new())?;
        match client.request_text(request).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => sleep(POLL).await,
        }
    }
}
