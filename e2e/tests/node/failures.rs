//! Each failure shows in the log of the VPN client as it does with gluetun.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    pods::logs::{container_status, wait_for_log},
    vpn::{self, Scenario, VpnService, client_pod, pod_ready},
};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Capabilities, Pod};

use crate::{test, vpn::client};

/// Longer than a client waits for a server that does not answer, which is 60 s.
const TIMEOUT: Duration = Duration::from_secs(400);

const CONFIG_ERROR: &str = "ERROR VPN settings: ";
const STARTUP: &str = "WARN [vpn] restarting VPN because it failed to pass the healthcheck: startup check: ";
const SILENT: &str = "Wireguard setup is complete. Note Wireguard is a silent protocol";

/// Returns the decisive lines, and the exit code if the client exits.
fn expected(case: Scenario) -> (&'static [&'static str], Option<i32>) {
    match case {
        Scenario::WrongPassword => (
            &[
                "ERROR [openvpn] AUTH: Received control message: AUTH_FAILED\n",
                "SIGUSR1[soft,auth-failure] received, process restarting",
            ],
            None,
        ),
        Scenario::WrongCa => (
            &[
                "VERIFY ERROR: depth=1, error=self-signed certificate in certificate chain: CN=vpn-service",
                "TLS Error: TLS handshake failed",
            ],
            None,
        ),
        Scenario::ClosedPort => (&["read UDPv4 [ECONNREFUSED]: Connection refused (fd=3,code=111)"], None),
        Scenario::ClosedTcpPort => {
            (&["failed: Connection refused", "SIGUSR1[connection failed(soft),connection-failed]"], None)
        }
        Scenario::NoHost => (&["read UDPv4 [EHOSTUNREACH", "No route to host"], None),
        Scenario::SilentDrop => (
            &["WARN [openvpn] TLS Error: TLS key negotiation failed to occur within 60 seconds \
               (check your network connectivity)"],
            None,
        ),
        Scenario::TooManyConnections => (&["AUTH: Received control message: AUTH_FAILED,[TOO_MANY_CONNECTIONS]"], None),
        Scenario::NothingBehind => (&["Initialization Sequence Completed", STARTUP], None),
        Scenario::NoLogin => {
            (&["ERROR [openvpn] No client-side authentication method is specified", "ERROR [vpn] exit status 1"], None)
        }
        Scenario::UnknownOption => (
            &[
                "ERROR [openvpn] Unrecognized option or missing or extra parameter(s) in ",
                "ERROR [vpn] exit status 1",
                "retrying in 15s",
            ],
            None,
        ),
        Scenario::HostName => (&[CONFIG_ERROR, "host is not an IP address: vpn.example.com"], Some(1)),
        Scenario::NoConfig => (&[CONFIG_ERROR, "file does not exist"], Some(1)),
        Scenario::InvalidKey => (&[CONFIG_ERROR, "private key is not valid"], Some(1)),
        Scenario::OpenVpnFile => (&[CONFIG_ERROR, "filepath not specified"], Some(1)),
        Scenario::WireGuardFile => (&[CONFIG_ERROR, "private key is not set"], Some(1)),
        Scenario::UnknownProvider => (&[CONFIG_ERROR, "VPN provider name is not valid"], Some(1)),
        Scenario::NoServer => {
            (&["ERROR [vpn] finding a valid server connection: filtering servers: no server found"], None)
        }
        Scenario::WrongKey | Scenario::WrongPresharedKey | Scenario::WrongWireGuardPort => (&[SILENT, STARTUP], None),
        Scenario::OpenVpn | Scenario::OpenVpnTcp | Scenario::WireGuard(_) => (&[], None),
    }
}

pub async fn each_failure_says_what_it_is() -> Result<()> {
    test("failures", async |_, f| {
        let vpn = VpnService::shared().await?;
        vpn.take_the_only_connection().await?;
        let cases = [
            Scenario::WrongPassword,
            Scenario::NoLogin,
            Scenario::WrongCa,
            Scenario::ClosedPort,
            Scenario::ClosedTcpPort,
            Scenario::NoHost,
            Scenario::SilentDrop,
            Scenario::TooManyConnections,
            Scenario::NothingBehind,
            Scenario::UnknownOption,
            Scenario::HostName,
            Scenario::NoConfig,
            Scenario::OpenVpnFile,
            Scenario::WireGuardFile,
            Scenario::InvalidKey,
            Scenario::UnknownProvider,
            Scenario::NoServer,
            Scenario::WrongKey,
            Scenario::WrongPresharedKey,
            Scenario::WrongWireGuardPort,
        ];
        let check = async |case| {
            let name = format!("{case:?}").to_lowercase();
            client(f, vpn, &name, case).await?;
            let (lines, exit) = expected(case);
            wait_for_log(&f.api(), &name, "vpn", lines, TIMEOUT).await?;
            if let Some(code) = exit {
                f.wait_until(&name, "the exit code", |pod: &Pod| last_exit(pod) == Some(code)).await?;
            }
            let pod = f.api::<Pod>().get(&name).await?;
            let ready = container_status(&pod, "vpn").and_then(|status| status.started);
            ensure!(ready == Some(false), "{case:?}: started {ready:?}");
            anyhow::Ok(())
        };
        // Boxed, because all of them together are too large for the stack of a thread.
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
    test("net-admin", async |_, f| {
        let vpn = VpnService::shared().await?;
        f.create(vpn.secret("client", Scenario::OpenVpn)?).await?;
        let mut pod = client_pod("client", "client", None)?;
        let containers = pod.spec.iter_mut().flat_map(|spec| spec.init_containers.iter_mut().flatten());
        for context in containers.filter_map(|container| container.security_context.as_mut()) {
            context.capabilities = Some(Capabilities::default());
        }
        f.create(pod).await?;
        wait_for_log(&f.api(), "client", "vpn", &["ERROR NET_ADMIN capability is missing: "], TIMEOUT).await?;
        f.wait_until("client", "the exit code", |pod: &Pod| last_exit(pod) == Some(1)).await?;
        Ok(())
    })
    .await
}

/// The network namespace belongs to the Pod, so what the container left in it is still there. The workloads in
/// `e2e/demo` remove it.
pub async fn a_killed_container_finds_its_rule_in_the_way() -> Result<()> {
    test("killed", async |cluster, f| {
        let vpn = VpnService::shared().await?;
        client(f, vpn, "client", Scenario::WireGuard(0)).await?;
        pod_ready(f.api(), "client").await?;
        let pod = f.api::<Pod>().get("client").await?;
        let id =
            container_status(&pod, "vpn").and_then(|status| status.container_id.clone()).context("no container")?;
        // Unlike SIGTERM, SIGKILL allows no cleanup.
        vpn::node_of(cluster)?.kill_container(&id).await?;
        let line = "ERROR [vpn] adding ip rule 101: from all to all table 51820: file exists";
        wait_for_log(&f.api(), "client", "vpn", &[line, "retrying in 15s"], TIMEOUT).await.map(drop)
    })
    .await
}
