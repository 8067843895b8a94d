//! A scheduling gate that somebody removes by hand gives no Pod a slot.

use anyhow::{Result, ensure};
use e2e::{Framework, History};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use vpn_types::{Mask, MaskConsumer, MaskSpec};

use crate::{
    manifests::{apply, deployment, is_gated, message, pod, runs, wait_for_pods},
    test,
};

/// What the Event says.
const WORDS: [&str; 2] = ["neither a slot", "scheduling gate vpn.beebs.dev/slot"];

/// Removes the gate of a Pod that waits.
async fn remove_gate(f: &Framework, name: &str) -> Result<Pod> {
    let pod = f.api::<Pod>().get(name).await?;
    ensure!(is_gated(&pod), "{name} has no gate");
    let patch = json!([{"op": "remove", "path": "/spec/schedulingGates"}]).to_string();
    f.kubectl(&["patch", "pod", name, "--type=json", "--patch", &patch]).await?;
    Ok(pod)
}

#[tokio::test]
async fn a_pod_whose_gate_is_removed_by_hand_is_deleted() -> Result<()> {
    test("ungated", async |f| {
        let mut history = History::start(&f.client, Some(f.name())).await?;
        f.create_provider("vpn", 1).await?;
        f.create(pod("first", &json!({}))?).await?;
        f.wait_until("first", "it runs", runs).await?;
        f.create(pod("second", &json!({}))?).await?;
        f.wait_until("second", "it waits", |pod| message(pod).contains("place 1 in line")).await?;
        let second = remove_gate(f, "second").await?;
        f.wait_deleted(&second).await?;
        f.wait_for_event::<Pod>("second", "Evicted", &WORDS).await?;
        f.wait_until_all::<MaskConsumer>("it leaves the line", |consumers| consumers.len() == 1).await?;
        ensure!(runs(&f.api::<Pod>().get("first").await?), "the Pod with the slot does not run");
        history.check_slot_limits().await.map(drop)
    })
    .await
}

/// The substitute of a Pod of a workload waits in line.
#[tokio::test]
async fn a_pod_that_shares_a_mask_does_not_jump_the_line() -> Result<()> {
    test("ungated-shared", async |f| {
        f.create_provider("vpn", 1).await?;
        f.create(Mask::new("shared", MaskSpec { secret_name: Some("vpn-login".to_owned()), ..Default::default() }))
            .await?;
        apply(f, &[deployment("scraper", 2, &json!({"vpn.beebs.dev/mask": "shared"}))]).await?;
        let before = wait_for_pods(f, 1, 1).await?;
        let waiting = before.iter().find(|pod| is_gated(pod)).map(ResourceExt::name_any).unwrap_or_default();
        let ungated = remove_gate(f, &waiting).await?;
        f.wait_deleted(&ungated).await?;
        f.wait_for_event::<Pod>(&waiting, "Evicted", &WORDS).await?;
        let after = wait_for_pods(f, 1, 1).await?;
        let holder = |pods: &[Pod]| pods.iter().find(|pod| runs(pod)).and_then(ResourceExt::uid);
        ensure!(holder(&before) == holder(&after), "another Pod has the slot");
        Ok(())
    })
    .await
}
