//! OpenVPN servers with real clients: what clients can reach, how revocation ends sessions, and how replicas drain.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{
    Framework,
    cluster::shared,
    node::images,
    operator,
    testing::framework::ensure_eq,
    vpn::{VpnService, device_pod, node_of, pod_ready},
    wait::is_ready,
};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::{ResourceExt, api::ListParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use vpn_types::{MaskProvider, OpenVPNClient, OpenVPNServer};

use crate::{verification, vpn::seen_address};

/// Runs a test with an OpenVPN server.
pub async fn with_server(
    name: &str,
    spec: Value,
    body: impl AsyncFnOnce(&Framework, &VpnService) -> Result<()>,
) -> Result<()> {
    let cluster = shared::cluster_with_node().await?;
    let vpn = VpnService::shared().await?;
    node_of(cluster)?.import(&images::openvpn(&operator::executable(cluster).await?)?).await?;
    let operator = verification::operator(vpn).await?;
    Framework::run(cluster, operator, name, async |f| {
        create_server(f, spec).await?;
        body(f, vpn).await
    })
    .await
}

async fn create_server(f: &Framework, spec: Value) -> Result<()> {
    // Forwarding is off in new Pods of this node.
    let mut server = json!({"metadata": {"name": "home"}, "spec": spec});
    server["spec"]["ipForward"] = json!("Sysctl");
    f.create::<OpenVPNServer>(serde_json::from_value(server)?).await?;
    f.wait_for_reason::<OpenVPNServer>("home", "Serving").await.map(drop)
}

/// Creates a client, and a Pod that connects with its profile.
pub async fn device(f: &Framework, name: &str) -> Result<()> {
    let client = json!({"metadata": {"name": name}, "spec": {"server": "home"}});
    f.create::<OpenVPNClient>(serde_json::from_value(client)?).await?;
    f.wait_for_reason::<OpenVPNClient>(name, "Issued").await?;
    f.create(device_pod(name, name, &format!("{name}.ovpn"), images::TOOLS)?).await.map(drop)
}

/// The replicas of the server: names and addresses.
pub async fn replicas(f: &Framework) -> Result<Vec<(String, String)>> {
    let pods = f.api::<Pod>().list(&ListParams::default().labels("app=openvpn")).await?;
    let address = |pod: &Pod| Some((pod.name_any(), pod.status.as_ref()?.pod_ip.clone()?));
    Ok(pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).filter_map(address).collect())
}

/// The names of the clients that a replica shows.
pub async fn sessions(f: &Framework, replica: &str) -> Result<Vec<String>> {
    let path = format!("/api/v1/namespaces/{}/pods/{replica}:9176/proxy/sessions", f.name());
    let sessions: Value = serde_json::from_str(&f.kubectl(&["get", "--raw", &path]).await?)?;
    let all = sessions.as_array().or_else(|| sessions["sessions"].as_array()).cloned().context("no sessions")?;
    Ok(all.iter().filter_map(|session| session["name"].as_str().map(str::to_owned)).collect())
}

/// Waits until a condition on the replicas holds.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "not within 90 s: {what}");
        sleep(Duration::from_millis(200)).await;
    }
}

pub async fn ten_devices_reach_the_cluster_through_their_replicas() -> Result<()> {
    with_server("device", json!({"replicas": 2}), async |f, vpn| {
        let names: BTreeSet<_> = (0..10).map(|number| format!("device-{number}")).collect();
        try_join_all(names.iter().map(|name| device(f, name))).await?;
        for name in &names {
            pod_ready(f.api(), name).await?;
        }
        let replicas = replicas(f).await?;
        // A replica asks OpenVPN for its clients at most once a second.
        let connected = until("all devices are shown", async || {
            let mut connected = Vec::new();
            for (replica, _) in &replicas {
                connected.push(sessions(f, replica).await?);
            }
            let shown: BTreeSet<_> = connected.iter().flatten().cloned().collect();
            Ok((shown == names).then_some(connected))
        })
        .await?;
        for (devices, (_, address)) in connected.iter().zip(&replicas) {
            for name in devices {
                ensure_eq(&format!("address of {name}"), &seen_address(f, vpn, name).await?, address)?;
            }
        }
        let most = connected.into_iter().max_by_key(Vec::len).context("no replica")?;
        let counts = |server: &OpenVPNServer| server.status.as_ref().and_then(|status| status.connected_clients);
        f.wait_until("home", "all devices in its status", |server| counts(server) == Some(10)).await?;
        // Nothing listens on that port, so a reachable device refuses the connection.
        let other = tunnel_address(f, &most[0]).await?;
        let curl =
            format!("curl --max-time 3 http://{other}:9 2>&1; curl --max-time 10 http://10.240.0.1:9176/address");
        let said = f.kubectl(&["exec", &most[1], "--container=main", "--", "sh", "-c", &curl]).await?;
        ensure!(said.contains("timed out") && !said.contains("refused"), "{} reaches {}: {said}", most[1], most[0]);
        let path = format!("/api/v1/namespaces/{}/pods/{}:9176/proxy/metrics", f.name(), replicas[0].0);
        let metrics = f.kubectl(&["get", "--raw", &path]).await?;
        for metric in ["openvpn_up", "openvpn_server_connected_clients", "openvpn_openvpn_server_connected_clients"] {
            ensure!(metrics.contains(&format!("\n{metric}{{")), "{metric} is not in\n{metrics}");
        }
        Ok(())
    })
    .await
}

