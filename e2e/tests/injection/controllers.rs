//! DaemonSets and StatefulSets: each of their Pods has a slot, and an update stops the old Pod before it starts the new
//! one.

use anyhow::{Result, ensure};
use e2e::{Framework, History, control_plane::kwok, testing::framework::ensure_eq};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};
use vpn_types::{Mask, MaskReservation};

use crate::{
    manifests::{apply, running, template, wait_for_pods},
    rollouts::most_at_once,
    test,
};

fn workload(kind: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "scraper"},
        "spec": {"selector": {"matchLabels": {"app": "scraper"}}, "template": template("scraper", &json!({}))},
    })
}

/// Updates a workload on full slots. It must complete with other Pods, and never more of them than slots.
async fn update(f: &Framework, mut history: History, workload: &str, slots: usize) -> Result<()> {
    let uids = |pods: &[Pod]| pods.iter().filter_map(ResourceExt::uid).collect::<Vec<_>>();
    let before = uids(&wait_for_pods(f, slots, 0).await?);
    f.kubectl(&["rollout", "restart", workload]).await?;
    f.kubectl(&["rollout", "status", workload, "--timeout=90s"]).await?;
    let after = uids(&wait_for_pods(f, slots, 0).await?);
    ensure!(after.iter().all(|uid| !before.contains(uid)), "a Pod has not been replaced");
    ensure_eq("most Pods at once", most_at_once(history.changes().await?), slots)?;
    history.check_slot_limits().await?;
    f.wait_until_all::<Mask>("a Mask for each Pod", |masks| masks.len() == slots).await?;
    f.kubectl(&["delete", workload]).await?;
    f.wait_until_all::<MaskReservation>("no slot taken", <[_]>::is_empty).await.map(drop)
}

#[tokio::test]
async fn a_stateful_set_is_updated_on_full_slots() -> Result<()> {
    test("stateful", async |f| {
        let history = History::start(&f.client, Some(f.name())).await?;
        f.create_provider("vpn", 2).await?;
        // Its Pods start one after the other: the third one is created when the second one is ready.
        let mut scraper = workload("StatefulSet");
        scraper["spec"]["replicas"] = json!(3);
        apply(f, &[scraper]).await?;
        let pods = wait_for_pods(f, 2, 1).await?;
        let mut names = running(&pods);
        names.sort();
        ensure_eq("the Pods with slots", names, vec!["scraper-0".to_owned(), "scraper-1".to_owned()])?;
        f.kubectl(&["scale", "statefulset/scraper", "--replicas=2"]).await?;
        update(f, history, "statefulset/scraper", 2).await
    })
    .await
}

#[tokio::test]
async fn a_daemon_set_is_updated_on_full_slots() -> Result<()> {
    test("daemon", async |f| {
        let history = History::start(&f.client, Some(f.name())).await?;
        // The Pods of the other tests do not tolerate the taint of these nodes.
        for index in 0..2 {
            let name = format!("{}-{index}", f.name());
            kwok::create_host_node(&f.client, &name, &format!("192.0.2.{}", 10 + index)).await?;
        }
        let nodes = 3;
        f.create_provider("vpn", nodes - 1).await?;
        let mut scraper = workload("DaemonSet");
        scraper["spec"]["template"]["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
        apply(f, &[scraper]).await?;
        wait_for_pods(f, nodes - 1, 1).await?;
        f.kubectl(&["scale", "maskprovider/vpn", &format!("--replicas={nodes}")]).await?;
        update(f, history, "daemonset/scraper", nodes).await
    })
    .await
}
