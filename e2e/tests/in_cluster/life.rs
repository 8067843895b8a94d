//! The life of an installation.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, Framework, History,
    cluster::shared,
    node::images,
    operator::chart,
    operator_image,
    pods::usage::slot_secret_name,
    testing::{figures::report, framework::ensure_eq},
    vpn::{Scenario, VpnService, client_pod, node_of, pod_ready},
    wait::{TIMEOUT, is_ready, wait_until_all},
};
use futures::TryStreamExt;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Pod},
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use tokio::sync::oneshot;
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskReservation, owner_reference_for};

/// The namespace of the operator.
const HOME: &str = "vpn-operator";

/// Installs or upgrades the chart, and waits until its Deployments are Available.
async fn helm_upgrade(cluster: &Cluster, args: &[&str]) -> Result<()> {
    let upgrade = ["upgrade", "--install", chart::RELEASE, chart::DIR, "--namespace", HOME, "--wait", "--timeout=120s"];
    cluster.run_helm(&[&upgrade[..], args].concat()).await.map(drop)
}

pub async fn from_install_to_uninstall() -> Result<()> {
    let cluster = shared::cluster_with_node().await?;
    let vpn = VpnService::shared().await?;
    import_image(cluster).await?;

    // The strictest Pod security level, which rejects Pods that do not meet it.
    let home = json!({"metadata": {"name": HOME, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let namespaces: Api<Namespace> = Api::all(cluster.client()?);
    namespaces.create(&PostParams::default(), &serde_json::from_value(home)?).await?;
    let values = json!({
        "verify": {
            "images": {"vpn": images::GLUETUN, "init": images::TOOLS, "probe": images::TOOLS},
            "ipServices": [vpn.address_url()],
        },
    });
    let file = cluster.state_dir().join("values.yaml");
    fs::write(&file, serde_yaml::to_string(&values)?)?;
    let values = format!("--values={}", file.display());

    let f = Framework::new(cluster, "user").await?;
    let life = async {
        helm_upgrade(cluster, &[&values]).await?;
        let pods = operator_pods(cluster).await?;
        ensure_eq("Pods of the operator", pods.len(), 4)?;
        let mut history = History::start(&f.client, Some(f.name())).await?;
        let (consumer, user) = use_a_slot(&f, vpn).await?;

        // Only a changed Pod template starts new Pods.
        upgrade_without_a_gap(cluster, &f, &[&values, "--set-string=podAnnotations.round=2"]).await?;
        let now = operator_pods(cluster).await?;
        ensure_eq("Pods of the operator", now.len(), 4)?;
        ensure!(now.keys().all(|uid| !pods.contains_key(uid)), "a Pod from before the upgrade is left");
        ensure_eq("the consumer", f.wait_active("user").await?.uid(), consumer.uid())?;
        let left: Pod = f.api().get("user").await?;
        ensure_eq("its Pod", left.uid(), user.uid())?;
        ensure!(is_ready(&left), "the user's Pod is not ready: {:?}", left.status);
        ensure!(history.check_slot_limits().await?.into_values().all(|most| most <= 2), "more users than slots");

        uninstalled(cluster, &f).await
    };
    let result = f.dump_on_error(life).await;
    if result.is_err() {
        let logs =
            cluster.run_kubectl(&["logs", "--namespace", HOME, "--tail=40", "--prefix", "--selector", OURS]).await;
        eprintln!("{}", logs.unwrap_or_else(|error| format!("{error:#}")));
    }
    result
}

/// The Pods of all processes.
const OURS: &str =
    "app in (vpn-operator-masks, vpn-operator-consumers, vpn-operator-providers, vpn-operator-reservations)";

/// Builds the image as a user would, and imports it into the node.
async fn import_image(cluster: &Cluster) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let archive = dir.path().join("image.tar");
    let (root, output) = (dir.path().join("root"), archive.clone());
    tokio::task::spawn_blocking(move || {
        operator_image::root(&root)?;
        operator_image::archive(&root, &output)
    })
    .await??;
    node_of(cluster)?.import_archive(&archive).await
}

/// Returns the operator's Pods by UID, after checking that all are ready and none has restarted.
async fn operator_pods(cluster: &Cluster) -> Result<BTreeMap<String, Pod>> {
    let pods: Api<Pod> = Api::namespaced(cluster.client()?, HOME);
    let mut found = BTreeMap::new();
    for pod in pods.list(&ListParams::default().labels(OURS)).await? {
        if pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let name = pod.name_any();
        ensure!(is_ready(&pod), "{name} is not ready: {:?}", pod.status);
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        ensure!(
            statuses.map(|status| status.restart_count).sum::<i32>() == 0,
            "{name} was restarted: {:?}",
            pod.status
        );
        found.insert(pod.uid().context("no uid")?, pod);
    }
    Ok(found)
}

/// Creates a verified account, a Mask, and a Pod behind its VPN.
async fn use_a_slot(f: &Framework, vpn: &VpnService) -> Result<(MaskConsumer, Pod)> {
    f.create(vpn.secret("account-credentials", Scenario::OpenVpn)?).await?;
    let mut provider = f.new_provider("account", 2);
    provider.spec.verify = None;
    f.create(provider).await?;
    f.wait_until("account", "a verified provider", |provider: &MaskProvider| is_ready(provider)).await?;
    let consumer = f.create_active_mask("user").await?;
    let owner = serde_json::to_value(owner_reference_for(&consumer))?;
    f.create(client_pod("user", &slot_secret_name(&consumer)?, Some(owner))?).await?;
    pod_ready(f.api(), "user").await?;
    Ok((consumer, f.api().get("user").await?))
}

/// Upgrades while one Mask after another requests the second slot: each gets it, and every Deployment always has an
/// available Pod.
async fn upgrade_without_a_gap(cluster: &Cluster, f: &Framework, args: &[&str]) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client()?, HOME);
    let (listed, is_listed) = oneshot::channel();
    let mut listed = Some(listed);
    let watch = tokio::spawn(async move {
        let mut events = std::pin::pin!(watcher(deployments, Default::default()).default_backoff());
        while let Some(event) = events.try_next().await? {
            match event {
                watcher::Event::InitDone => drop(listed.take().map(|listed| listed.send(()))),
                watcher::Event::InitApply(deployment) | watcher::Event::Apply(deployment) => {
                    let available = deployment.status.as_ref().and_then(|status| status.available_replicas);
                    ensure!(available >= Some(1), "{} has no Pod that is available", deployment.name_any());
                }
                _ => {}
            }
        }
        Ok(())
    });
    is_listed.await.context("the watch on the Deployments ended")?;

    let upgrade = helm_upgrade(cluster, args);
    tokio::pin!(upgrade);
    let (mut served, mut longest) = (0, Duration::ZERO);
    let mut upgraded = false;
    // One more after the upgrade, which the new Pods must serve.
    while !upgraded {
        let name = format!("during-{served}");
        let one = async {
            let began = Instant::now();
            let consumer = f.create_active_mask(&name).await?;
            let took = began.elapsed();
            f.delete::<Mask>(&name).await?;
            f.wait_deleted(&consumer).await?;
            anyhow::Ok(took)
        };
        tokio::pin!(one);
        let took = tokio::select! {
            took = &mut one => took?,
            result = &mut upgrade => {
                result?;
                upgraded = true;
                one.await?
            }
        };
        (served, longest) = (served + 1, longest.max(took));
    }
    report(&format!("upgrade in the cluster: {served} Masks served meanwhile, the longest wait {longest:.1?}"));
    match watch.is_finished() {
        true => watch.await?,
        false => {
            watch.abort();
            Ok(())
        }
    }
}

