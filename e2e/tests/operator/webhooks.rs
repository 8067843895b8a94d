//! Admission webhooks of somebody else that refuse, or do not answer. Who is refused says why, keeps no slot from
//! others, and is served once the webhook lets it.

use anyhow::{Result, ensure};
use e2e::{
    Bench,
    testing::{
        bench::same,
        webhook::{Verdict, Webhook},
    },
    wait::{Kind, LIMIT, ready_condition},
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};
use vpn_types::{Mask, MaskConsumer, MaskReservation, MaskReservationSpec};

use super::refusals::{heals, neighbours, steps_aside};

/// Nothing to watch tells that a webhook is in force: it is tried out, without creating anything.
async fn until_denied<K: Kind>(there: &Bench, probe: K) -> Result<()> {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let deadline = Instant::now() + LIMIT;
    while there.api::<K>().create(&dry, &probe).await.is_ok() {
        ensure!(Instant::now() < deadline, "the webhook is not in force after {LIMIT:?}");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn a_secret() -> Result<Secret> {
    Ok(serde_json::from_value(json!({ "metadata": { "name": "probe" } }))?)
}

#[tokio::test]
async fn a_webhook_that_refuses_secrets() -> Result<()> {
    Bench::test("webhook-denies", async |bench| {
        let there = neighbours(bench).await?;
        let denied = Verdict::Deny("no Secrets on a bad day");
        let webhook = Webhook::start(&bench.client, there.name(), &["secrets"], 5, denied).await?;
        until_denied(&there, a_secret()?).await?;
        let refused = steps_aside(bench, &there, "AdmissionDenied").await?;
        let told = ready_condition(&refused).map(|ready| ready.message).unwrap_or_default();
        ensure!(told.contains("no Secrets on a bad day"), "the webhook's words are not told: {told}");
        there.told::<Mask>("mine", "AdmissionDenied", &["no Secrets on a bad day"]).await?;
        webhook.say(Verdict::Allow);
        heals(bench, &there, &refused).await?;
        webhook.unregister().await
    })
    .await
}

/// The API server gives up on the webhook, and says so.
#[tokio::test]
async fn a_webhook_that_does_not_answer_in_its_time() -> Result<()> {
    Bench::test("webhook-silent", async |bench| {
        let there = neighbours(bench).await?;
        let webhook = Webhook::start(&bench.client, there.name(), &["secrets"], 1, Verdict::Silence).await?;
        until_denied(&there, a_secret()?).await?;
        let refused = steps_aside(bench, &there, "AdmissionDenied").await?;
        let told = ready_condition(&refused).map(|ready| ready.message).unwrap_or_default();
        ensure!(told.contains("vpn.example.com"), "the webhook is not named: {told}");
        there.told::<Mask>("mine", "AdmissionDenied", &["vpn.example.com"]).await?;
        webhook.say(Verdict::Allow);
        heals(bench, &there, &refused).await?;
        webhook.unregister().await
    })
    .await
}

/// The operator gives up first: it cannot know whether its request will be carried out.
#[tokio::test]
async fn a_webhook_that_answers_too_late() -> Result<()> {
    Bench::test("webhook-late", async |bench| {
        let there = neighbours(bench).await?;
        let webhook = Webhook::start(&bench.client, there.name(), &["secrets"], 30, Verdict::Silence).await?;
        there.mask("mine").await?;
        let refused = there.says::<MaskConsumer>("mine", "RequestFailed").await?;
        there.says::<Mask>("mine", "RequestFailed").await?;
        there.told::<Mask>("mine", "RequestFailed", &[]).await?;
        webhook.say(Verdict::Allow);
        same("MaskConsumer", there.active("mine").await?.metadata.uid, refused.metadata.uid)?;
        webhook.unregister().await
    })
    .await
}

#[tokio::test]
async fn a_webhook_that_refuses_locks() -> Result<()> {
    Bench::test("webhook-locks", async |bench| {
        bench.provider("vpn", 1).await?;
        let denied = Verdict::Deny("no locks on a bad day");
        let webhook = Webhook::start(&bench.client, bench.name(), &["maskreservations"], 5, denied).await?;
        let spec = MaskReservationSpec { name: "x".into(), namespace: "x".into(), uid: "x".into() };
        until_denied(bench, MaskReservation::new("probe", spec)).await?;
        bench.mask("mine").await?;
        let refused = bench.says::<MaskConsumer>("mine", "AdmissionDenied").await?;
        bench.says::<Mask>("mine", "AdmissionDenied").await?;
        bench.told::<Mask>("mine", "AdmissionDenied", &["no locks on a bad day"]).await?;
        webhook.say(Verdict::Allow);
        same("MaskConsumer", bench.active("mine").await?.metadata.uid, refused.metadata.uid)?;
        webhook.unregister().await
    })
    .await
}

#[tokio::test]
async fn a_webhook_that_refuses_consumers() -> Result<()> {
    Bench::test("webhook-consumers", async |bench| {
        bench.provider("vpn", 1).await?;
        let denied = Verdict::Deny("no consumers on a bad day");
        let webhook = Webhook::start(&bench.client, bench.name(), &["maskconsumers"], 5, denied).await?;
        until_denied(bench, MaskConsumer::new("probe", Default::default())).await?;
        bench.mask("mine").await?;
        let told = bench.says::<Mask>("mine", "AdmissionDenied").await?;
        let told = ready_condition(&told).map(|ready| ready.message).unwrap_or_default();
        ensure!(told.contains("no consumers on a bad day"), "the webhook's words are not told: {told}");
        bench.told::<Mask>("mine", "AdmissionDenied", &["no consumers on a bad day"]).await?;
        webhook.say(Verdict::Allow);
        bench.active("mine").await?;
        webhook.unregister().await
    })
    .await
}

/// A slot whose release is refused stays taken, by somebody who says so.
#[tokio::test]
async fn a_webhook_that_refuses_deletions() -> Result<()> {
    Bench::test("webhook-deletions", async |bench| {
        bench.provider("vpn", 1).await?;
        let first = bench.active_mask("first").await?;
        bench.mask("second").await?;
        bench.says::<MaskConsumer>("second", "NoFreeSlot").await?;
        let denied = Verdict::Deny("nothing is deleted on a bad day");
        let webhook = Webhook::start(&bench.client, bench.name(), &["secrets"], 5, denied).await?;
        until_denied(bench, a_secret()?).await?;
        bench.delete::<Mask>("first").await?;
        bench.says::<MaskConsumer>("first", "AdmissionDenied").await?;
        bench.told::<Mask>("first", "AdmissionDenied", &["nothing is deleted on a bad day"]).await?;
        webhook.say(Verdict::Allow);
        bench.gone(&first).await?;
        bench.active("second").await?;
        webhook.unregister().await
    })
    .await
}

/// Nothing can be told on the object itself then, so the Event has to.
#[tokio::test]
async fn a_webhook_that_refuses_the_status_of_consumers() -> Result<()> {
    Bench::test("webhook-status", async |bench| {
        let there = neighbours(bench).await?;
        // Whoever cannot commit to a slot gives it back; to try anew takes the lock anew.
        let denied = Verdict::Deny("no statuses on a bad day");
        let webhook = Webhook::start(&bench.client, there.name(), &["maskconsumers/status"], 5, denied).await?;
        let watched = there.create(MaskConsumer::new("probe", Default::default())).await?;
        there.delete::<MaskConsumer>("probe").await?;
        there.gone(&watched).await?;
        there.mask("mine").await?;
        there.told::<Mask>("mine", "AdmissionDenied", &["no statuses on a bad day"]).await?;
        webhook.say(Verdict::Allow);
        there.active("mine").await?;
        there.kubectl(&["wait", "--for=condition=Ready", "mask/mine", "--timeout=60s"]).await?;
        webhook.unregister().await
    })
    .await
}
