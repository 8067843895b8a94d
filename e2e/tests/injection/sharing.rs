//! Pods that share a Mask run one after the other.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use vpn_types::{Mask, MaskConsumer, MaskSpec};

use crate::{
    manifests::{apply, deployment, is_gated, message, running, wait_for_pods},
    test,
};

#[tokio::test]
async fn one_pod_at_a_time() -> Result<()> {
    test("sharing", async |f| {
        f.create_provider("vpn", 3).await?;
        f.create(Mask::new("shared", MaskSpec { secret_name: Some("vpn-login".to_owned()), ..Default::default() }))
            .await?;
        apply(f, &[deployment("scraper", 3, &json!({"vpn.beebs.dev/mask": "shared"}))]).await?;
        let pods = wait_for_pods(f, 1, 2).await?;
        let first = running(&pods).pop().unwrap_or_default();
        for pod in pods.iter().filter(|pod| is_gated(pod)) {
            ensure!(message(pod).contains(&format!("Pod {first} uses the slot of Mask shared")), "{}", message(pod));
        }
        let consumer = f.wait_until::<MaskConsumer>("shared", "it names the Pod", |consumer| {
            let named = consumer.status.as_ref().and_then(|status| status.pod.as_ref());
            named.is_some_and(|pod| pod.name == first)
        });
        consumer.await?;
        f.delete::<Pod>(&first).await?;
        f.wait_until_all::<Pod>("another Pod runs", |pods| {
            running(pods).first().is_some_and(|name| *name != first) && pods.iter().all(|pod| pod.name_any() != first)
        })
        .await?;
        wait_for_pods(f, 1, 2).await?;
        // Without the Mask there is no slot.
        f.delete::<Mask>("shared").await?;
        f.wait_until_all::<Pod>("nothing runs", |pods| running(pods).is_empty()).await.map(drop)
    })
    .await
}
