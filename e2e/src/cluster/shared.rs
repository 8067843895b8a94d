//! One cluster for all tests of a test process.

use anyhow::Result;
use tokio::sync::OnceCell;

use super::connection::Cluster;
use crate::control_plane::ControlPlaneOptions;

/// The cluster of this process, started at first use.
///
/// A static is never dropped. The cluster stops because its [supervisor](crate::process::supervisor) notices that this
/// process ends.
pub async fn cluster() -> Result<&'static Cluster> {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    CLUSTER.get_or_try_init(|| Cluster::connect(ControlPlaneOptions::default())).await
}

/// The cluster of this process whose node runs containers, started at first use. It stops as [`cluster`] does.
pub async fn cluster_with_node() -> Result<&'static Cluster> {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    CLUSTER.get_or_try_init(|| Cluster::connect(ControlPlaneOptions::with_container_node())).await
}
