//! The VPN service and its clients, without an operator.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    Bench,
    pods::logs::{container_status, until_logged},
    testing::bench::same,
    vpn::{Case, VpnService, client_pod, pod_ready},
};
use k8s_openapi::api::core::v1::Pod;

use crate::bench;

/// More than the longest that a client waits for: 60 s.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Makes the Secret and the Pod of a client, both with this name.
pub async fn client(bench: &Bench, vpn: &VpnService, name: &str, case: Case) -> Result<()> {
    bench.create(vpn.secret(name, case)?).await?;
    bench.create(client_pod(name, name, None)?).await?;
    Ok(())
}

/// The address that the app of a client has for others.
pub async fn seen_address(bench: &Bench, vpn: &VpnService, name: &str) -> Result<String> {
    let url = vpn.address_url();
    let curl = ["exec", name, "--container=main", "--", "curl", "--silent", "--show-error", "--max-time", "10", &url];
    Ok(bench.kubectl(&curl).await?.trim().to_owned())
}

pub async fn traffic_leaves_by_the_vpn() -> Result<()> {
    bench("traffic", async |_, bench| {
        let vpn = VpnService::shared().await?;
        let cases = [("openvpn", Case::OpenVpn), ("openvpn-tcp", Case::OpenVpnTcp), ("wireguard", Case::WireGuard(1))];
        for (name, case) in cases {
            client(bench, vpn, name, case).await?;
        }
        for (name, case) in cases {
            let own = pod_ready(bench.api(), name).await?;
            let exit = vpn.exit_address().to_string();
            ensure!(own.to_string() != exit, "the client is the server");
            same(&format!("{case:?}: seen address"), seen_address(bench, vpn, name).await?, exit.clone())?;
            let line = format!("INFO [ip getter] Public IP address is {exit} ");
            until_logged(&bench.api(), name, "vpn", &[&line], LIMIT).await?;
            let file = bench.kubectl(&["exec", name, "--container=vpn", "--", "cat", "/tmp/gluetun/ip"]).await?;
            same(&format!("{case:?}: /tmp/gluetun/ip"), file, exit)?;
        }
        Ok(())
    })
    .await
}

pub async fn the_app_starts_when_the_tunnel_is_up() -> Result<()> {
    bench("order", async |_, bench| {
        let vpn = VpnService::shared().await?;
        client(bench, vpn, "good", Case::OpenVpn).await?;
        client(bench, vpn, "bad", Case::WrongPassword).await?;
        let own = pod_ready(bench.api(), "good").await?;
        let pod = bench.api::<Pod>().get("good").await?;
        let started = |name: &str| {
            let state = container_status(&pod, name)?.state.as_ref()?;
            Some(state.running.as_ref()?.started_at.as_ref()?.0)
        };
        ensure!(started("vpn") <= started("main") && started("main").is_some(), "the app was there first");
        ensure!(container_status(&pod, "vpn").and_then(|vpn| vpn.started) == Some(true), "not started");
        ensure!(!vpn.counts().await?.contains_key(&own), "something left by the address of the Pod");
        // The second refusal shows that time has passed: the app was not started in the meantime.
        let refused = "AUTH: Received control message: AUTH_FAILED";
        until_logged(&bench.api(), "bad", "vpn", &[refused, "SIGUSR1[soft,auth-failure]"], LIMIT).await?;
        let pod = bench.api::<Pod>().get("bad").await?;
        let main = container_status(&pod, "main").and_then(|status| status.state.clone()).context("no status")?;
        same("why the app waits", main.waiting.and_then(|waiting| waiting.reason), Some("PodInitializing".into()))
    })
    .await
}

pub async fn a_server_that_starts_late_is_found() -> Result<()> {
    bench("late", async |cluster, bench| {
        let vpn = VpnService::start(cluster).await?;
        vpn.stop().await?;
        client(bench, &vpn, "client", Case::OpenVpn).await?;
        until_logged(&bench.api(), "client", "vpn", &["ECONNREFUSED"], LIMIT).await?;
        vpn.start_again().await?;
        until_logged(&bench.api(), "client", "vpn", &["Initialization Sequence Completed"], LIMIT).await?;
        pod_ready(bench.api(), "client").await?;
        same("seen address", seen_address(bench, &vpn, "client").await?, vpn.exit_address().to_string())
    })
    .await
}

pub async fn a_server_that_vanishes_is_noticed_and_found_again() -> Result<()> {
    bench("vanishes", async |cluster, bench| {
        let vpn = VpnService::start(cluster).await?;
        client(bench, &vpn, "client", Case::OpenVpn).await?;
        pod_ready(bench.api(), "client").await?;
        vpn.kill().await?;
        let lost = "[vpn-server] Inactivity timeout (--ping-restart), restarting";
        until_logged(&bench.api(), "client", "vpn", &[lost], LIMIT).await?;
        ensure!(seen_address(bench, &vpn, "client").await.is_err(), "a way round the tunnel");
        vpn.start_again().await?;
        let found = [lost, "Initialization Sequence Completed"];
        until_logged(&bench.api(), "client", "vpn", &found, LIMIT).await?;
        same("seen address", seen_address(bench, &vpn, "client").await?, vpn.exit_address().to_string())
    })
    .await
}

pub async fn a_server_that_says_goodbye_is_noticed_at_once() -> Result<()> {
    bench("goodbye", async |cluster, bench| {
        let vpn = VpnService::start(cluster).await?;
        client(bench, &vpn, "client", Case::OpenVpn).await?;
        pod_ready(bench.api(), "client").await?;
        vpn.stop().await?;
        let lines = ["Connection reset command was pushed by server", "SIGUSR1[soft,server-pushed-connection-reset]"];
        until_logged(&bench.api(), "client", "vpn", &lines, LIMIT).await?;
        Ok(())
    })
    .await
}
