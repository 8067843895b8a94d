//! Verifications by separate operators, one test at a time: their cost (time compared with the same Pod applied with
//! kubectl, requests, memory), and the effect of a killed operator. All measurements are shown, but only those that do
//! not depend on the speed of the machine can fail a test.

mod many;
mod restarts;
mod single;

use std::process::ExitCode;

use anyhow::Result;
use e2e::{Framework, Layout, Operator, OperatorOptions, cluster::shared, vpn::VpnService};
use serde_json::{Value, json};
use tokio::sync::Mutex;

fn main() -> ExitCode {
    e2e::testing::harness::run(e2e::node_tests![
        single::beside_a_bare_pod,
        single::a_wrong_password_is_told_soon,
        many::twenty_at_once,
        many::followed_at_once,
        restarts::killed_at_each_step,
        restarts::heals_when_the_server_is_back,
    ])
}

/// One test at a time, because others would affect the measurement.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Runs a measurement with an otherwise idle operator.
async fn measured(
    prefix: &str,
    body: impl AsyncFnOnce(&Framework, &VpnService, &Operator) -> Result<()>,
) -> Result<()> {
    let _alone = ALONE.lock().await;
    let (cluster, vpn) = (shared::cluster_with_node().await?, VpnService::shared().await?);
    let setup = OperatorOptions::new(Layout::Combined);
    let setup = vpn.operator_env().iter().fold(setup, |setup, (name, value)| setup.env(name, value));
    let operator = Operator::start_with(cluster, setup).await?;
    Framework::run(cluster, &operator, prefix, async |f| {
        body(f, vpn, &operator).await?;
        f.clear(e2e::wait::TIMEOUT).await
    })
    .await?;
    operator.stop().await
}

/// Returns an account with one slot, to be verified with the Secret `credentials`.
fn provider(name: &str) -> Value {
    let spec = json!({"secret": "credentials", "maxSlots": 1});
    json!({"apiVersion": "vpn.beebs.dev/v1", "kind": "MaskProvider", "metadata": {"name": name}, "spec": spec})
}
