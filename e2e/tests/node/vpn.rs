//! The VPN service and its clients, without an operator.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    Framework,
    pods::logs::{container_status, wait_for_log},
    testing::framework::ensure_eq,
    vpn::{Scenario, VpnService, client_pod, pod_ready},
};
use k8s_openapi::api::core::v1::Pod;

use crate::test;

/// Longer than the longest timeout of a client, 60 s.
pub const TIMEOUT: Duration = Duration::from_secs(120);

/// Creates the Secret and the Pod of a client, both with this name.
pub async fn client(f: &Framework, vpn: &VpnService, name: &str, case: Scenario) -> Result<()> {
    f.create(vpn.secret(name, case)?).await?;
    f.create(client_pod(name, name, None)?).await?;
    Ok(())
}

/// Returns the address that others see of a client's app.
pub async fn seen_address(f: &Framework, vpn: &VpnService, name: &str) -> Result<String> {
    let url = vpn.address_url();
    let curl = ["exec", name, "--container=main", "--", "curl", "--silent", "--show-error", "--max-time", "10", &url];
    Ok(f.kubectl(&curl).await?.trim().to_owned())
}

pub async fn traffic_leaves_by_the_vpn() -> Result<()> {
    test("traffic", async |_, f| {
        let vpn = VpnService::shared().await?;
        let cases = [
            ("openvpn", Scenario::OpenVpn),
            ("openvpn-tcp", Scenario::OpenVpnTcp),
            ("wireguard", Scenario::WireGuard(1)),
        ];
        for (name, case) in cases {
            client(f, vpn, name, case).await?;
        }
        for (name, case) in cases {
            let own = pod_ready(f.api(), name).await?;
            let exit = vpn.exit_address().to_string();
            ensure!(own.to_string() != exit, "the exit address is the Pod's own address");
            ensure_eq(&format!("{case:?}: seen address"), seen_address(f, vpn, name).await?, exit.clone())?;
            let line = format!("INFO [ip getter] Public IP address is {exit} ");
            wait_for_log(&f.api(), name, "vpn", &[&line], TIMEOUT).await?;
            let file = f.kubectl(&["exec", name, "--container=vpn", "--", "cat", "/tmp/gluetun/ip"]).await?;
            ensure_eq(&format!("{case:?}: /tmp/gluetun/ip"), file, exit)?;
        }
        Ok(())
    })
    .await
}

pub async fn the_app_starts_when_the_tunnel_is_up() -> Result<()> {
    test("order", async |_, f| {
        let vpn = VpnService::shared().await?;
        client(f, vpn, "good", Scenario::OpenVpn).await?;
        client(f, vpn, "bad", Scenario::WrongPassword).await?;
        let own = pod_ready(f.api(), "good").await?;
        let pod = f.api::<Pod>().get("good").await?;
        let started = |name: &str| {
            let state = container_status(&pod, name)?.state.as_ref()?;
            Some(state.running.as_ref()?.started_at.as_ref()?.0)
        };
        ensure!(started("vpn") <= started("main") && started("main").is_some(), "the app started before the VPN");
        ensure!(container_status(&pod, "vpn").and_then(|vpn| vpn.started) == Some(true), "not started");
        ensure!(!vpn.request_counts().await?.contains_key(&own), "traffic left by the Pod's own address");
        // The second rejection shows that time has passed without the app starting.
        let refused = "AUTH: Received control message: AUTH_FAILED";
        wait_for_log(&f.api(), "bad", "vpn", &[refused, "SIGUSR1[soft,auth-failure]"], TIMEOUT).await?;
        let pod = f.api::<Pod>().get("bad").await?;
        let main = container_status(&pod, "main").and_then(|status| status.state.clone()).context("no status")?;
        ensure_eq("why the app waits", main.waiting.and_then(|waiting| waiting.reason), Some("PodInitializing".into()))
    })
    .await
}

pub async fn a_server_that_starts_late_is_found() -> Result<()> {
    test("late", async |cluster, f| {
        let vpn = VpnService::start(cluster).await?;
        vpn.stop().await?;
        client(f, &vpn, "client", Scenario::OpenVpn).await?;
        wait_for_log(&f.api(), "client", "vpn", &["ECONNREFUSED"], TIMEOUT).await?;
        vpn.restart().await?;
        wait_for_log(&f.api(), "client", "vpn", &["Initialization Sequence Completed"], TIMEOUT).await?;
        pod_ready(f.api(), "client").await?;
        ensure_eq("seen address", seen_address(f, &vpn, "client").await?, vpn.exit_address().to_string())
    })
    .await
}

pub async fn a_server_that_vanishes_is_noticed_and_found_again() -> Result<()> {
    test("vanishes", async |cluster, f| {
        let vpn = VpnService::start(cluster).await?;
        client(f, &vpn, "client", Scenario::OpenVpn).await?;
        pod_ready(f.api(), "client").await?;
        vpn.kill().await?;
        let lost = "[vpn-server] Inactivity timeout (--ping-restart), restarting";
        wait_for_log(&f.api(), "client", "vpn", &[lost], TIMEOUT).await?;
        ensure!(seen_address(f, &vpn, "client").await.is_err(), "traffic bypasses the tunnel");
        vpn.restart().await?;
        let found = [lost, "Initialization Sequence Completed"];
        wait_for_log(&f.api(), "client", "vpn", &found, TIMEOUT).await?;
        ensure_eq("seen address", seen_address(f, &vpn, "client").await?, vpn.exit_address().to_string())
    })
    .await
}

pub async fn a_server_that_says_goodbye_is_noticed_at_once() -> Result<()> {
    test("goodbye", async |cluster, f| {
        let vpn = VpnService::start(cluster).await?;
        client(f, &vpn, "client", Scenario::OpenVpn).await?;
        pod_ready(f.api(), "client").await?;
        vpn.stop().await?;
        let lines = ["Connection reset command was pushed by server", "SIGUSR1[soft,server-pushed-connection-reset]"];
        wait_for_log(&f.api(), "client", "vpn", &lines, TIMEOUT).await?;
        Ok(())
    })
    .await
}
