//! Pods with the label `vpn.beebs.dev/inject`, as users see them, on nodes that run no containers. All tests here share
//! one cluster, one operator and two webhooks.

mod controllers;
mod gates;
mod jobs;
mod manifests;
mod own_clients;
mod refusals;
mod rollouts;
mod sharing;
mod slots;

use anyhow::Result;
use e2e::{Framework, Layout, Operator, OperatorOptions, testing::framework::local_cluster};
use tokio::sync::OnceCell;

/// Runs a test in a new namespace.
async fn test(prefix: &str, body: impl AsyncFnOnce(&Framework) -> Result<()>) -> Result<()> {
    static OPERATOR: OnceCell<Operator> = OnceCell::const_new();
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let options = || OperatorOptions::new(Layout::Combined).injection(1);
    let operator = OPERATOR.get_or_try_init(async || Operator::start_with(cluster, options()).await).await?;
    Framework::run(cluster, operator, prefix, body).await
}
