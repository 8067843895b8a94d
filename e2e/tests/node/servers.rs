//! OpenVPN servers with real clients: who reaches what, who is cut off, and what a replica does when it ends.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    Framework,
    cluster::shared,
    node::images,
    operator::{self, chart},
    testing::framework::ensure_eq,
    vpn::{VpnService, node_of, pod_ready},
    wait::is_ready,
};
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::{
    ResourceExt,
    api::{ListParams, Patch},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use vpn_types::{MaskProvider, OpenVPNClient, OpenVPNServer};

use crate::{verification, vpn::seen_address};

/// Runs a test with an OpenVPN server.
async fn with_server(
    name: &str,
    spec: Value,
    body: impl AsyncFnOnce(&Framework, &VpnService) -> Result<()>,
) -> Result<()> {
    let cluster = shared::cluster_with_node().await?;
    let vpn = VpnService::shared().await?;
    node_of(cluster)?.import(&images::openvpn(&operator::executable(cluster).await?)?).await?;
    let operator = verification::operator(vpn).await?;
    Framework::run(cluster, operator, name, async |f| {
        // Forwarding is off in new Pods of this node.
        let mut server = json!({"metadata": {"name": "home"}, "spec": spec});
        server["spec"]["ipForward"] = json!("Sysctl");
        f.create::<OpenVPNServer>(serde_json::from_value(server)?).await?;
        f.wait_for_reason::<OpenVPNServer>("home", "Serving").await?;
        body(f, vpn).await
    })
    .await
}

/// Creates a client, and a Pod that connects with its profile.
async fn device(f: &Framework, name: &str) -> Result<()> {
    let client = json!({"metadata": {"name": name}, "spec": {"server": "home"}});
    f.create::<OpenVPNClient>(serde_json::from_value(client)?).await?;
    f.wait_for_reason::<OpenVPNClient>(name, "Issued").await?;
    device_with(f, name, name, name).await
}

/// Creates a Pod that connects with the profile of a client in a Secret.
async fn device_with(f: &Framework, name: &str, secret: &str, client: &str) -> Result<()> {
    let script = format!(
        "mkdir -p /dev/net; [ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
         exec openvpn --config /profile/{client}.ovpn --connect-retry 1 1 --management /tmp/management unix"
    );
    let connected = "ip address show dev tun0 | grep -q inet";
    let pod = json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 3,
            "enableServiceLinks": false,
            "containers": [
                {
                    "name": "openvpn", "image": images::VPN_SERVER, "command": ["sh", "-c", script],
                    "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
                    "startupProbe": {"exec": {"command": ["sh", "-c", connected]}, "periodSeconds": 1, "failureThreshold": 60},
                    "volumeMounts": [{"name": "profile", "mountPath": "/profile"}],
                },
                {"name": "main", "image": images::TOOLS, "command": ["sleep", "1000000"]},
            ],
            "volumes": [{"name": "profile", "secret": {"secretName": secret}}],
        },
    });
    f.create::<Pod>(serde_json::from_value(pod)?).await.map(drop)
}

/// The replicas of the server: names and addresses.
async fn replicas(f: &Framework) -> Result<Vec<(String, String)>> {
    let pods = f.api::<Pod>().list(&ListParams::default().labels("app=openvpn")).await?;
    let address = |pod: &Pod| Some((pod.name_any(), pod.status.as_ref()?.pod_ip.clone()?));
    Ok(pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).filter_map(address).collect())
}

/// The names of the clients that a replica shows.
async fn sessions(f: &Framework, replica: &str) -> Result<Vec<String>> {
    let path = format!("/api/v1/namespaces/{}/pods/{replica}:9176/proxy/sessions", f.name());
    let sessions: Value = serde_json::from_str(&f.kubectl(&["get", "--raw", &path]).await?)?;
    let all = sessions.as_array().or_else(|| sessions["sessions"].as_array()).cloned().context("no sessions")?;
    Ok(all.iter().filter_map(|session| session["name"].as_str().map(str::to_owned)).collect())
}

/// Waits until a condition on the replicas holds.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "not so after 90 s: {what}");
        sleep(Duration::from_millis(200)).await;
    }
}

pub async fn a_device_reaches_the_cluster_through_its_server() -> Result<()> {
    with_server("device", json!({"replicas": 2}), async |f, vpn| {
        let names = ["one", "two", "three", "four"];
        for name in names {
            device(f, name).await?;
        }
        for name in names {
            pod_ready(f.api(), name).await?;
        }
        let replicas = replicas(f).await?;
        for name in names {
            let seen = seen_address(f, vpn, name).await?;
            ensure!(replicas.iter().any(|(_, address)| *address == seen), "{name} is seen at {seen}, not {replicas:?}");
        }
        let mut all = Vec::new();
        for (replica, _) in &replicas {
            all.extend(sessions(f, replica).await?);
        }
        all.sort();
        ensure_eq("sessions", all, vec!["four".to_owned(), "one".into(), "three".into(), "two".into()])?;
        let path = format!("/api/v1/namespaces/{}/pods/{}:9176/proxy/metrics", f.name(), replicas[0].0);
        let metrics = f.kubectl(&["get", "--raw", &path]).await?;
        for metric in ["openvpn_up", "openvpn_server_connected_clients", "openvpn_openvpn_server_connected_clients"] {
            ensure!(metrics.contains(&format!("\n{metric}{{")), "{metric} is not in\n{metrics}");
        }
        Ok(())
    })
    .await
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
        until("the session is cut", async || {
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
        // It tries again, and is refused.
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
        // The fuller one ends.
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
        ensure!(secret.metadata.owner_references.is_none(), "the CA goes with the server");
        Ok(())
    })
    .await
}

