//! Pods with the label `vpn.beebs.dev/inject`: everything that they send leaves through the VPN, from their first packet,
//! and never more of them run than there are slots.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use e2e::{
    Framework, History,
    cluster::shared,
    history::Object,
    node::images,
    pods::logs::container_status,
    testing::framework::ensure_eq,
    vpn::{Scenario, VpnService},
    wait::is_ready,
};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Pod, Secret},
};
use kube::ResourceExt;
use serde_json::{Value, json};
use vpn_types::{Mask, MaskProvider, MaskReservation, MaskSpec};

use crate::verification;

/// A Pod that asks for its address as soon as it starts, and again and again.
pub fn template(name: &str, vpn: &VpnService, annotations: Value) -> Value {
    let script = format!("while :; do curl --silent --max-time 1 {} >> /tmp/seen; sleep 0.2; done", vpn.address_url());
    json!({
        "metadata": {"labels": {"app": name, "vpn.beebs.dev/inject": "true"}, "annotations": annotations},
        "spec": {
            "terminationGracePeriodSeconds": 2,
            "containers": [{"name": "app", "image": images::TOOLS, "command": ["sh", "-c", script]}],
        },
    })
}

/// A Deployment of such Pods.
pub fn deployment(name: &str, vpn: &VpnService, replicas: usize, annotations: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, vpn, annotations),
        },
    })
}

/// Applies an object, as users do.
pub async fn apply(f: &Framework, object: &Value) -> Result<()> {
    let file = tempfile::Builder::new().suffix(".json").tempfile()?;
    std::fs::write(file.path(), object.to_string())?;
    f.kubectl(&["apply", "-f", &file.path().to_string_lossy()]).await.map(drop)
}

/// Runs a test with an account that has `slots` slots.
pub async fn with_slots(
    slots: usize,
    body: impl AsyncFnOnce(&Framework, &VpnService, &mut History) -> Result<()>,
) -> Result<()> {
    with_account(slots, async |f, vpn, history| {
        body(f, vpn, history).await?;
        behind_the_vpn(vpn, history).await?;
        history.check_slot_limits().await.map(drop)
    })
    .await
}

/// The same without checks at the end.
async fn with_account(
    slots: usize,
    body: impl AsyncFnOnce(&Framework, &VpnService, &mut History) -> Result<()>,
) -> Result<()> {
    let cluster = shared::cluster_with_node().await?;
    let vpn = VpnService::shared().await?;
    let operator = verification::operator(vpn).await?;
    Framework::run(cluster, operator, "injected", async |f| {
        let mut history = History::start(&f.client, Some(f.name())).await?;
        f.create(vpn.secret("account-credentials", Scenario::OpenVpn)?).await?;
        f.create(f.new_provider("account", slots)).await?;
        f.wait_until("account", "a usable provider", |provider: &MaskProvider| is_ready(provider)).await?;
        body(f, vpn, &mut history).await
    })
    .await
}

/// Fails if a Pod of the history sent anything from its own address.
async fn behind_the_vpn(vpn: &VpnService, history: &mut History) -> Result<()> {
    let counts = vpn.request_counts().await?;
    for change in history.changes().await? {
        let Object::Pod(pod) = &change.object else { continue };
        let Some(address) = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()) else { continue };
        let sent = counts.get(&address.parse()?);
        ensure!(sent.is_none(), "Pod {} sent {sent:?} requests from its own address", pod.name_any());
    }
    Ok(())
}

/// The largest number of Pods with running containers at the same time.
pub async fn most_at_once(history: &mut History) -> Result<usize> {
    let (mut running, mut most) = (BTreeMap::new(), 0);
    for change in history.changes().await? {
        let Object::Pod(pod) = &change.object else { continue };
        let is_running = |name: &str| {
            let state = container_status(pod, name).and_then(|status| status.state.as_ref());
            state.is_some_and(|state| state.running.is_some())
        };
        running.insert(pod.uid(), !change.deleted && (is_running("vpn") || is_running("app")));
        most = most.max(running.values().filter(|runs| **runs).count());
    }
    Ok(most)
}

