//! Accounts whose Secret is a file that no variable names: labeled Pods connect with it, as the verification does.

use anyhow::{Context, Result};
use e2e::{
    Framework,
    cluster::shared,
    testing::framework::ensure_eq,
    vpn::{Scenario, VpnService},
    wait::is_ready,
};
use serde_json::json;
use vpn_types::MaskProvider;

use crate::{
    injection::{apply, deployment, seen, wait_for_ready},
    verification,
};

async fn connects(case: Scenario, file: &str) -> Result<()> {
    let cluster = shared::cluster_with_node().await?;
    let vpn = VpnService::shared().await?;
    let operator = verification::operator(vpn).await?;
    Framework::run(cluster, operator, "files", async |f| {
        f.create(vpn.secret("account-credentials", case)?).await?;
        let mut provider = f.new_provider("account", 1);
        provider.spec.verify = None;
        f.create(provider).await?;
        f.wait_until("account", "verified", |provider: &MaskProvider| is_ready(provider)).await?;
        apply(f, &deployment("scraper", vpn, 1, json!({}))).await?;
        let pod = wait_for_ready(f, 1).await?.pop_first().context("no Pod")?;
        ensure_eq("all that the app saw", seen(f, &pod).await?, vpn.exit_address().to_string())?;
        f.kubectl(&["exec", &pod, "--container=vpn", "--", "test", "-s", file]).await.map(drop)
    })
    .await
}

pub async fn an_openvpn_configuration_that_no_variable_names() -> Result<()> {
    connects(Scenario::OpenVpnFile, "/gluetun/custom.conf").await
}

pub async fn a_wireguard_configuration() -> Result<()> {
    connects(Scenario::WireGuardFile, "/gluetun/wireguard/wg0.conf").await
}
