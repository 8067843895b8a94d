//! The commands of the chart `stable/openvpn`, in the Pods of an OpenVPN server.

use anyhow::{Context, Result, ensure};
use e2e::{
    Framework,
    cluster::shared,
    node::images,
    operator::{self, chart},
    testing::framework::ensure_eq,
    vpn::{VpnService, device_pod, node_of, pod_ready},
};
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::api::Patch;
use serde_json::json;
use vpn_types::OpenVPNServer;

use crate::{
    servers::{replicas, sessions, until},
    verification,
    vpn::seen_address,
};

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
        f.create(device_pod("device", "profile", "kubeVPN.ovpn", images::TOOLS)?).await?;
        pod_ready(f.api(), "device").await?;
        let seen = seen_address(f, vpn, "device").await?;
        ensure!(
            replicas.iter().any(|(_, address)| *address == seen),
            "its exit address is {seen}, not one of {replicas:?}"
        );

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
        until("the session ends", async || {
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
        ensure!(seen_address(f, vpn, "device").await.is_err(), "a revoked device still reaches the cluster");
        let again = f.kubectl(&[&["exec", one, "--"], &create[..]].concat()).await?;
        ensure!(again.contains("OpenVPNClient kubevpn-2 "), "{again}");
        Ok(())
    })
    .await
}
