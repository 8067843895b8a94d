//! Recovery of the webhook and its certificate, and the number of requests for labeled Pods. Each test has its own
//! cluster, because a webhook serves all namespaces.

mod cert_manager;
mod latency;
mod mesh;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, ControlPlaneOptions, Filter, Framework, Layout, Operator, OperatorOptions,
    audit::{Access, Mark},
    testing::{figures::report, framework::local_cluster},
    wait::{TIMEOUT, await_condition, is_active, wait_until_all},
};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        apps::v1::ReplicaSet,
        core::v1::{Pod, Secret},
    },
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use vpn_types::{Mask, MaskConsumer, MaskProviderReleaseSpec};

const NAMESPACE: &str = "vpn-operator";
const NAME: &str = "vpn-operator-webhook";

/// Runs a test with an operator and this number of webhooks in a cluster of their own.
async fn alone(
    layout: Layout,
    webhooks: usize,
    body: impl AsyncFnOnce(&Cluster, &Framework, &mut Operator) -> Result<()>,
) -> Result<()> {
    if local_cluster().await?.is_none() {
        return Ok(());
    }
    let cluster = Cluster::connect(ControlPlaneOptions::default()).await?;
    let mut operator = Operator::start_with(&cluster, OperatorOptions::new(layout).injection(webhooks)).await?;
    let f = Framework::new(&cluster, "webhook").await?;
    f.add_logs(&operator);
    f.dump_on_error(body(&cluster, &f, &mut operator)).await?;
    operator.stop().await?;
    cluster.stop().await
}

fn pod(name: &str, is_labeled: bool) -> Result<Pod> {
    let labels = if is_labeled { json!({"vpn.beebs.dev/inject": "true"}) } else { json!({}) };
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "app", "image": "app"}]},
    }))?)
}

fn runs(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

/// Waits until the API server reaches the webhook: a change of the configuration takes effect within a second.
async fn wait_until_served(f: &Framework) -> Result<()> {
    create_when_served(f, &pod("probe", true)?, true).await
}

/// Creates a Pod when the API server reaches the webhook.
async fn create_when_served(f: &Framework, pod: &Pod, dry_run: bool) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let params = kube::api::PostParams { dry_run, ..Default::default() };
        match f.api::<Pod>().create(&params, pod).await {
            Ok(_) => return Ok(()),
            Err(error) => ensure!(Instant::now() < deadline, "the webhook does not answer: {error}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn without_the_webhook_labeled_pods_are_refused_and_others_start() -> Result<()> {
    alone(Layout::Combined, 1, async |cluster, f, operator| {
        f.create_provider("vpn", 1).await?;
        operator.kill_part("webhook").await?;
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "scraper"},
            "spec": {
                "selector": {"matchLabels": {"app": "scraper"}},
                "template": {
                    "metadata": {"labels": {"app": "scraper", "vpn.beebs.dev/inject": "true"}},
                    "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "app", "image": "app"}]},
                },
            },
        });
        f.create::<k8s_openapi::api::apps::v1::Deployment>(serde_json::from_value(deployment)?).await?;
        let sets = f.wait_until_all::<ReplicaSet>("a ReplicaSet", |sets| !sets.is_empty()).await?;
        let words = ["failed calling webhook", "inject.vpn.beebs.dev"];
        f.wait_for_event::<ReplicaSet>(&sets[0].name_any(), "FailedCreate", &words).await?;
        f.run_pod(pod("other", false)?).await?;
        operator.restart(cluster).await?;
        wait_until_served(f).await?;
        f.kubectl(&["rollout", "restart", "deployment/scraper"]).await?;
        f.kubectl(&["rollout", "status", "deployment/scraper", "--timeout=60s"]).await.map(drop)
    })
    .await
}

