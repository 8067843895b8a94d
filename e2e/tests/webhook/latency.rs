//! How long the API server takes to admit labeled Pods, compared with other requests in the same run.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::{Framework, Layout, operator::webhook, testing::figures::report};
use futures::{StreamExt, TryStreamExt, stream};
use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use serde_json::{Value, json};
use vpn_types::inject::INJECT_LABEL;

use crate::{alone, pod, wait_until_served};

const PODS: usize = 1000;
const AT_ONCE: usize = 20;

/// The median and the 99th percentile of the latencies of requests, of which [`AT_ONCE`] run at the same time.
async fn latencies(request: impl AsyncFn(usize) -> Result<()>) -> Result<[Duration; 2]> {
    let request = &request;
    let timed = stream::iter(0..PODS).map(|number| async move {
        let begun = Instant::now();
        request(number).await?;
        anyhow::Ok(begun.elapsed())
    });
    let mut all: Vec<Duration> = timed.buffer_unordered(AT_ONCE).try_collect().await?;
    all.sort();
    Ok([all[PODS / 2], all[PODS * 99 / 100 - 1]])
}

async fn get(client: &Client, path: &str) -> Result<()> {
    client.request_text(Request::get(path).body(Vec::new())?).await?;
    Ok(())
}

/// Creates a Pod with a dry run: everything but the write to etcd, which does not depend on the webhook.
async fn admit(f: &Framework, number: usize, label: Option<&str>) -> Result<()> {
    let mut pod = pod(&format!("pod-{number:04}"), false)?;
    pod.metadata.labels = label.map(|value| [(INJECT_LABEL.to_owned(), value.to_owned())].into());
    let path = format!("{}?dryRun=All", f.api::<Pod>().resource_url());
    let request = Request::post(path).header("content-type", "application/json");
    // As text: decoding it would take longer than the admission in a debug build.
    let admitted = f.client.request_text(request.body(serde_json::to_vec(&pod)?)?).await?;
    let is_injected = admitted.contains("schedulingGates");
    ensure!(is_injected == (label == Some("true")), "injected: {is_injected}, label: {label:?}");
    Ok(())
}

/// Sends the request to the webhook that the API server sends.
async fn review(f: &Framework, webhook: &Client, number: usize) -> Result<()> {
    let name = format!("pod-{number:04}");
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": format!("review-{number}"),
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "name": name,
            "namespace": f.name(),
            "operation": "CREATE",
            "userInfo": {"username": "somebody"},
            "object": pod(&name, true)?,
            "oldObject": null,
            "dryRun": true,
        },
    });
    let request = Request::post("/inject").header("content-type", "application/json");
    let answer: Value = webhook.request(request.body(review.to_string().into_bytes())?).await?;
    ensure!(answer["response"]["allowed"] == true && !answer["response"]["patch"].is_null(), "{answer}");
    Ok(())
}

#[tokio::test]
async fn admission_of_a_thousand_labeled_pods_is_measured() -> Result<()> {
    alone(Layout::Combined, 1, async |cluster, f, _| {
        wait_until_served(f).await?;
        let webhook = webhook::client(cluster).await?;
        let health = latencies(async |_| get(&f.client, "/healthz").await).await?;
        let plain = latencies(async |number| admit(f, number, None).await).await?;
        // The API server asks the webhook, which changes nothing.
        let unchanged = latencies(async |number| admit(f, number, Some("false")).await).await?;
        let labeled = latencies(async |number| admit(f, number, Some("true")).await).await?;
        let ready = latencies(async |_| get(&webhook, "/readyz").await).await?;
        let reviewed = latencies(async |number| review(f, &webhook, number).await).await?;
        let show = |[median, p99]: [Duration; 2]| format!("{:.1?}/{:.1?}", median, p99);
        let ratio = |one: [Duration; 2], other: [Duration; 2]| one[1].as_secs_f64() / other[1].as_secs_f64();
        report(&format!(
            "admission of {PODS} Pods, {AT_ONCE} at once, median/p99: /healthz of the API server {}, a Pod without the \
             label {}, one that the webhook leaves unchanged {} (p99: {:.2} of /healthz), one that it changes {} (p99: \
             {:.2} of /healthz, {:.2} of one without the label); the webhook alone: /readyz {}, a review {} (p99: {:.2} of \
             its /readyz, {:.2} of /healthz of the API server)",
            show(health),
            show(plain),
            show(unchanged),
            ratio(unchanged, health),
            show(labeled),
            ratio(labeled, health),
            ratio(labeled, plain),
            show(ready),
            show(reviewed),
            ratio(reviewed, ready),
            ratio(reviewed, health),
        ));
        Ok(())
    })
    .await
}
