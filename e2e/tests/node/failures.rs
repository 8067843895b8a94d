//! Each way to fail shows in the log of the VPN client as it does with gluetun.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    pods::logs::{container_status, until_logged},
    vpn::{self, Case, VpnService, client_pod, pod_ready},
};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Capabilities, Pod};

use crate::{bench, vpn::client};

/// A client waits 60 s for a server that does not answer.
const LIMIT: Duration = Duration::from_secs(400);

const CONFIG_ERROR: &str = "ERROR VPN settings: ";
const STARTUP: &str = "WARN [vpn] restarting VPN because it failed to pass the healthcheck: startup check: ";
const SILENT: &str = "Wireguard setup is complete. Note Wireguard is a silent protocol";

/// The decisive lines, and the exit code if the client ends.
fn expected(case: Case) -> (&'static [&'static str], Option<i32>) {
    match case {
        Case::WrongPassword => (
            &[
                "ERROR [openvpn] AUTH: Received control message: AUTH_FAILED\n",
                "SIGUSR1[soft,auth-failure] received, process restarting",
            ],
            None,
        ),
        Case::WrongCa => (
            &[
                "VERIFY ERROR: depth=1, error=self-signed certificate in certificate chain: CN=vpn-service",
                "TLS Error: TLS handshake failed",
            ],
            None,
        ),
        Case::ClosedPort => (&["read UDPv4 [ECONNREFUSED]: Connection refused (fd=3,code=111)"], None),
        Case::ClosedTcpPort => {
            (&["failed: Connection refused", "SIGUSR1[connection failed(soft),connection-failed]"], None)
        }
        Case::NoHost => (&["read UDPv4 [EHOSTUNREACH", "No route to host"], None),
        Case::SilentDrop => (
            &["WARN [openvpn] TLS Error: TLS key negotiation failed to occur within 60 seconds \
               (check your network connectivity)"],
            None,
        ),
        Case::TooManyConnections => (&["AUTH: Received control message: AUTH_FAILED,[TOO_MANY_CONNECTIONS]"], None),
        Case::NothingBehind => (&["Initialization Sequence Completed", STARTUP], None),
        Case::NoLogin => {
            (&["ERROR [openvpn] No client-side authentication method is specified", "ERROR [vpn] exit status 1"], None)
        }
        Case::UnknownOption => (
            &[
                "ERROR [openvpn] Unrecognized option or missing or extra parameter(s) in ",
                "ERROR [vpn] exit status 1",
                "retrying in 15s",
            ],
            None,
        ),
        Case::HostName => (&[CONFIG_ERROR, "host is not an IP address: vpn.example.com"], Some(1)),
        Case::NoConfig => (&[CONFIG_ERROR, "file does not exist"], Some(1)),
        Case::InvalidKey => (&[CONFIG_ERROR, "private key is not valid"], Some(1)),
        Case::UnknownProvider => (&[CONFIG_ERROR, "VPN provider name is not valid"], Some(1)),
        Case::NoServer => {
            (&["ERROR [vpn] finding a valid server connection: filtering servers: no server found"], None)
        }
        Case::WrongKey | Case::WrongPresharedKey | Case::WrongWireGuardPort => (&[SILENT, STARTUP], None),
        Case::OpenVpn | Case::OpenVpnTcp | Case::WireGuard(_) => (&[], None),
    }
}

pub async fn each_failure_says_what_it_is() -> Result<()> {
    bench("failures", async |_, bench| {
        let vpn = VpnService::shared().await?;
        vpn.take_the_only_connection().await?;
        let cases = [
            Case::WrongPassword,
            Case::NoLogin,
            Case::WrongCa,
            Case::ClosedPort,
            Case::ClosedTcpPort,
            Case::NoHost,
            Case::SilentDrop,
            Case::TooManyConnections,
            Case::NothingBehind,
            Case::UnknownOption,
            Case::HostName,
            Case::NoConfig,
            Case::InvalidKey,
            Case::UnknownProvider,
            Case::NoServer,
            Case::WrongKey,
            Case::WrongPresharedKey,
            Case::WrongWireGuardPort,
        ];
        let check = async |case| {
            let name = format!("{case:?}").to_lowercase();
            client(bench, vpn, &name, case).await?;
            let (lines, exit) = expected(case);
            until_logged(&bench.api(), &name, "vpn", lines, LIMIT).await?;
            if let Some(code) = exit {
                bench.until(&name, "the exit code", |pod: &Pod| last_exit(pod) == Some(code)).await?;
            }
            let pod = bench.api::<Pod>().get(&name).await?;
            let ready = container_status(&pod, "vpn").and_then(|status| status.started);
            ensure!(ready == Some(false), "{case:?}: started {ready:?}");
            anyhow::Ok(())
        };
        // Boxed: all of them together are too large for the stack of a thread.
        try_join_all(cases.map(|case| Box::pin(check(case)))).await.map(drop)
    })
    .await
}

fn last_exit(pod: &Pod) -> Option<i32> {
    let status = container_status(pod, "vpn")?;
    let states = [status.state.as_ref(), status.last_state.as_ref()];
    states.into_iter().flatten().find_map(|state| state.terminated.as_ref()).map(|end| end.exit_code)
}

pub async fn without_the_right_to_change_the_network() -> Result<()> {
    bench("net-admin", async |_, bench| {
        let vpn = VpnService::shared().await?;
        bench.create(vpn.secret("client", Case::OpenVpn)?).await?;
        let mut pod = client_pod("client", "client", None)?;
        let containers = pod.spec.iter_mut().flat_map(|spec| spec.init_containers.iter_mut().flatten());
        for context in containers.filter_map(|container| container.security_context.as_mut()) {
            context.capabilities = Some(Capabilities::default());
        }
        bench.create(pod).await?;
        until_logged(&bench.api(), "client", "vpn", &["ERROR NET_ADMIN capability is missing: "], LIMIT).await?;
        bench.until("client", "the exit code", |pod: &Pod| last_exit(pod) == Some(1)).await?;
        Ok(())
    })
    .await
}

/// The network namespace belongs to the Pod: what the container left in it is still there. The files for workloads
/// (`e2e/demo`) remove it.
pub async fn a_killed_container_finds_its_rule_in_the_way() -> Result<()> {
    bench("killed", async |cluster, bench| {
        let vpn = VpnService::shared().await?;
        client(bench, vpn, "client", Case::WireGuard(0)).await?;
        pod_ready(bench.api(), "client").await?;
        let pod = bench.api::<Pod>().get("client").await?;
        let id =
            container_status(&pod, "vpn").and_then(|status| status.container_id.clone()).context("no container")?;
        // Not SIGTERM, after which it cleans up.
        vpn::node_of(cluster)?.kill_container(&id).await?;
        let line = "ERROR [vpn] adding ip rule 101: from all to all table 51820: file exists";
        until_logged(&bench.api(), "client", "vpn", &[line, "retrying in 15s"], LIMIT).await.map(drop)
    })
    .await
}
