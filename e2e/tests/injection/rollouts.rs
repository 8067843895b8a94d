//! Rolling updates on full slots.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    Framework, History,
    control_plane::kwok::NEVER_READY,
    history::{Change, Object},
};
use k8s_openapi::api::{core::v1::Pod, events::v1::Event};
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    manifests::{apply, deployment, is_gated, message, phase, running, runs, wait_for_pods},
    test,
};

/// The largest number of Pods that ran at the same time.
pub fn most_at_once(changes: &[Change]) -> usize {
    let (mut running, mut most) = (BTreeMap::new(), 0);
    for change in changes {
        let Object::Pod(pod) = &change.object else { continue };
        running.insert(pod.uid(), !change.deleted && phase(pod) == Some("Running"));
        most = most.max(running.values().filter(|runs| **runs).count());
    }
    most
}

async fn restart(f: &Framework, deployment: &str) -> Result<()> {
    let deployment = format!("deployment/{deployment}");
    f.kubectl(&["rollout", "restart", &deployment]).await?;
    f.kubectl(&["rollout", "status", &deployment, "--timeout=90s"]).await.map(drop)
}

#[tokio::test]
async fn a_rolling_update_on_full_slots_completes() -> Result<()> {
    test("rollout", async |f| {
        let mut history = History::start(&f.client, Some(f.name())).await?;
        f.create_provider("vpn", 3).await?;
        apply(f, &[deployment("scraper", 3, &json!({}))]).await?;
        wait_for_pods(f, 3, 0).await?;
        restart(f, "scraper").await?;
        wait_for_pods(f, 3, 0).await?;
        let most = most_at_once(history.changes().await?);
        ensure!(most <= 3, "{most} Pods ran at the same time");
        history.check_slot_limits().await.map(drop)
    })
    .await
}

/// The handover of an evicted Pod's slot takes a while. No other Pod is evicted in the meantime.
#[tokio::test]
async fn one_pod_is_evicted_for_each_new_one() -> Result<()> {
    test("slow-rollout", async |f| {
        f.create_provider("vpn", 2).await?;
        let mut slow = deployment("scraper", 2, &json!({}));
        slow["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(3);
        apply(f, &[slow]).await?;
        wait_for_pods(f, 2, 0).await?;
        restart(f, "scraper").await?;
        wait_for_pods(f, 2, 0).await?;
        let events = f.api::<Event>().list(&Default::default()).await?;
        let evictions = events.iter().filter(|event| event.reason.as_deref() == Some("RevisionEvicted")).count();
        ensure!(evictions <= 2, "{evictions} Pods were evicted for two new ones");
        Ok(())
    })
    .await
}

/// A revision that does not work must not replace one that does.
#[tokio::test]
async fn the_next_pod_is_evicted_when_the_new_one_is_ready() -> Result<()> {
    test("unready-rollout", async |f| {
        f.create_provider("vpn", 3).await?;
        let mut scraper = deployment("scraper", 3, &json!({}));
        scraper["spec"]["strategy"]["rollingUpdate"] = json!({"maxSurge": 3, "maxUnavailable": 0});
        apply(f, std::slice::from_ref(&scraper)).await?;
        wait_for_pods(f, 3, 0).await?;
        let template = &mut scraper["spec"]["template"];
        template["metadata"]["annotations"] = json!({ NEVER_READY: "true" });
        template["metadata"]["labels"]["revision"] = json!("new");
        apply(f, &[scraper]).await?;
        let is_new = |pod: &Pod| pod.labels().contains_key("revision");
        let one_new = |pods: &[Pod]| pods.iter().filter(|pod| is_new(pod) && runs(pod)).count() == 1;
        let pods = f.wait_until_all::<Pod>("a Pod of the new revision runs", one_new).await?;
        let new = pods.iter().find(|pod| is_new(pod) && runs(pod)).context("no Pod")?.name_any();

        // A slot is handed over within 3 s, so the next Pod would be evicted within 6 s.
        let evicted = |pods: &[Pod]| pods.iter().filter(|pod| !is_new(pod) && runs(pod)).count() < 2;
        let next = f.wait_until_all::<Pod>("a second Pod is evicted", evicted);
        if let Ok(pods) = tokio::time::timeout(std::time::Duration::from_secs(8), next).await {
            bail!("evicted although {new} is not ready: {:?}", pods.map(|pods| running(&pods)));
        }
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        f.api::<Pod>().patch_status(&new, &PatchParams::default(), &Patch::Strategic(&ready)).await?;
        f.wait_until_all::<Pod>("a second Pod is evicted", evicted).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_rolling_update_of_a_shared_mask_completes() -> Result<()> {
    test("rollout-shared", async |f| {
        f.create_provider("vpn", 3).await?;
        f.create_active_mask("shared").await?;
        apply(f, &[deployment("scraper", 1, &json!({"vpn.beebs.dev/mask": "shared"}))]).await?;
        wait_for_pods(f, 1, 0).await?;
        let mut history = History::start(&f.client, Some(f.name())).await?;
        restart(f, "scraper").await?;
        let most = most_at_once(history.changes().await?);
        ensure!(most <= 1, "{most} Pods of one Mask ran at the same time");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_blocks_a_rolling_update_is_told() -> Result<()> {
    test("blocked", async |f| {
        f.create_provider("vpn", 1).await?;
        let budget = json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "scraper"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "scraper"}}},
        });
        apply(f, &[budget, deployment("scraper", 1, &json!({}))]).await?;
        wait_for_pods(f, 1, 0).await?;
        f.kubectl(&["rollout", "restart", "deployment/scraper"]).await?;
        let blocked = |words: &'static [&str]| {
            move |pods: &[Pod]| {
                pods.iter().any(|pod| is_gated(pod) && words.iter().all(|word| message(pod).contains(word)))
            }
        };
        let words = &["cannot be evicted", "disruption budget", "maxSurge: 0"];
        let pods = f.wait_until_all::<Pod>("the condition names the budget", blocked(words)).await?;
        let waiting = pods.iter().find(|pod| is_gated(pod)).map(ResourceExt::name_any).unwrap_or_default();
        f.wait_for_event::<Pod>(&waiting, "EvictionRefused", words).await?;
        // The rollout continues when the budget allows it.
        f.kubectl(&["delete", "poddisruptionbudget/scraper"]).await?;
        f.kubectl(&["rollout", "status", "deployment/scraper", "--timeout=90s"]).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn nobody_is_evicted_if_the_annotation_says_so() -> Result<()> {
    test("wait", async |f| {
        f.create_provider("vpn", 1).await?;
        apply(f, &[deployment("scraper", 1, &json!({"vpn.beebs.dev/surge": "wait"}))]).await?;
        let first = wait_for_pods(f, 1, 0).await?;
        f.kubectl(&["rollout", "restart", "deployment/scraper"]).await?;
        let told = |pods: &[Pod]| pods.iter().any(|pod| message(pod).contains("surge: wait"));
        let pods = f.wait_until_all::<Pod>("the condition says what the Pod waits for", told).await?;
        let same = pods.iter().filter(|pod| runs(pod)).map(ResourceExt::name_any).eq(crate::manifests::running(&first));
        ensure!(same, "another Pod runs now");
        Ok(())
    })
    .await
}