/// Waits until this many Pods are ready, and returns their names.
pub async fn wait_for_ready(f: &Framework, count: usize) -> Result<BTreeSet<String>> {
    let is_up = |pod: &&Pod| is_ready(*pod) && pod.metadata.deletion_timestamp.is_none();
    let pods = f
        .wait_until_all::<Pod>(&format!("{count} ready Pods"), |pods| pods.iter().filter(is_up).count() == count)
        .await?;
    Ok(pods.iter().filter(is_up).map(ResourceExt::name_any).collect())
}

/// Returns all addresses that the app of a Pod has seen.
pub async fn seen(f: &Framework, pod: &str) -> Result<String> {
    let script = "until [ -s /tmp/seen ]; do sleep 0.1; done; sort -u /tmp/seen";
    let seen = f.kubectl(&["exec", pod, "--container=app", "--", "sh", "-c", script]).await?;
    Ok(seen.trim().to_owned())
}

pub async fn replicas_behind_the_vpn() -> Result<()> {
    with_slots(2, async |f, vpn, history| {
        apply(f, &deployment("scraper", vpn, 3, json!({}))).await?;
        let before = wait_for_ready(f, 2).await?;
        for pod in &before {
            ensure_eq("all that the app saw", seen(f, pod).await?, vpn.exit_address().to_string())?;
        }
        f.kubectl(&["scale", "deployment/scraper", "--replicas=2"]).await?;
        // The update surges although both slots are taken.
        f.kubectl(&["rollout", "restart", "deployment/scraper"]).await?;
        f.kubectl(&["rollout", "status", "deployment/scraper", "--timeout=120s"]).await?;
        let after = wait_for_ready(f, 2).await?;
        ensure!(before.is_disjoint(&after), "{before:?} {after:?}");
        for pod in &after {
            ensure_eq("all that the app saw", seen(f, pod).await?, vpn.exit_address().to_string())?;
        }
        f.kubectl(&["delete", "deployment/scraper"]).await?;
        f.wait_until_all::<MaskReservation>("no slot taken", <[_]>::is_empty).await?;
        ensure_eq("most Pods at once", most_at_once(history).await?, 2)
    })
    .await
}

pub async fn pods_of_one_mask_behind_the_vpn() -> Result<()> {
    with_slots(2, async |f, vpn, history| {
        let spec = MaskSpec { secret_name: Some("login".to_owned()), ..MaskSpec::default() };
        f.create(Mask::new("shared", spec)).await?;
        apply(f, &deployment("one", vpn, 1, json!({"vpn.beebs.dev/mask": "shared"}))).await?;
        wait_for_ready(f, 1).await?;
        f.kubectl(&["rollout", "restart", "deployment/one"]).await?;
        f.kubectl(&["rollout", "status", "deployment/one", "--timeout=120s"]).await?;
        let pod = wait_for_ready(f, 1).await?.pop_first().context("no Pod")?;
        ensure_eq("all that the app saw", seen(f, &pod).await?, vpn.exit_address().to_string())?;
        ensure_eq("most Pods at once", most_at_once(history).await?, 1)
    })
    .await
}

pub async fn a_job_behind_the_vpn() -> Result<()> {
    with_slots(1, async |f, vpn, history| {
        for name in ["first", "second"] {
            let mut template = template(name, vpn, json!({}));
            template["spec"]["restartPolicy"] = json!("Never");
            let script =
                format!("test \"$(curl --silent --max-time 5 {})\" = {}", vpn.address_url(), vpn.exit_address());
            template["spec"]["containers"][0]["command"] = json!(["sh", "-c", script]);
            let job = json!({
                "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
                "spec": {"template": template, "backoffLimit": 0},
            });
            apply(f, &job).await?;
        }
        let is_complete = |job: &&Job| job.status.as_ref().is_some_and(|status| status.succeeded == Some(1));
        f.wait_until_all::<Job>("both Jobs complete", |jobs| jobs.iter().filter(is_complete).count() == 2).await?;
        f.wait_until_all::<MaskReservation>("no slot taken", <[_]>::is_empty).await?;
        ensure_eq("most Pods at once", most_at_once(history).await?, 1)
    })
    .await
}