pub async fn the_commands_of_the_old_chart_work_in_its_pods() -> Result<()> {
    let cluster = shared::cluster_with_node().await?;
    let vpn = VpnService::shared().await?;
    node_of(cluster)?.import(&images::openvpn(&operator::executable(cluster).await?)?).await?;
    let operator = verification::operator(vpn).await?;
    Framework::run(cluster, operator, "enrollment", async |f| {
        let values = format!("--values={}", chart::OPENVPN_VALUES);
        // Forwarding is off in new Pods of this node.
        let install = ["install", "openvpn", chart::OPENVPN_DIR, "--namespace", f.name(), &values];
        cluster.run_helm(&[&install[..], &["--set=spec.ipForward=Sysctl"]].concat()).await?;
        let service = f.wait_until("openvpn", "a Service", |_: &Service| true).await?;
        let address = json!({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}});
        f.api::<Service>().patch_status("openvpn", &Default::default(), &Patch::Merge(address)).await?;
        f.wait_until("openvpn", "two replicas", |server: &OpenVPNServer| {
            server.status.as_ref().is_some_and(|status| status.ready_replicas == Some(2))
        })
        .await?;
        let replicas = replicas(f).await?;
        let (one, two) = (&*replicas[0].0, &*replicas[1].0);

        // The README of the old chart prints all fields of the ingress, and `ipMode` is one of them now.
        let template = "{{range $k, $v := (index .status.loadBalancer.ingress 0)}}{{$v}}{{end}}";
        let printed = f.kubectl(&["get", "service", "openvpn", "-o", &format!("go-template={template}")]).await?;
        ensure_eq("printed address", printed.as_str(), "203.0.113.7VIP")?;
        // There is no such load balancer, so the device connects to the Service.
        let ip = service.spec.and_then(|spec| spec.cluster_ip).context("no address")?;
        let create = ["/etc/openvpn/setup/newClientCert.sh", "kubeVPN", &printed.replace("203.0.113.7", &ip)];
        f.kubectl(&[&["exec", one, "--"], &create[..]].concat()).await?;
        let profile = f.kubectl(&["exec", one, "--", "cat", "/etc/openvpn/certs/pki/kubeVPN.ovpn"]).await?;
        let secret = json!({"metadata": {"name": "profile"}, "stringData": {"kubeVPN.ovpn": profile}});
        f.create::<Secret>(serde_json::from_value(secret)?).await?;
        device_with(f, "device", "profile", "kubeVPN").await?;
        pod_ready(f.api(), "device").await?;
        let seen = seen_address(f, vpn, "device").await?;
        ensure!(replicas.iter().any(|(_, address)| *address == seen), "it is seen at {seen}, not {replicas:?}");

        // OpenVPN runs as nobody, and the exporter has no token.
        let files = ["/etc/openvpn/certs/pki", "/etc/openvpn/certs/pki/kubeVPN.ovpn"];
        let modes = f.kubectl(&[&["exec", one, "--", "stat", "-c", "%a %u"], &files[..]].concat()).await?;
        ensure_eq("modes", modes.as_str(), "700 0\n600 0\n")?;
        let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
        let modes = f.kubectl(&["exec", one, "--", "stat", "-L", "-c", "%a %u", token]).await?;
        ensure_eq("mode of the token", modes.trim(), "400 0")?;
        ensure!(f.kubectl(&["exec", one, "-c", "exporter", "--", "cat", token]).await.is_err(), "a second token");
        for replica in [one, two] {
            let logs = f.kubectl(&["logs", replica, "--all-containers"]).await?;
            ensure!(!logs.contains("PRIVATE KEY"), "a key is in the log of {replica}");
        }

        f.kubectl(&["exec", two, "--", "/etc/openvpn/setup/revokeClientCert.sh", "kubeVPN"]).await?;
        until("the session is cut", async || {
            let all = [sessions(f, one).await?, sessions(f, two).await?].concat();
            Ok((!all.contains(&"kubeVPN".to_owned())).then_some(()))
        })
        .await?;
        until("it is refused", async || {
            let logs = async |replica| f.kubectl(&["logs", replica, "--container=openvpn"]).await;
            let is_refused = logs(one).await?.contains("is revoked") || logs(two).await?.contains("is revoked");
            Ok(is_refused.then_some(()))
        })
        .await?;
        ensure!(seen_address(f, vpn, "device").await.is_err(), "a revoked device reaches the cluster");
        let again = f.kubectl(&[&["exec", one, "--"], &create[..]].concat()).await?;
        ensure!(again.contains("OpenVPNClient kubevpn-2 "), "{again}");
        Ok(())
    })
    .await
}
