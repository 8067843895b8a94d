//! The life of an installation.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    Bench, Cluster, History,
    cluster::shared,
    node::images,
    operator::chart,
    operator_image,
    pods::usage::secret_of,
    testing::{bench::same, figures::report},
    vpn::{Case, VpnService, client_pod, node_of, pod_ready},
    wait::{LIMIT, is_ready, until_all},
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

/// Installs, or upgrades to, the chart and waits until all is available.
async fn helm_upgrade(cluster: &Cluster, args: &[&str]) -> Result<()> {
    let upgrade = ["upgrade", "--install", chart::RELEASE, chart::DIR, "--namespace", HOME, "--wait", "--timeout=120s"];
    cluster.run_helm(&[&upgrade[..], args].concat()).await.map(drop)
}

pub async fn from_install_to_uninstall() -> Result<()> {
    let cluster = shared::cluster_with_node().await?;
    let vpn = VpnService::shared().await?;
    import_image(cluster).await?;

    // As strict as a namespace can be: whatever does not fit into it is not let in.
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

    let bench = Bench::new(cluster, "user").await?;
    let life = async {
        helm_upgrade(cluster, &[&values]).await?;
        let pods = operator_pods(cluster).await?;
        same("Pods of the operator", pods.len(), 4)?;
        let mut history = History::start(&bench.client, Some(bench.name())).await?;
        let (consumer, user) = use_a_slot(&bench, vpn).await?;

        // Only a Pod template that differs starts new Pods.
        upgrade_without_a_gap(cluster, &bench, &[&values, "--set-string=podAnnotations.round=2"]).await?;
        let now = operator_pods(cluster).await?;
        same("Pods of the operator", now.len(), 4)?;
        ensure!(now.keys().all(|uid| !pods.contains_key(uid)), "a Pod from before the upgrade is left");
        same("the consumer", bench.active("user").await?.uid(), consumer.uid())?;
        let left: Pod = bench.api().get("user").await?;
        same("its Pod", left.uid(), user.uid())?;
        ensure!(is_ready(&left), "the user's Pod was disturbed: {:?}", left.status);
        ensure!(history.judge().await?.into_values().all(|most| most <= 2), "more users than slots");

        uninstalled(cluster, &bench).await
    };
    let result = bench.dump_on_error(life).await;
    if result.is_err() {
        let logs =
            cluster.run_kubectl(&["logs", "--namespace", HOME, "--tail=40", "--prefix", "--selector", OURS]).await;
        eprintln!("{}", logs.unwrap_or_else(|error| format!("{error:#}")));
    }
    result
}

/// The Pods of all parts.
const OURS: &str =
    "app in (vpn-operator-masks, vpn-operator-consumers, vpn-operator-providers, vpn-operator-reservations)";

/// Builds the image as a user would, and makes it known to the node.
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

/// The operator's Pods, by UID: all of them ready, none restarted.
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

/// A verified account, a Mask, and a Pod behind its VPN.
async fn use_a_slot(bench: &Bench, vpn: &VpnService) -> Result<(MaskConsumer, Pod)> {
    bench.create(vpn.secret("account-credentials", Case::OpenVpn)?).await?;
    let mut provider = bench.new_provider("account", 2);
    provider.spec.verify = None;
    bench.create(provider).await?;
    bench.until("account", "a verified provider", |provider: &MaskProvider| is_ready(provider)).await?;
    let consumer = bench.active_mask("user").await?;
    let owner = serde_json::to_value(owner_reference_for(&consumer))?;
    bench.create(client_pod("user", &secret_of(&consumer)?, Some(owner))?).await?;
    pod_ready(bench.api(), "user").await?;
    Ok((consumer, bench.api().get("user").await?))
}

/// Upgrades while one Mask after another asks for the second slot: each gets it, and no Deployment ever is without a
/// Pod that is ready.
async fn upgrade_without_a_gap(cluster: &Cluster, bench: &Bench, args: &[&str]) -> Result<()> {
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
    // Once more after it, so that the new Pods have done something.
    while !upgraded {
        let name = format!("during-{served}");
        let one = async {
            let began = Instant::now();
            let consumer = bench.active_mask(&name).await?;
            let took = began.elapsed();
            bench.delete::<Mask>(&name).await?;
            bench.gone(&consumer).await?;
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

/// Uninstalls, and looks at what is left: what the user made, as it was.
async fn uninstalled(cluster: &Cluster, bench: &Bench) -> Result<()> {
    cluster.run_helm(&["uninstall", chart::RELEASE, "--namespace", HOME, "--wait"]).await?;
    // helm does not wait for the garbage collector, nor for Pods that stop.
    until_all::<Pod>(Api::namespaced(cluster.client()?, HOME), LIMIT, "no Pod", <[_]>::is_empty).await?;
    let kinds = "all,configmaps,endpointslices,leases,poddisruptionbudgets,roles,rolebindings,secrets,serviceaccounts";
    let left = cluster.run_kubectl(&["get", kinds, "--namespace", HOME, "--output=name"]).await?;
    // What every namespace has.
    let mut left: Vec<_> = left.lines().filter(|name| !EVERYWHERE.contains(name)).collect();
    let instance = format!("app.kubernetes.io/instance={}", chart::RELEASE);
    let roles = ["get", "clusterroles,clusterrolebindings", "--output=name", "--selector", &instance];
    let roles = cluster.run_kubectl(&roles).await?;
    left.extend(roles.lines());
    same("left of the release", left, Vec::<&str>::new())?;

    let user = bench.active("user").await?;
    bench.api::<MaskProvider>().get("account").await?;
    let slot = user.status.and_then(|status| status.provider).context("no slot")?;
    let lock = bench.api::<MaskReservation>().get(&vpn_types::reservation_name(&slot.name, slot.slot)).await?;
    same("its lock", lock.uid(), Some(slot.reservation))?;
    ensure!(is_ready(&bench.api::<Pod>().get("user").await?), "the user's Pod was disturbed");
    Ok(())
}

const EVERYWHERE: [&str; 2] = ["configmap/kube-root-ca.crt", "serviceaccount/default"];