/// Some keys of the Secret are files, mounted at the paths that other keys contain.
pub async fn files_are_where_gluetun_reads_them() -> Result<()> {
    with_slots(1, async |f, vpn, _| {
        let secret: Secret = f.api().get("account-credentials").await?;
        let data = secret.data.context("no data")?;
        let file = data.keys().find(|key| key.ends_with(".conf") || key.ends_with(".ovpn")).cloned();
        let file = file.context("the account has no file")?;
        let path = format!("/gluetun/elsewhere/{file}");
        f.patch::<Secret>("account-credentials", json!({"stringData": {"OPENVPN_CUSTOM_CONFIG": path}})).await?;
        apply(f, &deployment("scraper", vpn, 1, json!({}))).await?;
        let pod = wait_for_ready(f, 1).await?.pop_first().context("no Pod")?;
        ensure_eq("all that the app saw", seen(f, &pod).await?, vpn.exit_address().to_string())?;
        f.kubectl(&["exec", &pod, "--container=vpn", "--", "test", "-s", &path]).await.map(drop)
    })
    .await
}

/// `kubectl debug` copies the Secret and the sidecar of a Pod, but neither its label nor its annotations.
pub async fn a_copy_is_no_second_device() -> Result<()> {
    with_account(1, async |f, vpn, history| {
        let mut scraper = template("scraper", vpn, json!({}));
        scraper["apiVersion"] = json!("v1");
        scraper["kind"] = json!("Pod");
        scraper["metadata"]["name"] = json!("scraper");
        apply(f, &scraper).await?;
        wait_for_ready(f, 1).await?;
        let address = vpn.address_url();
        let script = format!("while :; do curl --silent --max-time 1 {address} >> /tmp/seen; sleep 0.2; done");
        let debug = async |name: &str, flags: &[&str]| {
            let copy_to = format!("--copy-to={name}");
            let copy = [&["debug", "scraper", &copy_to, "--container=app"], flags, &["--", "sh", "-c", &script]];
            f.kubectl(&copy.concat()).await
        };

        debug("plain", &[]).await?;
        let has_failed = |pod: &Pod| {
            let last = container_status(pod, "vpn").and_then(|status| status.last_state.as_ref());
            last.and_then(|state| state.terminated.as_ref()).is_some_and(|end| end.exit_code == 1)
        };
        let copy = f.wait_until("plain", "its sidecar refuses to start", has_failed).await?;
        ensure!(container_status(&copy, "app").is_some_and(|app| app.started != Some(true)), "the app runs");
        let log = f.kubectl(&["logs", "plain", "--container=vpn"]).await?;
        ensure!(log.contains("has no slot of its own") && log.contains("--keep-annotations"), "{log}");
        f.kubectl(&["delete", "pod/plain"]).await?;

        debug("whole", &["--keep-labels", "--keep-annotations"]).await?;
        let waits = |pod: &Pod| {
            let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.filter_map(|one| one.message.as_deref()).any(|message| message.contains("place 1 in line"))
        };
        f.wait_until("whole", "waiting for a slot of its own", waits).await?;
        f.kubectl(&["delete", "pod/scraper"]).await?;
        f.wait_until("whole", "ready", |pod: &Pod| is_ready(pod)).await?;
        ensure_eq("all that the app saw", seen(f, "whole").await?, vpn.exit_address().to_string())?;
        behind_the_vpn(vpn, history).await
    })
    .await
}