/// The address of a device in the tunnel.
async fn tunnel_address(f: &Framework, device: &str) -> Result<String> {
    let show = ["exec", device, "--container=openvpn", "--", "ip", "-4", "-o", "address", "show", "tun0"];
    let shown = f.kubectl(&show).await?;
    let address = shown.split_whitespace().skip_while(|word| *word != "inet").nth(1);
    let (address, _) = address.and_then(|address| address.split_once('/')).with_context(|| shown.clone())?;
    Ok(address.to_owned())
}

pub async fn a_revoked_client_is_cut_off_on_every_replica() -> Result<()> {
    with_server("revoked", json!({"replicas": 2}), async |f, vpn| {
        for name in ["good", "bad"] {
            device(f, name).await?;
        }
        pod_ready(f.api(), "good").await?;
        pod_ready(f.api(), "bad").await?;
        let replicas = replicas(f).await?;
        let bad = f.api::<OpenVPNClient>().get("bad").await?;
        f.delete::<OpenVPNClient>("bad").await?;
        f.wait_deleted(&bad).await?;
        let published = Instant::now();
        until("the session ends", async || {
            let mut still = false;
            for (replica, _) in &replicas {
                still |= sessions(f, replica).await?.contains(&"bad".to_owned());
            }
            Ok((!still).then_some(()))
        })
        .await?;
        e2e::testing::figures::report(&format!(
            "a revoked session was cut {:.1} s after its client was gone",
            published.elapsed().as_secs_f64()
        ));
        // The client tries again, and the server rejects it.
        let refused = async || {
            let mut logs = String::new();
            for (replica, _) in &replicas {
                logs += &f.kubectl(&["logs", replica, "--container=openvpn"]).await?;
            }
            Ok(logs.contains("is revoked").then_some(()))
        };
        until("it is refused", refused).await?;
        ensure!(seen_address(f, vpn, "good").await.is_ok(), "another client was disturbed");
        let kept = f.kubectl(&["logs", "good", "--container=openvpn"]).await?;
        ensure_eq("connections of the other client", kept.matches("Initialization Sequence Completed").count(), 1)
    })
    .await
}

pub async fn masks_connect_through_a_server() -> Result<()> {
    let provider = json!({"maxSlots": 2, "tags": ["home"]});
    with_server("slots", json!({"replicas": 1, "provider": provider}), async |f, vpn| {
        // The verification is a gluetun Pod like any other.
        f.wait_until("home", "a verified provider", |provider: &MaskProvider| is_ready(provider)).await?;
        let pod = json!({
            "metadata": {"name": "app", "labels": {"vpn.beebs.dev/inject": "true"}},
            "spec": {
                "terminationGracePeriodSeconds": 2,
                "containers": [{"name": "main", "image": images::TOOLS, "command": ["sleep", "1000000"]}],
            },
        });
        f.create::<Pod>(serde_json::from_value(pod)?).await?;
        pod_ready(f.api(), "app").await?;
        let (_, exit) = replicas(f).await?.pop().context("no replica")?;
        ensure_eq("seen address", seen_address(f, vpn, "app").await?, exit)
    })
    .await
}

pub async fn a_replica_that_ends_lets_its_clients_go() -> Result<()> {
    let spec = json!({"replicas": 2, "drain": {"timeout": "9s"}});
    with_server("drained", spec, async |f, vpn| {
        let names = ["one", "two", "three", "four"];
        for name in names {
            device(f, name).await?;
        }
        for name in names {
            pod_ready(f.api(), name).await?;
        }
        let before = replicas(f).await?;
        let mut of_replica = Vec::new();
        for (replica, _) in &before {
            of_replica.push(sessions(f, replica).await?);
        }
        // The replica with more clients ends.
        let (ends, stays) = if of_replica[0].len() >= of_replica[1].len() { (0, 1) } else { (1, 0) };
        f.delete::<Pod>(&before[ends].0).await?;
        let left = of_replica[ends].clone();
        ensure!(!left.is_empty(), "nobody is connected to {}", before[ends].0);
        until("all of its clients are with others", async || {
            let mut found = Vec::new();
            for (replica, _) in replicas(f).await? {
                found.extend(sessions(f, &replica).await.unwrap_or_default());
            }
            Ok(left.iter().all(|name| found.contains(name)).then_some(()))
        })
        .await?;
        for name in &of_replica[stays] {
            let log = f.kubectl(&["logs", name, "--container=openvpn"]).await?;
            let times = log.matches("Initialization Sequence Completed").count();
            ensure_eq(&format!("connections of {name}, whose replica stays"), times, 1)?;
        }
        for name in names {
            ensure!(!seen_address(f, vpn, name).await?.is_empty(), "{name} has no connection");
        }
        let secret = f.api::<Secret>().get("home-ca").await?;
        ensure!(secret.metadata.owner_references.is_none(), "the CA would be deleted with the server");
        Ok(())
    })
    .await
}

