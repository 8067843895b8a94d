//! A third-party controller that uses Masks.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use e2e::{
    Framework, ProcessSpec,
    host::cargo,
    testing::framework::{ensure_eq, local_cluster},
    wait::{await_condition, is_active},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use tokio::time::timeout;
use vpn_types::{Mask, MaskConsumer};

/// Builds the example and returns its path.
fn job_runner() -> Result<PathBuf> {
    // Builds e2e too, so that features match and nothing is built twice.
    let args = ["build", "--package=e2e", "--package=vpn-types", "--example=job_runner"];
    cargo::built(cargo::command().args(args))
}

fn job(name: &str, annotations: Value) -> Value {
    json!({
        "apiVersion": "example.com/v1",
        "kind": "VpnJob",
        "metadata": { "name": name },
        "spec": {
            "providers": ["uk"],
            "template": {
                "metadata": { "annotations": annotations },
                "spec": { "terminationGracePeriodSeconds": 1, "containers": [
                    { "name": "vpn", "image": "any" }, { "name": "work", "image": "any" },
                ] },
            },
        },
    })
}

/// Its permissions: its own kind, Pods, and the chart's role for users.
const RIGHTS: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: job-runner, namespace: NAMESPACE}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: job-runner}
rules:
  - {apiGroups: [example.com], resources: [vpnjobs], verbs: [get, list, watch]}
  - {apiGroups: [example.com], resources: [vpnjobs/status], verbs: [patch]}
  - {apiGroups: [''], resources: [pods], verbs: [get, list, watch, create]}
  # It watches all namespaces.
  - {apiGroups: [vpn.beebs.dev], resources: [masks, maskconsumers], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: job-runner}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: job-runner}
subjects: [{kind: ServiceAccount, name: job-runner, namespace: NAMESPACE}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: job-runner, namespace: NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: vpn-operator-edit}
subjects: [{kind: ServiceAccount, name: job-runner, namespace: NAMESPACE}]
";

struct Jobs(Api<DynamicObject>);

impl Jobs {
    async fn create(&self, name: &str, annotations: Value) -> Result<()> {
        let job = serde_json::from_value(job(name, annotations))?;
        self.0.create(&PostParams::default(), &job).await?;
        Ok(())
    }

    /// Waits until a job is in this phase, and returns its message.
    async fn wait_until(&self, name: &str, phase: &str, message: &str) -> Result<()> {
        let holds = |job: Option<&DynamicObject>| {
            let status = job.map(|job| &job.data["status"]);
            let said = |field: &str| status.and_then(|status| status[field].as_str()).unwrap_or_default();
            said("phase") == phase && said("message").contains(message)
        };
        if timeout(e2e::wait::TIMEOUT, await_condition(self.0.clone(), name, holds)).await.is_err() {
            let last = self.0.get(name).await?;
            anyhow::bail!("{name} is not {phase}, {message:?}, but {}", last.data["status"]);
        }
        Ok(())
    }
}

#[tokio::test]
async fn the_example_controller_runs_jobs_as_slots_come_free() -> Result<()> {
    let built = tokio::task::spawn_blocking(job_runner);
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    Framework::test("clients", async |f| {
        let program = built.await??;
        let crd = cargo::output(Command::new(&program).arg("crd"))?;
        let setup = cluster.state_dir().join("job-runner.yaml");
        fs::write(&setup, format!("{crd}---{}", RIGHTS.replace("NAMESPACE", f.name())))?;
        cluster.run_kubectl(&["apply", "-f", setup.to_str().context("a path that is not UTF-8")?]).await?;
        cluster
            .run_kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd/vpnjobs.example.com"])
            .await?;
        let identity = cluster.service_account(f.name(), "job-runner").await?;
        let log = cluster.state_dir().join("job-runner.log");
        f.namespace.add_log(&log);
        let spec = ProcessSpec::new("job-runner", program, log).env("KUBECONFIG", identity.kubeconfig.display());
        let runner = cluster.run(spec).await?;

        f.create_provider_with("vpn", 1, |spec| spec.tags = Some(vec!["uk".into()])).await?;
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "VpnJob"));
        let jobs = Jobs(Api::namespaced_with(f.client.clone(), f.name(), &kind));
        jobs.create("first", json!({})).await?;
        jobs.wait_until("first", "Running", "").await?;
        let consumer = f.wait_until("first", "Active", is_active).await?;
        let pod: Pod = f.api::<Pod>().get("first").await?;
        ensure_eq("owner", pod.owner_references().iter().map(|owner| owner.uid.clone()).collect(), {
            consumer.uid().into_iter().collect::<Vec<_>>()
        })?;

        // A waiting job says what it waits for, and runs when the first one has ended.
        jobs.create("second", json!({ "e2e.vpn.beebs.dev/complete-after": "1s" })).await?;
        jobs.wait_until("second", "Waiting", "place 1 in line").await?;
        let finish = json!({ "metadata": { "annotations": { "e2e.vpn.beebs.dev/complete-after": "0s" } } });
        f.patch::<Pod>("first", finish).await?;
        jobs.wait_until("first", "Succeeded", "").await?;
        jobs.wait_until("second", "Succeeded", "").await?;
        f.wait_until_all("no Mask is kept", |masks: &[Mask]| masks.is_empty()).await?;

        // A failed job reports the failure. A deleted job takes its Pod with it.
        let fails = json!({ "e2e.vpn.beebs.dev/complete-after": "0s", "e2e.vpn.beebs.dev/exit-code": "3" });
        jobs.create("third", fails).await?;
        jobs.wait_until("third", "Failed", "").await?;
        jobs.create("fourth", json!({})).await?;
        jobs.wait_until("fourth", "Running", "").await?;
        f.kubectl(&["delete", "vpnjob", "fourth"]).await?;
        f.wait_until_all("nothing is left", |all: &[MaskConsumer]| all.is_empty()).await?;
        f.wait_until_all("no Pod runs", |pods: &[Pod]| pods.iter().all(|pod| pod.name_any() != "fourth")).await?;
        ensure!(runner.pid().is_some(), "the example has ended:\n{}", runner.log_tail(20));
        f.clear(e2e::wait::TIMEOUT).await
    })
    .await
}
