//! Each Pod has a slot of its own.

use anyhow::{Context, Result, ensure};
use e2e::{History, testing::framework::ensure_eq};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use serde_json::json;
use vpn_types::{Mask, MaskConsumer, MaskReservation};

use crate::{
    manifests::{apply, deployment, is_gated, message, pod, runs, secret_of, slot_condition, template, wait_for_pods},
    test,
};

#[tokio::test]
async fn five_replicas_on_three_slots() -> Result<()> {
    test("label", async |f| {
        f.create_provider("vpn", 3).await?;
        apply(f, &[deployment("scraper", 5, &json!({}))]).await?;
        let pods = wait_for_pods(f, 3, 2).await?;
        for place in ["place 1 in line", "place 2 in line"] {
            let says = |pods: &[Pod]| pods.iter().any(|pod| is_gated(pod) && message(pod).contains(place));
            f.wait_until_all::<Pod>(place, says).await?;
        }
        let shown = f.kubectl(&["get", "pods"]).await?;
        ensure!(shown.matches("SchedulingGated").count() == 2, "{shown}");
        let waiting = pods.iter().find(|pod| is_gated(pod)).map(ResourceExt::name_any).unwrap_or_default();
        f.wait_for_event::<Pod>(&waiting, "NoFreeSlot", &["All slots of", "place"]).await?;

        // Each Pod has its own slot, and the Secret that its sidecar names.
        let masks = f.api::<Mask>().list(&Default::default()).await?;
        ensure_eq("Masks", masks.items.len(), 5)?;
        for pod in pods.iter().filter(|pod| runs(pod)) {
            let secret = f.api::<Secret>().get(secret_of(pod).unwrap_or_default()).await?;
            ensure!(secret.data.is_some_and(|data| data.contains_key("OPENVPN_PASSWORD")), "no credentials");
        }
        f.wait_until_all::<Pod>("their conditions", |pods| {
            let says = |pod: &&Pod| slot_condition(pod).is_some_and(|one| one.status == "True");
            pods.iter().filter(says).count() == 3
        })
        .await?;

        // When scaled down, Pods without a slot go first. When scaled up, new Pods wait.
        f.kubectl(&["scale", "deployment/scraper", "--replicas=2"]).await?;
        wait_for_pods(f, 2, 0).await?;
        f.wait_until_all::<MaskReservation>("two slots taken", |all| all.len() == 2).await?;
        f.kubectl(&["scale", "deployment/scraper", "--replicas=4"]).await?;
        wait_for_pods(f, 3, 1).await?;
        f.kubectl(&["delete", "deployment/scraper"]).await?;
        f.wait_until_all::<MaskReservation>("no slot taken", <[_]>::is_empty).await?;
        f.wait_until_all::<Mask>("no Mask", <[_]>::is_empty).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_slot_that_is_taken_back_takes_its_pod_along_and_the_next_one_waits() -> Result<()> {
    test("lowered", async |f| {
        let mut history = History::start(&f.client, Some(f.name())).await?;
        f.create_provider("vpn", 3).await?;
        apply(f, &[deployment("scraper", 3, &json!({}))]).await?;
        let before = wait_for_pods(f, 3, 0).await?;
        let consumers = f.api::<MaskConsumer>().list(&Default::default()).await?;
        f.kubectl(&["scale", "maskprovider/vpn", "--replicas=1"]).await?;
        let after = wait_for_pods(f, 1, 2).await?;

        // The Pods with the highest slots are evicted, and the other one keeps running.
        let slot = |consumer: &MaskConsumer| consumer.status.as_ref()?.provider.as_ref().map(|provider| provider.slot);
        for consumer in &consumers {
            let name = consumer.name_any();
            let is_its = |pod: &&Pod| pod.owner_references().len() == 1 && secret_of(pod) == Some(&*name);
            let pod = before.iter().find(is_its).with_context(|| format!("no Pod of {name}"))?;
            let runs_on = after.iter().any(|now| now.uid() == pod.uid() && runs(now));
            ensure_eq("it runs on", runs_on, slot(consumer) == Some(0))?;
            if !runs_on {
                f.wait_for_event::<Mask>(&name, "Evicted", &["is beyond its maxSlots 1"]).await?;
            }
        }
        let waiting: Vec<_> = after.iter().filter(|pod| is_gated(pod)).collect();
        for place in ["place 1 in line", "place 2 in line"] {
            let says = |pods: &[Pod]| pods.iter().any(|pod| is_gated(pod) && message(pod).contains(place));
            f.wait_until_all::<Pod>(place, says).await?;
        }

        // They get the slots one after the other as these become free.
        f.kubectl(&["scale", "maskprovider/vpn", "--replicas=2"]).await?;
        wait_for_pods(f, 2, 1).await?;
        f.kubectl(&["scale", "maskprovider/vpn", "--replicas=3"]).await?;
        let last = wait_for_pods(f, 3, 0).await?;
        for pod in waiting {
            ensure!(last.iter().any(|now| now.uid() == pod.uid()), "{} does not run", pod.name_any());
        }
        history.check_slot_limits().await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_job_gives_its_slot_back_when_it_has_ended() -> Result<()> {
    test("job", async |f| {
        f.create_provider("vpn", 1).await?;
        let job = |name: &str| {
            let mut template = template(name, &json!({}));
            template["spec"]["restartPolicy"] = json!("Never");
            template["metadata"]["annotations"] = json!({"e2e.vpn.beebs.dev/complete-after": "100ms"});
            // kwok completes Pods of Jobs.
            json!({
                "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template},
            })
        };
        apply(f, &[job("one"), job("two"), job("three")]).await?;
        f.wait_until_all::<k8s_openapi::api::batch::v1::Job>("three Jobs complete", |jobs| {
            jobs.iter().filter(|job| job.status.as_ref().is_some_and(|status| status.succeeded == Some(1))).count() == 3
        })
        .await?;
        f.wait_until_all::<MaskReservation>("no slot taken", <[_]>::is_empty).await?;
        // Their Pods are still there.
        ensure_eq("Pods", f.api::<Pod>().list(&Default::default()).await?.items.len(), 3)
    })
    .await
}

#[tokio::test]
async fn tags_and_priority_reach_the_mask() -> Result<()> {
    test("tags", async |f| {
        f.create_provider_with("vpn", 1, |spec| spec.tags = Some(vec!["uk".to_owned()])).await?;
        let first = pod("first", &json!({"vpn.beebs.dev/providers": "us"}))?;
        f.create(first).await?;
        let waits = |pod: &Pod| message(pod).contains("no MaskProvider with one of the tags us");
        f.wait_until("first", "the condition says that no provider matches", waits).await?;
        let second = pod("second", &json!({"vpn.beebs.dev/providers": "eu, uk", "vpn.beebs.dev/priority": "5"}))?;
        f.create(second).await?;
        f.wait_until("second", "it runs", runs).await?;
        let consumers = f.api::<MaskConsumer>().list(&Default::default()).await?;
        let priorities: Vec<_> = consumers.iter().filter_map(|consumer| consumer.spec.priority).collect();
        ensure_eq("priorities", priorities, vec![5])
    })
    .await
}

#[tokio::test]
async fn the_log_of_a_pod_without_a_controller_stays() -> Result<()> {
    test("bare", async |f| {
        f.create_provider("vpn", 1).await?;
        f.create(pod("one", &json!({}))?).await?;
        f.wait_until("one", "it runs", runs).await?;
        let ended = json!({"status": {"phase": "Succeeded", "containerStatuses": null, "initContainerStatuses": null}});
        let api = f.api::<Pod>();
        api.patch_status("one", &Default::default(), &kube::api::Patch::Merge(ended)).await?;
        f.wait_until_all::<MaskConsumer>("no MaskConsumer", <[_]>::is_empty).await?;
        let mask = f.wait_until_all::<Mask>("no Mask", <[_]>::is_empty);
        mask.await?;
        f.api::<Pod>().get("one").await.map(drop).context("the Pod is gone, with its log")
    })
    .await
}
