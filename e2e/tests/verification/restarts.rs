//! The operator is killed at each step of a verification, and started again; and the server is.

use anyhow::{Context, Result, ensure};
use e2e::{
    Bench, Layout, Operator, Setup,
    cluster::shared,
    pods::logs::is_running,
    vpn::{Case, VpnService},
    wait::{Kind, LIMIT, is_active, is_ready},
};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::wait::await_condition;
use serde_json::json;
use tokio::time::timeout;
use vpn_types::{Mask, MaskConsumer, MaskProvider};

use crate::{ALONE, measured, provider};

/// Waits for something of a name that is soon gone again.
async fn seen<K: Kind>(bench: &Bench, name: &str, what: &str, holds: impl Fn(&K) -> bool) -> Result<()> {
    let wait = await_condition(bench.api::<K>(), name, |object: Option<&K>| object.is_some_and(&holds));
    timeout(LIMIT, wait).await.with_context(|| format!("not seen: {what}"))??;
    Ok(())
}

fn has_verdict(provider: &MaskProvider) -> bool {
    provider.status.as_ref().is_some_and(|status| status.last_verified.is_some())
}

pub async fn killed_at_each_step() -> Result<()> {
    let _alone = ALONE.lock().await;
    let (cluster, vpn) = (shared::cluster_with_node().await?, VpnService::shared().await?);
    let setup = vpn
        .operator_settings()
        .iter()
        .fold(Setup::new(Layout::Combined), |setup, (name, value)| setup.env(name, value));
    let mut operator = Operator::start_with(cluster, setup).await?;
    let bench = Bench::new(cluster, "restarts").await?;
    bench.add_logs(&operator);
    let test = async {
        bench.create(vpn.secret("credentials", Case::OpenVpn)?).await?;
        for step in ["mask", "slot", "pod", "running", "verdict"] {
            let verify = vpn_types::verify_name(step);
            bench.create(serde_json::from_value::<MaskProvider>(provider(step))?).await?;
            match step {
                "mask" => seen(&bench, &verify, "its Mask", |_: &Mask| true).await?,
                "slot" => seen(&bench, &verify, "its slot", is_active).await?,
                "pod" => seen(&bench, &verify, "its Pod", |_: &Pod| true).await?,
                "running" => seen(&bench, &verify, "its VPN client", |pod| is_running(pod, "vpn")).await?,
                _ => seen(&bench, step, "its verdict", has_verdict).await?,
            }
            operator.kill().await?;
            operator.restart(cluster).await?;
            bench.add_logs(&operator);
            let ready = bench.until(step, "Ready", |provider: &MaskProvider| is_ready(provider)).await?;
            ensure!(has_verdict(&ready), "ready without a verdict: {:?}", ready.status);
            bench.until_all::<MaskConsumer>("no MaskConsumer", <[_]>::is_empty).await?;
            bench.until_all::<Pod>("no Pod", <[_]>::is_empty).await?;
            bench.delete::<MaskProvider>(step).await?;
        }
        bench.clear(LIMIT).await
    };
    bench.dump_on_error(test).await?;
    operator.stop().await
}

/// Nobody does anything about the account.
pub async fn heals_when_the_server_is_back() -> Result<()> {
    measured("heals", async |bench, vpn, _| {
        vpn.kill().await?;
        bench.create(vpn.secret("credentials", Case::OpenVpn)?).await?;
        let mut account: MaskProvider = serde_json::from_value(provider("account"))?;
        account.spec.verify = serde_json::from_value(json!({"timeout": "15s"}))?;
        bench.create(account).await?;
        bench.mask("user").await?;
        bench.says::<MaskProvider>("account", "NoHandshake").await?;
        bench.told::<MaskProvider>("account", "NoHandshake", &["tried again at"]).await?;
        bench.says::<Mask>("user", "NoProviderUsable").await?;
        vpn.start_again().await?;
        bench.active("user").await.map(drop)
    })
    .await
}