/// Uninstalls, and checks that the user's objects are unchanged.
async fn uninstalled(cluster: &Cluster, f: &Framework) -> Result<()> {
    cluster.run_helm(&["uninstall", chart::RELEASE, "--namespace", HOME, "--wait"]).await?;
    // helm waits neither for the garbage collector nor for Pods that stop.
    wait_until_all::<Pod>(Api::namespaced(cluster.client()?, HOME), TIMEOUT, "no Pod", <[_]>::is_empty).await?;
    let kinds = "all,configmaps,endpointslices,leases,poddisruptionbudgets,roles,rolebindings,secrets,serviceaccounts";
    let left = cluster.run_kubectl(&["get", kinds, "--namespace", HOME, "--output=name"]).await?;
    // Objects that every namespace has.
    let mut left: Vec<_> = left.lines().filter(|name| !EVERYWHERE.contains(name)).collect();
    let instance = format!("app.kubernetes.io/instance={}", chart::RELEASE);
    let roles = ["get", "clusterroles,clusterrolebindings", "--output=name", "--selector", &instance];
    let roles = cluster.run_kubectl(&roles).await?;
    left.extend(roles.lines());
    ensure_eq("remaining objects of the release", left, Vec::<&str>::new())?;

    let user = f.wait_active("user").await?;
    f.api::<MaskProvider>().get("account").await?;
    let slot = user.status.and_then(|status| status.provider).context("no slot")?;
    let lock = f.api::<MaskReservation>().get(&vpn_types::reservation_name(&slot.name, slot.slot)).await?;
    ensure_eq("its lock", lock.uid(), Some(slot.reservation))?;
    ensure!(is_ready(&f.api::<Pod>().get("user").await?), "the user's Pod is not ready");
    Ok(())
}

const EVERYWHERE: [&str; 2] = ["configmap/kube-root-ca.crt", "serviceaccount/default"];
