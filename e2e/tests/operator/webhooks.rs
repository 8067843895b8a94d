//! Admission webhooks that deny or do not answer. The affected Mask shows the reason, blocks no slot for others, and is
//! served once the webhook allows it.

use anyhow::{Result, ensure};
use e2e::{
    Framework,
    testing::{
        framework::ensure_eq,
        webhook::{Verdict, Webhook},
    },
    wait::{Kind, TIMEOUT, ready_condition},
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};
use vpn_types::{Mask, MaskConsumer, MaskConsumerSpec, MaskReservation, MaskReservationSpec};

use super::refusals::{heals, neighbours, steps_aside};

/// Waits until the API server does not create this object.
async fn until_denied<K: Kind>(there: &Framework, probe: K) -> Result<()> {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    until_in_force(async || there.api::<K>().create(&dry, &probe).await).await
}

/// There is nothing to watch for when a webhook takes effect, so this probes with a dry run.
async fn until_in_force<K>(probe: impl AsyncFn() -> kube::Result<K>) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while probe().await.is_ok() {
        ensure!(Instant::now() < deadline, "the webhook is not in force after {TIMEOUT:?}");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn a_secret() -> Result<Secret> {
    Ok(serde_json::from_value(json!({ "metadata": { "name": "probe" } }))?)
}

#[tokio::test]
async fn a_webhook_that_refuses_secrets() -> Result<()> {
    Framework::test("webhook-denies", async |f| {
        let there = neighbours(f).await?;
        let denied = Verdict::Deny("no Secrets on a bad day");
        let webhook = Webhook::start(&f.client, there.name(), &["secrets"], 5, denied).await?;
        until_denied(&there, a_secret()?).await?;
        let refused = steps_aside(f, &there, "AdmissionDenied").await?;
        let told = ready_condition(&refused).map(|ready| ready.message).unwrap_or_default();
        ensure!(told.contains("no Secrets on a bad day"), "the webhook's message is missing: {told}");
        there.wait_for_event::<Mask>("mine", "AdmissionDenied", &["no Secrets on a bad day"]).await?;
        webhook.set_verdict(Verdict::Allow);
        heals(f, &there, &refused).await?;
        webhook.unregister().await
    })
    .await
}

/// The API server times out the webhook, and reports it.
#[tokio::test]
async fn a_webhook_that_does_not_answer_in_its_time() -> Result<()> {
    Framework::test("webhook-silent", async |f| {
        let there = neighbours(f).await?;
        let webhook = Webhook::start(&f.client, there.name(), &["secrets"], 1, Verdict::NoResponse).await?;
        until_denied(&there, a_secret()?).await?;
        let refused = steps_aside(f, &there, "AdmissionDenied").await?;
        let told = ready_condition(&refused).map(|ready| ready.message).unwrap_or_default();
        ensure!(told.contains("vpn.example.com"), "the webhook is not named: {told}");
        there.wait_for_event::<Mask>("mine", "AdmissionDenied", &["vpn.example.com"]).await?;
        webhook.set_verdict(Verdict::Allow);
        heals(f, &there, &refused).await?;
        webhook.unregister().await
    })
    .await
}

/// The operator times out first, so it cannot know whether its request will succeed.
#[tokio::test]
async fn a_webhook_that_answers_too_late() -> Result<()> {
    Framework::test("webhook-late", async |f| {
        let there = neighbours(f).await?;
        let webhook = Webhook::start(&f.client, there.name(), &["secrets"], 30, Verdict::Deny("not yet")).await?;
        until_denied(&there, a_secret()?).await?;
        webhook.set_verdict(Verdict::NoResponse);
        there.create_mask("mine").await?;
        let refused = there.wait_for_reason::<MaskConsumer>("mine", "RequestFailed").await?;
        there.wait_for_reason::<Mask>("mine", "RequestFailed").await?;
        there.wait_for_event::<Mask>("mine", "RequestFailed", &[]).await?;
        webhook.set_verdict(Verdict::Allow);
        ensure_eq("MaskConsumer", there.wait_active("mine").await?.metadata.uid, refused.metadata.uid)?;
        webhook.unregister().await
    })
    .await
}

#[tokio::test]
async fn a_webhook_that_refuses_locks() -> Result<()> {
    Framework::test("webhook-locks", async |f| {
        f.create_provider("vpn", 1).await?;
        let denied = Verdict::Deny("no locks on a bad day");
        let webhook = Webhook::start(&f.client, f.name(), &["maskreservations"], 5, denied).await?;
        let spec = MaskReservationSpec { name: "x".into(), namespace: "x".into(), uid: "x".into() };
        until_denied(f, MaskReservation::new("probe", spec)).await?;
        f.create_mask("mine").await?;
        let refused = f.wait_for_reason::<MaskConsumer>("mine", "AdmissionDenied").await?;
        f.wait_for_reason::<Mask>("mine", "AdmissionDenied").await?;
        f.wait_for_event::<Mask>("mine", "AdmissionDenied", &["no locks on a bad day"]).await?;
        webhook.set_verdict(Verdict::Allow);
        ensure_eq("MaskConsumer", f.wait_active("mine").await?.metadata.uid, refused.metadata.uid)?;
        webhook.unregister().await
    })
    .await
}

#[tokio::test]
async fn a_webhook_that_refuses_consumers() -> Result<()> {
    Framework::test("webhook-consumers", async |f| {
        f.create_provider("vpn", 1).await?;
        let denied = Verdict::Deny("no consumers on a bad day");
        let webhook = Webhook::start(&f.client, f.name(), &["maskconsumers"], 5, denied).await?;
        until_denied(f, MaskConsumer::new("probe", Default::default())).await?;
        f.create_mask("mine").await?;
        let told = f.wait_for_reason::<Mask>("mine", "AdmissionDenied").await?;
        let told = ready_condition(&told).map(|ready| ready.message).unwrap_or_default();
        ensure!(told.contains("no consumers on a bad day"), "the webhook's message is missing: {told}");
        f.wait_for_event::<Mask>("mine", "AdmissionDenied", &["no consumers on a bad day"]).await?;
        webhook.set_verdict(Verdict::Allow);
        f.wait_active("mine").await?;
        webhook.unregister().await
    })
    .await
}

/// A slot whose release is denied stays in use, and its MaskConsumer shows the reason.
#[tokio::test]
async fn a_webhook_that_refuses_deletions() -> Result<()> {
    Framework::test("webhook-deletions", async |f| {
        f.create_provider("vpn", 1).await?;
        let first = f.create_active_mask("first").await?;
        f.create_mask("second").await?;
        f.wait_for_reason::<MaskConsumer>("second", "NoFreeSlot").await?;
        let denied = Verdict::Deny("nothing is deleted on a bad day");
        let webhook = Webhook::start(&f.client, f.name(), &["secrets"], 5, denied).await?;
        until_denied(f, a_secret()?).await?;
        f.delete::<Mask>("first").await?;
        f.wait_for_reason::<MaskConsumer>("first", "AdmissionDenied").await?;
        f.wait_for_event::<Mask>("first", "AdmissionDenied", &["nothing is deleted on a bad day"]).await?;
        webhook.set_verdict(Verdict::Allow);
        f.wait_deleted(&first).await?;
        f.wait_active("second").await?;
        webhook.unregister().await
    })
    .await
}

/// The status cannot show the reason, so the Event does.
#[tokio::test]
async fn a_webhook_that_refuses_the_status_of_consumers() -> Result<()> {
    Framework::test("webhook-status", async |f| {
        let there = neighbours(f).await?;
        // A MaskConsumer that cannot commit to a slot releases it, and each retry creates a new MaskReservation.
        let denied = Verdict::Deny("no statuses on a bad day");
        let webhook = Webhook::start(&f.client, there.name(), &["maskconsumers/status"], 5, denied).await?;
        // No provider fits, so it holds no slot if the operator is faster than the webhook.
        let unfit = MaskConsumerSpec { providers: Some(vec!["none".to_owned()]), ..Default::default() };
        there.create(MaskConsumer::new("unfit", unfit)).await?;
        let dry = PatchParams { dry_run: true, ..PatchParams::default() };
        let status = Patch::Merge(json!({ "status": { "phase": "Waiting" } }));
        until_in_force(async || there.api::<MaskConsumer>().patch_status("unfit", &dry, &status).await).await?;
        there.delete::<MaskConsumer>("unfit").await?;
        let watched = there.create(MaskConsumer::new("probe", Default::default())).await?;
        there.delete::<MaskConsumer>("probe").await?;
        there.wait_deleted(&watched).await?;
        there.create_mask("mine").await?;
        there.wait_for_event::<Mask>("mine", "AdmissionDenied", &["no statuses on a bad day"]).await?;
        webhook.set_verdict(Verdict::Allow);
        there.wait_active("mine").await?;
        there.kubectl(&["wait", "--for=condition=Ready", "mask/mine", "--timeout=60s"]).await?;
        webhook.unregister().await
    })
    .await
}
