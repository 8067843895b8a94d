//! The control plane is a real one, and kwok's nodes behave as the operator's tests assume.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use e2e::{Cluster, Filter, Namespace, audit::Access, cluster::shared, control_plane::kwok, wait::await_condition};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{ConfigMap, Pod},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    runtime::conditions::is_pod_running,
};
use serde_json::json;
use tokio::time::timeout;

/// Longer than any test here takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

async fn ours() -> Result<Option<&'static Cluster>> {
    let cluster = shared::cluster().await?;
    Ok(Some(cluster).filter(|cluster| cluster.is_local()))
}

fn pod(name: &str, spec: serde_json::Value) -> Result<Pod> {
    Ok(serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec }))?)
}

fn config_map(name: &str) -> ConfigMap {
    ConfigMap { metadata: ObjectMeta { name: Some(name.into()), ..Default::default() }, ..Default::default() }
}

/// Returns how many containers, including native sidecars, run, and how many are terminated.
fn containers(pod: &Pod) -> (usize, usize) {
    let status = pod.status.clone().unwrap_or_default();
    let all = [status.container_statuses, status.init_container_statuses].into_iter().flatten().flatten();
    let states: Vec<_> = all.filter_map(|container| container.state).collect();
    (
        states.iter().filter(|state| state.running.is_some()).count(),
        states.iter().filter(|state| state.terminated.is_some()).count(),
    )
}

#[tokio::test]
async fn the_server_has_the_version_of_its_modules() -> Result<()> {
    let Some(cluster) = ours().await? else {
        return Ok(());
    };
    let versions: serde_json::Value = serde_json::from_str(&cluster.run_kubectl(&["version", "--output=json"]).await?)?;
    for side in ["serverVersion", "clientVersion"] {
        ensure!(versions[side]["gitVersion"] == "v1.36.3", "{side}: {versions}");
    }
    Ok(())
}

#[tokio::test]
async fn a_failing_kubectl_says_why() -> Result<()> {
    let cluster = shared::cluster().await?;
    let error = cluster.run_kubectl(&["get", "nonsense"]).await.err().context("kubectl succeeded")?;
    ensure!(format!("{error:#}").contains("doesn't have a resource type"), "{error:#}");
    Ok(())
}

