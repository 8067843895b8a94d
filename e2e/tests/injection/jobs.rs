//! Jobs and CronJobs: their Pods take turns on the slots, and nothing is left when they have ended.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e::{
    Framework, History,
    control_plane::kwok::COMPLETE_AFTER,
    history::{Change, Object},
    testing::framework::ensure_eq,
    wait::TIMEOUT,
};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::ResourceExt;
use serde_json::{Value, json};
use vpn_types::MaskReservation;

use crate::{
    manifests::{apply, is_gated, message, phase, runs, template},
    rollouts::most_at_once,
    test,
};

/// The template of a Pod that ends by itself.
fn ending(app: &str, after: Option<&str>) -> Value {
    let mut template = template(app, &after.map_or(json!({}), |after| json!({COMPLETE_AFTER: after})));
    template["spec"]["restartPolicy"] = json!("Never");
    template
}

/// Waits until the namespace has no Mask, no Pod, and nothing that the operator creates for them.
async fn nothing_left(f: &Framework) -> Result<()> {
    f.wait_until_all::<Pod>("no Pod", <[_]>::is_empty).await?;
    f.wait_for_no_masks(TIMEOUT).await
}

/// The names of the Pods that have succeeded.
fn succeeded(changes: &[Change]) -> BTreeSet<String> {
    let pods = changes.iter().filter_map(|change| match &change.object {
        Object::Pod(pod) => Some(pod),
        _ => None,
    });
    pods.filter(|pod| phase(pod) == Some("Succeeded")).map(|pod| pod.name_any()).collect()
}

/// Each Job is deleted, with its Pods, at the moment when the last of them has ended.
#[tokio::test]
async fn jobs_that_are_deleted_as_soon_as_they_end_leave_nothing() -> Result<()> {
    test("ttl", async |f| {
        let mut history = History::start(&f.client, Some(f.name())).await?;
        f.create_provider("vpn", 2).await?;
        let job = |name: &str| {
            json!({
                "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
                "spec": {
                    "completions": 3, "parallelism": 3, "ttlSecondsAfterFinished": 0,
                    "template": ending(name, Some("100ms")),
                },
            })
        };
        apply(f, &[job("one"), job("two")]).await?;
        let jobs = f.wait_until_all::<Job>("two Jobs, or those that still exist", |_| true).await?;
        for job in &jobs {
            f.wait_deleted(job).await?;
        }
        f.wait_until_all::<Job>("no Job", <[_]>::is_empty).await?;
        // If the operator missed the end of a Pod, it would hold the slot for longer than this wait.
        nothing_left(f).await?;
        let changes = history.changes().await?;
        let ended = succeeded(changes);
        ensure!(ended.len() == 6, "not six Pods succeeded, but {ended:?}");
        let most = most_at_once(changes);
        ensure!(most <= 2, "{most} Pods ran at the same time");
        ensure_eq("MaskConsumers", history.consumers(), 6)?;
        history.check_slot_limits().await.map(drop)
    })
    .await
}

/// Tells the containers of a Pod to end.
async fn end(f: &Framework, pod: &str) -> Result<()> {
    f.patch::<Pod>(pod, json!({"metadata": {"annotations": {COMPLETE_AFTER: "1ms"}}})).await.map(drop)
}

async fn pod_of(f: &Framework, job: &str, what: &str, holds: fn(&Pod) -> bool) -> Result<Pod> {
    let is_it = |pod: &&Pod| pod.labels().get("job-name").is_some_and(|name| name == job) && holds(pod);
    let what = format!("the Pod of Job {job}: {what}");
    let pods = f.wait_until_all::<Pod>(&what, |pods| pods.iter().any(|pod| is_it(&pod))).await?;
    pods.iter().find(is_it).cloned().context("no Pod")
}

async fn complete(f: &Framework, job: &str) -> Result<()> {
    let is_complete = |job: &Job| job.status.as_ref().is_some_and(|status| status.succeeded == Some(1));
    f.wait_until::<Job>(job, "complete", is_complete).await.map(drop)
}

#[tokio::test]
async fn two_runs_of_a_cron_job_take_turns_on_one_slot() -> Result<()> {
    test("cron", async |f| {
        let mut history = History::start(&f.client, Some(f.name())).await?;
        f.create_provider("vpn", 1).await?;
        let cron_job = json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "report"},
            "spec": {
                // The test starts each run.
                "schedule": "0 0 29 2 *", "concurrencyPolicy": "Allow",
                "jobTemplate": {"spec": {"ttlSecondsAfterFinished": 0, "template": ending("report", None)}},
            },
        });
        apply(f, &[cron_job]).await?;
        for job in ["first", "second"] {
            f.kubectl(&["create", "job", job, "--from=cronjob/report"]).await?;
            let begun = |pod: &Pod| runs(pod) || is_gated(pod) && !message(pod).is_empty();
            pod_of(f, job, "it runs, or waits", begun).await?;
        }
        let first = pod_of(f, "first", "it runs", runs).await?;
        let waits = |pod: &Pod| is_gated(pod) && message(pod).contains("place 1 in line");
        let second = pod_of(f, "second", "its place", waits).await?;
        f.wait_for_event::<Pod>(&second.name_any(), "NoFreeSlot", &["All slots of", "place 1 in line"]).await?;
        let job = f.api::<Job>().get("first").await?;
        end(f, &first.name_any()).await?;
        f.wait_deleted(&job).await?;
        pod_of(f, "second", "it runs", runs).await?;
        let job = f.api::<Job>().get("second").await?;
        end(f, &second.name_any()).await?;
        f.wait_deleted(&job).await?;
        nothing_left(f).await?;
        let changes = history.changes().await?;
        ensure_eq("succeeded", succeeded(changes), [first.name_any(), second.name_any()].into())?;
        ensure_eq("most Pods at once", most_at_once(changes), 1)?;
        history.check_slot_limits().await.map(drop)
    })
    .await
}

/// When a Pod fails, the next waiting Pod gets its slot, and its replacement waits at the end of the queue.
#[tokio::test]
async fn a_pod_that_is_tried_again_waits_in_line() -> Result<()> {
    test("backoff", async |f| {
        f.create_provider("vpn", 1).await?;
        let job = |name: &str| {
            json!({
                "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
                "spec": {"backoffLimit": 3, "template": ending(name, None)},
            })
        };
        apply(f, &[job("fails")]).await?;
        let failing = pod_of(f, "fails", "it runs", runs).await?.name_any();
        apply(f, &[job("waits")]).await?;
        pod_of(f, "waits", "it waits", |pod| is_gated(pod) && message(pod).contains("place 1")).await?;
        let failure = json!({"metadata": {"annotations": {
            e2e::control_plane::kwok::EXIT_CODE: "1", COMPLETE_AFTER: "1ms",
        }}});
        f.patch::<Pod>(&failing, failure).await?;
        let next = pod_of(f, "waits", "it runs", runs).await?.name_any();
        // Behind the running one.
        let again = pod_of(f, "fails", "it waits", |pod| is_gated(pod) && message(pod).contains("place 1")).await?;
        end(f, &next).await?;
        complete(f, "waits").await?;
        let again = again.name_any();
        f.wait_until::<Pod>(&again, "it runs", runs).await?;
        end(f, &again).await?;
        complete(f, "fails").await?;
        f.wait_until_all::<MaskReservation>("no slot taken", <[_]>::is_empty).await.map(drop)
    })
    .await
}
