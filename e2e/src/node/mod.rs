//! A node that runs containers, for tests that need real Pods: containerd, crun, the CNI plugins, kubelet, and kube-proxy.
//!
//! Everything, including the control plane, runs in Linux namespaces of its own (see [`Isolation`]): a network namespace
//! without a route to the outside, a mount namespace that hides `/run` of the machine, and a PID namespace. When the PID
//! namespace ends, every container ends. So nothing can outlive a run, and the run does not use or change the services of
//! the machine.
//!
//! The node needs Linux, root, and programs of a few Debian packages, which are installed if they are missing.
//! [`unavailable`] returns the reason when a node is not possible.

mod containerd;
pub mod image;
pub mod images;
mod kubelet;
pub mod packages;

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node as KubeNode;
use kube::{Api, Client, runtime::wait::await_condition};
use tokio::sync::Mutex;

use crate::{
    auth::identity::KUBECONFIG,
    process::{Isolation, ProcessSpec, isolation},
};
pub use image::Image;
pub use kubelet::NODE;

/// When this variable is set, a test that needs a node fails if no node is possible. Otherwise, the test is skipped.
pub const REQUIRE: &str = "E2E_REQUIRE_NODE";

/// The reason why no node is possible on this machine, if there is one.
pub fn unavailable() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("it needs Linux".into());
    }
    if env::var_os(KUBECONFIG).is_some_and(|path| !path.is_empty()) {
        return Some(format!("{KUBECONFIG} is set, and the images that it needs are made on this machine"));
    }
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root".into());
    }
    if let Err(why) = isolation::possible() {
        return Some(format!("{why:#}"));
    }
    packages::unavailable(&packages::NODE)
}

/// Installs missing Debian packages. Prints a message first.
pub fn install() -> Result<()> {
    packages::ensure(&packages::NODE)
}

/// The node of a running cluster.
pub struct ContainerNode {
    dir: PathBuf,
    isolation: Isolation,
    imported: Mutex<Vec<String>>,
}

impl ContainerNode {
    pub(crate) fn new(dir: &Path, isolation: Isolation) -> Result<Self> {
        let dir = dir.join("node");
        std::fs::create_dir_all(dir.join("images"))?;
        Ok(Self { dir, isolation, imported: Mutex::default() })
    }

    /// The namespaces of the node.
    pub fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    pub(crate) fn containerd(&self) -> Result<ProcessSpec> {
        containerd::configure(&self.dir)?;
        Ok(containerd::process(&self.dir))
    }

    pub(crate) fn kubelet(&self, program: &Path, files: &kubelet::Files<'_>) -> Result<[ProcessSpec; 2]> {
        kubelet::processes(program, &self.dir, &self.isolation, files)
    }

    /// Imports an image, unless the node already has it.
    pub async fn import(&self, image: &Image) -> Result<()> {
        let mut imported = self.imported.lock().await;
        if imported.contains(&image.name) {
            return Ok(());
        }
        let (image, dir) = (image.clone(), self.dir.clone());
        let name = image.name.clone();
        tokio::task::spawn_blocking(move || {
            let file = dir.join("images").join(format!("{}.tar", image.name.replace(['/', ':'], "-")));
            image.write(&file)?;
            containerd::import(&dir, &file).with_context(|| format!("cannot import the image {}", image.name))
        })
        .await??;
        imported.push(name);
        Ok(())
    }

    /// Imports the image in an archive, under the name in the archive.
    pub async fn import_archive(&self, archive: &Path) -> Result<()> {
        let (dir, archive) = (self.dir.clone(), archive.to_owned());
        let import = move || containerd::import(&dir, &archive).context("cannot import the image");
        tokio::task::spawn_blocking(import).await?
    }

    /// Kills a container, like the kernel when it runs out of memory. `id` is the one in the Pod status.
    pub async fn kill_container(&self, id: &str) -> Result<()> {
        let (dir, id) = (self.dir.clone(), id.trim_start_matches("containerd://").to_owned());
        tokio::task::spawn_blocking(move || containerd::kill(&dir, &id)).await?
    }

    /// Waits until containerd answers.
    pub(crate) async fn containerd_ready(&self) -> Result<()> {
        containerd::ready(&self.dir).await
    }
}

pub(crate) use kubelet::Files;

/// Deletes a Node and waits until it is deleted. The kubelet does not create it again.
pub async fn forget(client: &Client, name: &str) -> Result<()> {
    let nodes: Api<KubeNode> = Api::all(client.clone());
    nodes.delete(name, &Default::default()).await?;
    await_condition(nodes, name, |node: Option<&KubeNode>| node.is_none()).await?;
    Ok(())
}
