//! Many concurrent verifications.

use std::{
    env,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use e2e::{
    Framework, Operator,
    pods::logs::is_running,
    testing::figures::{memory, report},
    vpn::{Scenario, VpnService},
    wait::{is_ready, wait_until_all},
};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use vpn_types::MaskProvider;

use crate::measured;

/// The number of Pods that are followed at once. A node fits 100 besides those of the VPN service.
const PODS: (&str, usize) = ("E2E_VERIFICATION_PODS", 10);
/// The timeout for all of them.
const TIMEOUT: Duration = Duration::from_secs(280);

async fn providers(f: &Framework, vpn: &VpnService, count: usize, case: Scenario) -> Result<()> {
    f.create(vpn.secret("credentials", case)?).await?;
    let create = stream::iter(0..count).map(|index| {
        let mut provider = f.new_provider(&format!("account-{index:03}"), 1);
        provider.spec.secret = "credentials".to_owned();
        provider.spec.verify = serde_json::from_value(json!({"timeout": "10m"})).ok();
        f.create(provider)
    });
    create.buffer_unordered(16).try_for_each(|_| async { Ok(()) }).await
}

fn pid(operator: &Operator) -> Result<i32> {
    operator.pids().next().context("no process")
}

pub async fn twenty_at_once() -> Result<()> {
    measured("twenty", async |f, vpn, operator| {
        let before = memory(pid(operator)?, "VmRSS:")?;
        let began = Instant::now();
        providers(f, vpn, 20, Scenario::OpenVpn).await?;
        let all_ready = |all: &[MaskProvider]| all.iter().filter(|provider| is_ready(*provider)).count() == 20;
        wait_until_all(f.api(), TIMEOUT, "20 ready", all_ready).await?;
        report(&format!(
            "20 providers verified at once: all Ready after {:.0} s; the operator had {before} MiB, at most {} MiB",
            began.elapsed().as_secs_f64(),
            memory(pid(operator)?, "VmHWM:")?
        ));
        Ok(())
    })
    .await
}

/// The tunnel connects but forwards nothing, so each verification lasts until its timeout.
pub async fn followed_at_once() -> Result<()> {
    let (name, default) = PODS;
    let count: usize = env::var(name).map_or(Ok(default), |text| text.parse())?;
    measured("followed", async |f, vpn, operator| {
        let before = memory(pid(operator)?, "VmRSS:")?;
        providers(f, vpn, count, Scenario::NothingBehind).await?;
        let all_run = |all: &[Pod]| all.iter().filter(|pod| is_running(pod, "vpn")).count() == count;
        wait_until_all(f.api(), TIMEOUT, "all run", all_run).await?;
        report(&format!(
            "{count} verification Pods followed at once: the operator had {before} MiB, now {} MiB, at most {} MiB",
            memory(pid(operator)?, "VmRSS:")?,
            memory(pid(operator)?, "VmHWM:")?
        ));
        Ok(())
    })
    .await
}