#[tokio::test]
async fn a_pod_runs_and_its_deletion_takes_the_grace_period() -> Result<()> {
    if ours().await?.is_none() {
        return Ok(());
    }
    Namespace::test("grace", async |namespace| {
        let pods: Api<Pod> = namespace.api()?;
        let spec = json!({
            "terminationGracePeriodSeconds": 3,
            "initContainers": [
                { "name": "init", "image": "any" },
                { "name": "sidecar", "image": "any", "restartPolicy": "Always" },
            ],
            "containers": [{ "name": "main", "image": "any" }],
        });
        pods.create(&PostParams::default(), &pod("slow", spec)?).await?;
        timeout(TIMEOUT, await_condition(pods.clone(), "slow", is_pod_running())).await??;
        let running = pods.get("slow").await?;
        ensure!(containers(&running) == (2, 1), "main and sidecar run, init is terminated: {running:?}");

        let version = running.resource_version().context("no resourceVersion")?;
        let params = WatchParams::default().fields("metadata.name=slow");
        let mut events = pods.watch(&params, &version).await?.boxed();
        let before = Timestamp::now();
        pods.delete("slow", &DeleteParams::default()).await?;

        // The states, in the order in which they were seen.
        let mut seen = Vec::new();
        let end = loop {
            match timeout(TIMEOUT, events.try_next()).await??.context("the watch ended")? {
                WatchEvent::Modified(pod) => seen.push(containers(&pod)),
                WatchEvent::Deleted(pod) => break pod,
                other => bail!("unexpected: {other:?}"),
            }
        };
        let gone = Timestamp::now();
        seen.dedup();
        ensure!(seen == [(2, 1), (0, 3)], "running, then terminated, then gone: {seen:?}");

        let deadline = end.metadata.deletion_timestamp.context("no deletionTimestamp")?.0;
        ensure!(gone >= deadline, "gone at {gone}, before the end of its grace period {deadline}");
        // The deadline is in whole seconds, rounded down.
        ensure!(deadline.duration_since(before).as_secs_f64() > 2.0, "asked at {before}, granted until {deadline}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_terminated_pod_waits_for_its_finalizer() -> Result<()> {
    if ours().await?.is_none() {
        return Ok(());
    }
    Namespace::test("finalizer", async |namespace| {
        let pods: Api<Pod> = namespace.api()?;
        let spec = json!({ "terminationGracePeriodSeconds": 1, "containers": [{ "name": "main", "image": "any" }] });
        let mut held = pod("held", spec)?;
        held.metadata.finalizers = Some(vec!["e2e.vpn.beebs.dev/hold".into()]);
        pods.create(&PostParams::default(), &held).await?;
        timeout(TIMEOUT, await_condition(pods.clone(), "held", is_pod_running())).await??;
        let uid = pods.delete("held", &DeleteParams::default()).await?.left().and_then(|pod| pod.uid());
        let terminated = |pod: Option<&Pod>| pod.is_some_and(|pod| containers(pod) == (0, 1));
        timeout(TIMEOUT, await_condition(pods.clone(), "held", terminated)).await??;
        let patch = json!({ "metadata": { "finalizers": null } });
        pods.patch("held", &PatchParams::default(), &Patch::Merge(&patch)).await?;
        let uid = uid.context("the Pod was not deleted gracefully")?;
        let gone = kube::runtime::conditions::is_deleted(&uid);
        timeout(TIMEOUT, await_condition(pods, "held", gone)).await??;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn jobs_complete_and_fail_as_annotated() -> Result<()> {
    if ours().await?.is_none() {
        return Ok(());
    }
    Namespace::test("jobs", async |namespace| {
        let jobs: Api<Job> = namespace.api()?;
        for (name, exit_code) in [("good", "0"), ("bad", "3")] {
            let annotations = json!({ kwok::COMPLETE_AFTER: "200ms", kwok::EXIT_CODE: exit_code, kwok::TERMINATION_MESSAGE: "said: \"so\"" });
            let job: Job = serde_json::from_value(json!({
                "metadata": { "name": name },
                "spec": { "backoffLimit": 0, "template": {
                    "metadata": { "annotations": annotations },
                    "spec": { "restartPolicy": "Never", "containers": [{ "name": "main", "image": "any" }] },
                } },
            }))?;
            jobs.create(&PostParams::default(), &job).await?;
        }
        let done = |wanted: &'static str| {
            move |job: Option<&Job>| {
                let conditions = job.and_then(|job| job.status.as_ref()?.conditions.as_ref());
                conditions.into_iter().flatten().any(|condition| condition.type_ == wanted && condition.status == "True")
            }
        };
        timeout(TIMEOUT, await_condition(jobs.clone(), "good", done("Complete"))).await??;
        timeout(TIMEOUT, await_condition(jobs, "bad", done("Failed"))).await??;
        let message = namespace
            .kubectl(&["get", "pods", "-l", "job-name=bad", "-o", "jsonpath={..terminated.exitCode} {..terminated.message}"])
            .await?;
        ensure!(message == "3 said: \"so\"", "{message}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_garbage_collector_follows_owners() -> Result<()> {
    Namespace::test("owners", async |namespace| {
        let objects: Api<ConfigMap> = namespace.api()?;
        let owner = objects.create(&PostParams::default(), &config_map("owner")).await?;
        let mut dependent = config_map("dependent");
        let reference: OwnerReference = owner.owner_ref(&()).context("the owner has no uid")?;
        dependent.metadata.owner_references = Some(vec![reference]);
        objects.create(&PostParams::default(), &dependent).await?;
        objects.delete("owner", &DeleteParams::default()).await?;
        let gone = |object: Option<&ConfigMap>| object.is_none();
        timeout(TIMEOUT, await_condition(objects, "dependent", gone)).await??;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_audit_log_counts_every_request_of_a_user() -> Result<()> {
    let Some(cluster) = ours().await? else {
        return Ok(());
    };
    let audit = cluster.audit().context("no audit log")?;
    Namespace::test("audit", async |namespace| {
        let counted = cluster.user("counted", Some("system:masters")).await?;
        let other = cluster.user("other", Some("system:masters")).await?;
        let objects: Api<ConfigMap> = Api::namespaced(counted.client()?, namespace.name());
        let others: Api<ConfigMap> = Api::namespaced(other.client()?, namespace.name());
        objects.create(&PostParams::default(), &config_map("before")).await?;

        let mark = audit.mark().await?;
        let creates = (0..50).map(|index| {
            let (objects, others) = (objects.clone(), others.clone());
            async move {
                objects.create(&PostParams::default(), &config_map(&format!("mine-{index}"))).await?;
                others.create(&PostParams::default(), &config_map(&format!("theirs-{index}"))).await
            }
        });
        futures::future::try_join_all(creates).await?;
        // Rejected requests count too.
        ensure!(objects.create(&PostParams::default(), &config_map("mine-0")).await.is_err(), "created twice");
        ensure!(objects.get_opt("missing").await?.is_none(), "found an object that does not exist");
        let watch = objects.watch(&WatchParams::default(), "0").await?;
        let requests = audit.since(mark).await?;
        drop(watch);

        let user = Filter::default().user("counted");
        let mut codes = BTreeMap::<_, usize>::new();
        let writes = user.clone().access(Access::Write).resource("configmaps");
        for request in requests.matching(&writes) {
            *codes.entry((request.verb.as_str(), request.code)).or_default() += 1;
        }
        ensure!(codes == BTreeMap::from([(("create", 201), 50), (("create", 409), 1)]), "{codes:?}");
        for (access, count) in [(Access::Write, 51), (Access::Read, 1), (Access::Watch, 1)] {
            let filter = user.clone().access(access).namespace(namespace.name());
            ensure!(requests.count(&filter) == count, "{access:?}: {:?}", requests.summary(&user));
        }
        let one = Filter::default().name("mine-7").subresource("");
        ensure!(requests.count(&one) == 1, "{:?}", requests.summary(&one));
        // No requests from now on.
        let mark = audit.mark().await?;
        ensure!(audit.since(mark).await?.count(&user) == 0, "unexpected requests");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn users_and_service_accounts_have_their_own_rights() -> Result<()> {
    let Some(cluster) = ours().await? else {
        return Ok(());
    };
    Namespace::test("rights", async |namespace| {
        let name = namespace.name();
        cluster.run_kubectl(&["-n", name, "create", "serviceaccount", "reader"]).await?;
        cluster
            .run_kubectl(&[
                "-n",
                name,
                "create",
                "rolebinding",
                "reader",
                "--clusterrole=view",
                &format!("--serviceaccount={name}:reader"),
            ])
            .await?;
        let account = cluster.service_account(name, "reader").await?;
        ensure!(account.user == Some(format!("system:serviceaccount:{name}:reader")), "{account:?}");
        let nobody = cluster.user("nobody", None).await?;
        let kubectl = cluster.kubectl();
        let can = async |identity, verb| {
            let answer = kubectl.command(identity).args(["-n", name, "auth", "can-i", verb, "pods"]).output().await?;
            anyhow::Ok(String::from_utf8(answer.stdout)?.trim() == "yes")
        };
        ensure!(can(&account, "list").await? && !can(&account, "delete").await?, "the permissions are not list only");
        ensure!(!can(&nobody, "list").await?, "an unknown user has permissions");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_dump_shows_the_state_but_no_secret_values() -> Result<()> {
    Namespace::test("dump", async |namespace| {
        let pods: Api<Pod> = namespace.api()?;
        let spec = json!({ "containers": [{ "name": "main", "image": "some-image" }] });
        pods.create(&PostParams::default(), &pod("seen", spec)?).await?;
        namespace.kubectl(&["create", "secret", "generic", "credentials", "--from-literal=password=hush"]).await?;
        let log = shared::cluster().await?.state_dir().join("dumped.log");
        std::fs::write(&log, "the last words")?;
        namespace.add_log(log);
        let dump = namespace.dump();
        for part in ["some-image", "credentials", "the last words", namespace.name()] {
            ensure!(dump.contains(part), "no {part} in {dump}");
        }
        // "hush" in base64.
        ensure!(!dump.contains("aHVzaA"), "a secret value in {dump}");
        Ok(())
    })
    .await
}