/// A Pod that the webhook has not seen would start without its VPN.
#[tokio::test]
async fn a_labeled_pod_that_the_webhook_does_not_serve_is_refused() -> Result<()> {
    alone(Layout::Combined, 1, async |cluster, f, _| {
        wait_until_served(f).await?;
        f.create(pod("plain", false)?).await?;
        // There is nothing to watch for when a policy takes effect.
        let deadline = Instant::now() + TIMEOUT;
        let label = ["label", "pod/plain", "vpn.beebs.dev/inject=true", "--dry-run=server"];
        let why = loop {
            match f.kubectl(&label).await {
                Ok(_) => ensure!(Instant::now() < deadline, "a running Pod was labeled"),
                Err(error) => break format!("{error:#}"),
            }
        };
        ensure!(why.contains("has no effect on a Pod that already exists"), "{why}");

        let configuration: MutatingWebhookConfiguration = Api::all(cluster.client()?).get(NAME).await?;
        let only_other = json!([{"op": "replace", "path": "/webhooks/0/namespaceSelector", "value": {
            "matchLabels": {"kubernetes.io/metadata.name": "other"},
        }}]);
        let patch = Patch::<()>::Json(serde_json::from_value(only_other)?);
        let api: Api<MutatingWebhookConfiguration> = Api::all(cluster.client()?);
        api.patch(&configuration.name_any(), &PatchParams::default(), &patch).await?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let params = kube::api::PostParams { dry_run: true, ..Default::default() };
            match f.api::<Pod>().create(&params, &pod("labeled", true)?).await {
                Err(error) => {
                    let why = error.to_string();
                    ensure!(why.contains("No webhook of vpn-operator serves this namespace"), "{why}");
                    break;
                }
                // The API server still calls the webhook.
                Ok(admitted) => {
                    ensure!(admitted.spec.is_some_and(|spec| spec.scheduling_gates.is_some()), "not injected");
                    ensure!(Instant::now() < deadline, "the webhook is still called");
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
        // Other Pods are not affected.
        f.create(pod("other", false)?).await?;
        f.wait_until("other", "running", runs).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_lost_certificate_is_made_again() -> Result<()> {
    alone(Layout::Combined, 2, async |cluster, f, _| {
        let secrets: Api<Secret> = Api::namespaced(cluster.client()?, NAMESPACE);
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(cluster.client()?);
        wait_until_served(f).await?;
        let ca = |configuration: &MutatingWebhookConfiguration| -> Option<ByteString> {
            configuration.webhooks.as_ref()?.first()?.client_config.ca_bundle.clone()
        };
        let first = ca(&configurations.get(NAME).await?).context("no CA")?;

        // Somebody resets the configuration.
        let reset = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]);
        let reset = Patch::Json::<()>(serde_json::from_value(reset)?);
        configurations.patch(NAME, &PatchParams::default(), &reset).await?;
        let is_back = |found: Option<&MutatingWebhookConfiguration>| found.and_then(ca).as_ref() == Some(&first);
        timeout(TIMEOUT, await_condition(configurations.clone(), NAME, is_back)).await.context("the CA")??;
        wait_until_served(f).await?;

        // The Secret is damaged, and then deleted.
        let damaged: Value = json!({"data": {"tls.crt": "anVuaw==", "ca.key": null}});
        secrets.patch(NAME, &PatchParams::default(), &Patch::Merge(damaged)).await?;
        let other = |than: ByteString| {
            move |found: Option<&MutatingWebhookConfiguration>| found.and_then(ca).is_some_and(|now| now != than)
        };
        timeout(TIMEOUT, await_condition(configurations.clone(), NAME, other(first))).await.context("damaged")??;
        wait_until_served(f).await?;
        let second = ca(&configurations.get(NAME).await?).context("no CA")?;
        secrets.delete(NAME, &DeleteParams::default()).await?;
        timeout(TIMEOUT, await_condition(configurations.clone(), NAME, other(second))).await.context("deleted")??;
        wait_until_served(f).await?;
        f.create_provider("vpn", 1).await?;
        // The API server and the webhook may not have the same certificate yet.
        create_when_served(f, &pod("one", true)?, false).await?;
        f.wait_until("one", "a running Pod", runs).await.map(drop)
    })
    .await
}

/// Requests of the operator since a mark, without watches, Events and statuses of MaskProviders.
async fn requests(cluster: &Cluster, operator: &Operator, mark: Mark) -> Result<(usize, usize)> {
    let all = cluster.audit().context("no audit log")?.since(mark).await?;
    let users = operator.users();
    let counts = |access: Access| {
        let filter = Filter::default().access(access);
        let ours = all.matching(&filter).filter(|request| users.contains(&request.user));
        ours.filter(|request| !["events", "maskproviders", "leases"].contains(&&*request.resource)).count()
    };
    Ok((counts(Access::Write), counts(Access::Read)))
}

async fn create_all(f: &Framework, count: usize, is_labeled: bool) -> Result<Duration> {
    let before = Instant::now();
    let create = stream::iter(0..count).map(|number| async move {
        match is_labeled {
            true => f.create(pod(&format!("pod-{number:03}"), true)?).await.map(drop),
            false => f.create_mask(&format!("mask-{number:03}")).await.map(drop),
        }
    });
    create.buffer_unordered(16).try_for_each(|()| async { Ok(()) }).await?;
    let limit = Duration::from_secs(180);
    if is_labeled {
        let run = |pods: &[Pod]| pods.iter().filter(|pod| runs(pod)).count() >= count;
        wait_until_all(f.api(), limit, "all Pods run", run).await?;
    } else {
        let active = |all: &[MaskConsumer]| all.iter().filter(|consumer| is_active(consumer)).count() >= count;
        wait_until_all(f.api(), limit, "all Masks Active", active).await?;
    }
    Ok(before.elapsed())
}

async fn counted(layout: Layout) -> Result<()> {
    const COUNT: usize = 50;
    alone(layout, 1, async |cluster, f, operator| {
        f.create_provider("vpn", COUNT).await?;
        let audit = cluster.audit().context("no audit log")?;
        let masks = create_all(f, COUNT, false).await?;
        f.clear(Duration::from_secs(120)).await?;
        f.kubectl(&["delete", "secret", "vpn-credentials"]).await?;
        f.create_provider("vpn", COUNT).await?;
        audit.settled(&operator.users(), TIMEOUT).await?;
        let mark = audit.mark().await?;
        let pods = create_all(f, COUNT, true).await?;
        audit.settled(&operator.users(), TIMEOUT).await?;
        let (writes, reads) = requests(cluster, operator, mark).await?;
        let each = writes as f64 / COUNT as f64;
        report(&format!(
            "{layout:?}: {COUNT} labeled Pods at once on {COUNT} slots: all run after {:.1} s, {:.2} of the time of as \
             many Masks; {each:.2} writes and {:.2} reads each",
            pods.as_secs_f64(),
            pods.as_secs_f64() / masks.as_secs_f64(),
            reads as f64 / COUNT as f64,
        ));
        // Six for the assignment, then the Mask, the gate, the condition, and a few retries after a conflict.
        ensure!(writes <= 9 * COUNT + COUNT / 5, "{each:.2} writes each");
        ensure!(reads <= COUNT / 5, "{reads} reads");

        let mark = audit.mark().await?;
        // Not a wait for an event: nothing may happen in this period.
        sleep(Duration::from_secs(20)).await;
        let idle = requests(cluster, operator, mark).await?;
        ensure!(idle == (0, 0), "{idle:?} requests although nothing changed");
        f.api::<Pod>().delete_collection(&DeleteParams::default(), &Default::default()).await?;
        f.wait_until_all::<Mask>("no Mask", <[_]>::is_empty).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_labeled_pod_takes_three_writes_beside_the_assignment() -> Result<()> {
    counted(Layout::Combined).await
}

#[tokio::test]
async fn nor_more_in_a_process_for_each_controller() -> Result<()> {
    counted(Layout::FourProcesses).await
}

/// The operator is killed again and again while Pods come and go.
#[tokio::test]
async fn a_killed_operator_leaves_no_pod_behind() -> Result<()> {
    alone(Layout::Combined, 1, async |cluster, f, operator| {
        // The operator misses the end of a Pod that ends while it is down.
        let release = MaskProviderReleaseSpec { delay: None, unclean_delay: Some("2s".into()) };
        f.create_provider_with("vpn", 2, |spec| spec.release = Some(release)).await?;
        let names: Vec<_> = (0..6).map(|number| format!("pod-{number}")).collect();
        for name in &names {
            f.create(pod(name, true)?).await?;
        }
        for name in &names {
            // The kill interrupts whatever the operator is doing.
            operator.kill_part("all").await?;
            operator.restart(cluster).await?;
            let run = |pods: &[Pod]| pods.iter().filter(|pod| runs(pod)).count() >= 2.min(pods.len());
            f.wait_until_all::<Pod>("two of them run", run).await?;
            f.delete::<Pod>(name).await?;
        }
        f.wait_until_all::<Pod>("no Pod", <[_]>::is_empty).await?;
        f.wait_until_all::<Mask>("no Mask", <[_]>::is_empty).await?;
        f.wait_until_all::<MaskConsumer>("no MaskConsumer", <[_]>::is_empty).await.map(drop)
    })
    .await
}
