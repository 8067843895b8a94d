//! The node runs Pods like any other node.

use anyhow::{Result, ensure};
use e2e::{
    node::{ContainerNode, images},
    vpn,
};
use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::json;

use crate::test;

/// Returns a Pod with one container that has the usual tools.
pub fn tools(name: &str, script: &str) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "main", "image": images::TOOLS, "command": ["sh", "-c", script] }],
        },
    }))?)
}

async fn import_tools(node: &ContainerNode) -> Result<()> {
    node.import(&images::tools()?).await
}

pub async fn a_pod_runs() -> Result<()> {
    test("runs", async |cluster, f| {
        import_tools(vpn::node_of(cluster)?).await?;
        f.run_pod(tools("runs", "echo hello; exec sleep 1000")?).await?;
        let logs = f.kubectl(&["logs", "runs"]).await?;
        ensure!(logs == "hello\n", "{logs}");
        let said = f.kubectl(&["exec", "runs", "--", "curl", "--version"]).await?;
        ensure!(said.starts_with("curl "), "{said}");
        f.create(tools("fails", "echo why > /dev/termination-log; exit 3")?).await?;
        f.wait_until("fails", "exit code and message", |pod: &Pod| {
            let terminated = pod
                .status
                .as_ref()
                .and_then(|status| status.container_statuses.as_ref()?.first()?.state.as_ref()?.terminated.clone());
            terminated.is_some_and(|end| end.exit_code == 3 && end.message.as_deref() == Some("why\n"))
        })
        .await?;
        Ok(())
    })
    .await
}

pub async fn a_service_leads_to_its_pod() -> Result<()> {
    test("service", async |cluster, f| {
        let node = vpn::node_of(cluster)?;
        import_tools(node).await?;
        node.import(&images::address()?).await?;
        let server = json!({
            "metadata": { "name": "server", "labels": { "app": "server" } },
            "spec": { "containers": [{ "name": "main", "image": images::ADDRESS }] },
        });
        f.run_pod(serde_json::from_value(server)?).await?;
        let service = json!({
            "metadata": { "name": "server" },
            "spec": { "selector": { "app": "server" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
        });
        let service: Service = f.create(serde_json::from_value(service)?).await?;
        let url = format!("http://{}/", service.spec.and_then(|spec| spec.cluster_ip).unwrap_or_default());
        // kube-proxy and the server may need some time.
        let script = format!("until curl --silent --max-time 2 {url}; do sleep 0.1; done; exec sleep 1000");
        let pod = f.run_pod(tools("client", &script)?).await?;
        let own = pod.status.and_then(|status| status.pod_ip).unwrap_or_default();
        let pods = f.api();
        let log = node_log(&pods, "client", &own).await?;
        ensure!(log.trim() == own, "{log}");
        Ok(())
    })
    .await
}

async fn node_log(pods: &kube::Api<Pod>, pod: &str, words: &str) -> Result<String> {
    e2e::pods::logs::wait_for_log(pods, pod, "main", &[words], e2e::wait::TIMEOUT).await
}

/// Neither the Internet nor the machine that runs the tests is reachable.
pub async fn no_way_leads_outside() -> Result<()> {
    test("outside", async |cluster, f| {
        let node = vpn::node_of(cluster)?;
        import_tools(node).await?;
        let machine = node.isolation().machine;
        // 192.0.2.0/24 is reserved for documentation. Nobody answers there, but the expected error is that there is no
        // route.
        let script = format!(
            "for host in 192.0.2.1 {machine}; do curl --silent --show-error --max-time 5 http://$host/ 2>&1; done; \
             echo done; exec sleep 1000"
        );
        f.run_pod(tools("client", &script)?).await?;
        let log = node_log(&f.api(), "client", "done").await?;
        let refused = log.lines().filter(|line| line.contains("curl: (7)")).count();
        ensure!(refused == 2, "{log}");
        Ok(())
    })
    .await
}