/// Waits until a replica other than these has a session of the client.
async fn comes_back(f: &Framework, name: &str, before: &[(String, String)], why: &str) -> Result<()> {
    until(&format!("{name} is back after {why}"), async || {
        for (replica, _) in replicas(f).await? {
            let is_new = before.iter().all(|(old, _)| *old != replica);
            // A replica that is still starting does not answer.
            if is_new && sessions(f, &replica).await.unwrap_or_default().contains(&name.to_owned()) {
                return Ok(Some(()));
            }
        }
        Ok(None)
    })
    .await
}

/// The server certificate, or that of a client.
async fn certificate(f: &Framework, secret: &str) -> Result<Vec<u8>> {
    let data = f.api::<Secret>().get(secret).await?.data.unwrap_or_default();
    Ok(data.get("tls.crt").with_context(|| format!("no certificate in {secret}"))?.0.clone())
}

pub async fn a_device_comes_back_whatever_happens_to_the_server() -> Result<()> {
    let spec = json!({"replicas": 2, "drain": {"timeout": "3s"}});
    with_server("back", spec.clone(), async |f, vpn| {
        device(f, "laptop").await?;
        pod_ready(f.api(), "laptop").await?;

        let before = replicas(f).await?;
        let all = ListParams::default().labels("app=openvpn,release=home");
        f.api::<Pod>().delete_collection(&Default::default(), &all).await?;
        comes_back(f, "laptop", &before, "all replicas were deleted").await?;

        // A new certificate comes with a rolling update.
        let (before, old) = (replicas(f).await?, certificate(f, "home-server").await?);
        f.delete::<Secret>("home-server").await?;
        comes_back(f, "laptop", &before, "the server has a new certificate").await?;
        ensure!(certificate(f, "home-server").await? != old, "the certificate is the old one");
        let seen = seen_address(f, vpn, "laptop").await?;
        ensure!(replicas(f).await?.iter().any(|(_, address)| *address == seen), "laptop is seen at {seen}");

        // A new CA also causes a rolling update. The device still uses its old profile.
        let before = replicas(f).await?;
        f.patch::<OpenVPNServer>("home", json!({"spec": {"pki": {"generation": 2}}})).await?;
        comes_back(f, "laptop", &before, "the server has another authority").await?;
        device(f, "tablet").await?;
        pod_ready(f.api(), "tablet").await?;
        let next = String::from_utf8(certificate(f, "home-ca").await?)?;
        let is_of_next = |secret: &Secret| {
            let certificate = secret.data.as_ref().and_then(|data| data.get("tls.crt"));
            certificate.is_some_and(|it| vpn_operator::pki::is_signed_by(&String::from_utf8_lossy(&it.0), &next))
        };
        f.wait_until("laptop", "a certificate of the next authority", is_of_next).await?;
        device(f, "phone").await?;
        pod_ready(f.api(), "phone").await?;
        ensure!(is_of_next(&f.api::<Secret>().get("phone").await?), "phone has a certificate of the old authority");
        let (authority, own) = (certificate(f, "home-ca").await?, certificate(f, "laptop").await?);

        let (server, pod) = (f.api::<OpenVPNServer>().get("home").await?, f.api::<Pod>().get("laptop").await?);
        f.delete::<Pod>("laptop").await?;
        f.wait_deleted(&pod).await?;
        f.delete::<OpenVPNServer>("home").await?;
        f.wait_deleted(&server).await?;
        f.wait_until_all::<Pod>("no replica", |pods| !pods.iter().any(|pod| pod.name_any().starts_with("home-")))
            .await?;
        create_server(f, spec).await?;
        // The Service has another address, so the device needs the new profile.
        let service: Service = f.wait_until("home", "a Service", |_| true).await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("a Service without an address")?;
        let is_new = |secret: &Secret| {
            let profile = secret.data.as_ref().and_then(|data| data.get("laptop.ovpn"));
            profile.is_some_and(|profile| String::from_utf8_lossy(&profile.0).contains(&format!("remote {address} ")))
        };
        f.wait_until("laptop", "a profile with the new address", is_new).await?;
        ensure_eq("authority", certificate(f, "home-ca").await?, authority)?;
        ensure_eq("certificate of the device", certificate(f, "laptop").await?, own)?;
        f.create(device_pod("laptop", "laptop", "laptop.ovpn", images::TOOLS)?).await?;
        pod_ready(f.api(), "laptop").await.map(drop)
    })
    .await
}
