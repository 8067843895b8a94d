//! The operator is killed and restarted at each step of a verification, and the VPN server is restarted.

use anyhow::{Context, Result, ensure};
use e2e::{
    Framework, Layout, Operator, OperatorOptions,
    cluster::shared,
    pods::logs::is_running,
    vpn::{Scenario, VpnService},
    wait::{Kind, TIMEOUT, await_condition, is_active, is_ready, ready_condition, wait_until_all},
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use tokio::time::timeout;
use vpn_types::{Mask, MaskConsumer, MaskProvider};

use crate::{ALONE, measured, provider};

/// Waits for an object that exists only briefly.
async fn seen<K: Kind>(f: &Framework, name: &str, what: &str, holds: impl Fn(&K) -> bool) -> Result<()> {
    let wait = await_condition(f.api::<K>(), name, |object: Option<&K>| object.is_some_and(&holds));
    timeout(TIMEOUT, wait).await.with_context(|| format!("not seen: {what}"))??;
    Ok(())
}

fn has_verdict(provider: &MaskProvider) -> bool {
    provider.status.as_ref().is_some_and(|status| status.last_verified.is_some())
}

pub async fn killed_at_each_step() -> Result<()> {
    let _alone = ALONE.lock().await;
    let (cluster, vpn) = (shared::cluster_with_node().await?, VpnService::shared().await?);
    let setup = vpn
        .operator_env()
        .iter()
        .fold(OperatorOptions::new(Layout::Combined), |setup, (name, value)| setup.env(name, value));
    let mut operator = Operator::start_with(cluster, setup).await?;
    let f = Framework::new(cluster, "restarts").await?;
    f.add_logs(&operator);
    let test = async {
        f.create(vpn.secret("credentials", Scenario::OpenVpn)?).await?;
        for step in ["mask", "slot", "pod", "running", "verdict"] {
            let verify = vpn_types::verify_name(step);
            f.create(serde_json::from_value::<MaskProvider>(provider(step))?).await?;
            match step {
                "mask" => seen(&f, &verify, "its Mask", |_: &Mask| true).await?,
                "slot" => seen(&f, &verify, "its slot", is_active).await?,
                "pod" => seen(&f, &verify, "its Pod", |_: &Pod| true).await?,
                "running" => seen(&f, &verify, "its VPN client", |pod| is_running(pod, "vpn")).await?,
                _ => seen(&f, step, "its verdict", has_verdict).await?,
            }
            operator.kill().await?;
            operator.restart(cluster).await?;
            f.add_logs(&operator);
            let ready = f.wait_until(step, "Ready", |provider: &MaskProvider| is_ready(provider)).await?;
            ensure!(has_verdict(&ready), "ready without a verdict: {:?}", ready.status);
            f.wait_until_all::<MaskConsumer>("no MaskConsumer", <[_]>::is_empty).await?;
            f.wait_until_all::<Pod>("no Pod", <[_]>::is_empty).await?;
            f.delete::<MaskProvider>(step).await?;
        }
        f.clear(TIMEOUT).await
    };
    f.dump_on_error(test).await?;
    operator.stop().await
}

/// Nobody changes the account.
pub async fn heals_when_the_server_is_back() -> Result<()> {
    measured("heals", async |f, vpn, _| {
        vpn.kill().await?;
        f.create(vpn.secret("credentials", Scenario::OpenVpn)?).await?;
        let mut account: MaskProvider = serde_json::from_value(provider("account"))?;
        account.spec.verify = serde_json::from_value(json!({"timeout": "60s"}))?;
        f.create(account).await?;
        f.create_mask("user").await?;
        // A slow machine needs part of the timeout to start the VPN client, so the waits are longer, too.
        let failed =
            |account: &MaskProvider| ready_condition(account).is_some_and(|ready| ready.reason == "NoHandshake");
        wait_until_all(f.api(), 2 * TIMEOUT, "NoHandshake", |all| all.iter().any(failed)).await?;
        f.wait_for_event::<MaskProvider>("account", "NoHandshake", &["tried again at"]).await?;
        f.wait_for_reason::<Mask>("user", "NoProviderUsable").await?;
        vpn.restart().await?;
        let served = |one: &MaskConsumer| one.name_any() == "user" && is_active(one);
        wait_until_all(f.api(), 2 * TIMEOUT, "the user has a slot", |all| all.iter().any(served)).await.map(drop)
    })
    .await
}
