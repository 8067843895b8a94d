//! One cluster for all tests of a test process.

use anyhow::Result;
use tokio::sync::OnceCell;

use crate::{Cluster, Options};

/// The cluster of this process, started at first use.
///
/// It is never dropped, as statics are not: it stops because its
/// [supervisor](crate::supervisor) sees this process end.
pub async fn cluster() -> Result<&'static Cluster> {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    CLUSTER.get_or_try_init(|| Cluster::connect(Options::default())).await
}
