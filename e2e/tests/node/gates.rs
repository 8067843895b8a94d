//! A scheduling gate that somebody removes by hand.

use anyhow::{Result, ensure};
use e2e::{history::Object, pods::logs::container_status, testing::framework::ensure_eq};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use vpn_types::Reason;

use crate::injection::{apply, deployment, template, wait_for_ready, with_slots};

pub async fn a_gate_that_is_removed_by_hand_lets_nothing_run() -> Result<()> {
    with_slots(1, async |f, vpn, history| {
        apply(f, &deployment("scraper", vpn, 1, json!({}))).await?;
        let holder = wait_for_ready(f, 1).await?;
        let mut hasty = template("hasty", vpn, json!({}));
        (hasty["apiVersion"], hasty["kind"], hasty["metadata"]["name"]) = (json!("v1"), json!("Pod"), json!("hasty"));
        apply(f, &hasty).await?;
        let waits = |pod: &Pod| {
            let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.filter_map(|one| one.message.as_deref()).any(|message| message.contains("place 1 in line"))
        };
        let pod = f.wait_until("hasty", "waiting for its slot", waits).await?;
        let patch = json!([{"op": "remove", "path": "/spec/schedulingGates"}]).to_string();
        f.kubectl(&["patch", "pod/hasty", "--type=json", "--patch", &patch]).await?;
        f.wait_deleted(&pod).await?;
        f.wait_for_event::<Pod>("hasty", Reason::Evicted.as_str(), &["neither a slot"]).await?;
        for change in history.changes().await? {
            let Object::Pod(pod) = &change.object else { continue };
            // The kubelet may report containers that never ran as terminated, but they have no id.
            let ran = |name: &str| container_status(pod, name).is_some_and(|status| status.container_id.is_some());
            ensure!(pod.name_any() != "hasty" || !ran("vpn") && !ran("app"), "a container ran: {:?}", pod.status);
        }
        ensure_eq("the Pod with the slot", wait_for_ready(f, 1).await?, holder)
    })
    .await
}
