//! The API server rejects requests: quotas, policies, terminating namespaces. The affected Mask shows the reason,
//! blocks no slot for others, and is served once the obstacle is gone.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    Framework, History,
    cluster::shared,
    history::{Change, Object},
    pods::usage::owned_pod,
    testing::framework::ensure_eq,
    wait::{Kind, TIMEOUT, await_condition, is_active, is_ready, ready_condition},
};
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::{Namespace, Pod, ResourceQuota, Secret},
};
use kube::{Api, ResourceExt, api::PostParams, runtime::conditions::is_deleted};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskReservation, MaskReservationSpec, MaskSpec};

/// Creates another namespace, and one slot that both namespaces can use.
pub async fn neighbours(f: &Framework) -> Result<Framework> {
    let other = Framework::new(shared::cluster().await?, "neighbour").await?;
    let both = Some(vec![f.name().to_owned(), other.name().to_owned()]);
    f.create_provider_with("vpn", 1, |spec| spec.namespaces = both).await?;
    Ok(other)
}

/// `mine` is rejected in `there`, and its slot goes to `other` in the test's own namespace.
pub async fn steps_aside(f: &Framework, there: &Framework, reason: &str) -> Result<MaskConsumer> {
    there.create_mask("mine").await?;
    let refused = there.wait_for_reason::<MaskConsumer>("mine", reason).await?;
    there.wait_for_reason::<Mask>("mine", reason).await?;
    there.wait_for_event::<Mask>("mine", reason, &[]).await?;
    let other = f.create_active_mask("other").await?;
    let mine = |all: &[MaskReservation]| all.len() == 1 && Some(&all[0].spec.uid) == other.uid().as_ref();
    f.wait_until_all("the lock of the other one only", mine).await?;
    Ok(refused)
}

/// Once the obstacle is gone, the same MaskConsumer is served.
pub async fn heals(f: &Framework, there: &Framework, refused: &MaskConsumer) -> Result<()> {
    f.delete::<Mask>("other").await?;
    let served = there.wait_active("mine").await?;
    ensure_eq("MaskConsumer", served.uid(), refused.uid())?;
    there.kubectl(&["wait", "--for=condition=Ready", "mask/mine", "--timeout=60s"]).await?;
    Ok(())
}

async fn quota(there: &Framework, resource: &str) -> Result<()> {
    there.kubectl(&["create", "quota", "none", &format!("--hard={resource}=0")]).await?;
    // A quota takes effect once the controller manager has processed it.
    let in_force = |quota: &ResourceQuota| quota.status.as_ref().is_some_and(|status| status.hard.is_some());
    there.wait_until("none", "a quota in force", in_force).await.map(drop)
}

#[tokio::test]
async fn a_quota_on_secrets() -> Result<()> {
    Framework::test("quota", async |f| {
        let there = neighbours(f).await?;
        quota(&there, "count/secrets").await?;
        let refused = steps_aside(f, &there, "QuotaExceeded").await?;
        let told = ready_condition(&refused).map(|ready| ready.message).unwrap_or_default();
        ensure!(told.contains("exceeded quota: none"), "the quota is not named: {told}");
        there.kubectl(&["delete", "quota", "none"]).await?;
        heals(f, &there, &refused).await
    })
    .await
}

#[tokio::test]
async fn a_quota_on_consumers() -> Result<()> {
    Framework::test("quota-consumers", async |f| {
        f.create_provider("vpn", 1).await?;
        quota(f, "count/maskconsumers.vpn.beebs.dev").await?;
        f.create_mask("mine").await?;
        f.wait_for_reason::<Mask>("mine", "QuotaExceeded").await?;
        f.wait_for_event::<Mask>("mine", "QuotaExceeded", &["exceeded quota: none"]).await?;
        f.kubectl(&["delete", "quota", "none"]).await?;
        f.wait_active("mine").await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_quota_on_reservations() -> Result<()> {
    Framework::test("quota-locks", async |f| {
        f.create_provider("vpn", 2).await?;
        quota(f, "count/maskreservations.vpn.beebs.dev").await?;
        f.create_mask("mine").await?;
        f.wait_for_reason::<MaskConsumer>("mine", "QuotaExceeded").await?;
        f.wait_for_event::<Mask>("mine", "QuotaExceeded", &["exceeded quota: none"]).await?;
        f.kubectl(&["delete", "quota", "none"]).await?;
        f.wait_active("mine").await.map(drop)
    })
    .await
}

/// Denies the creation of a kind of object in a namespace.
async fn deny(f: &Framework, there: &str, group: &str, resource: &str) -> Result<()> {
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
        "metadata": { "name": f.name() },
        "spec": {
            "matchConstraints": { "resourceRules": [{
                "apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource],
            }] },
            "validations": [{ "expression": "false", "message": "not on a bad day" }],
        },
    }))?;
    let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
        "metadata": { "name": f.name() },
        "spec": {
            "policyName": f.name(),
            "validationActions": ["Deny"],
            "matchResources": { "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": there } } },
        },
    }))?;
    Api::all(f.client.clone()).create(&PostParams::default(), &policy).await?;
    Api::all(f.client.clone()).create(&PostParams::default(), &binding).await?;
    Ok(())
}

/// There is nothing to watch for when a policy takes effect, so this probes with a dry run.
async fn until_denied<K: Kind>(there: &Framework, probe: K) -> Result<()> {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let deadline = Instant::now() + TIMEOUT;
    while there.api::<K>().create(&dry, &probe).await.is_ok() {
        ensure!(Instant::now() < deadline, "the policy is not in force after {TIMEOUT:?}");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn allow(f: &Framework) -> Result<()> {
    f.kubectl(&["delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", f.name()]).await?;
    Ok(())
}

#[tokio::test]
async fn a_policy_against_secrets() -> Result<()> {
    Framework::test("policy-secrets", async |f| {
        let there = neighbours(f).await?;
        deny(f, there.name(), "", "secrets").await?;
        let probe = json!({ "metadata": { "name": "probe" } });
        until_denied::<Secret>(&there, serde_json::from_value(probe)?).await?;
        let refused = steps_aside(f, &there, "AdmissionDenied").await?;
        let told = ready_condition(&refused).map(|ready| ready.message).unwrap_or_default();
        ensure!(told.contains("not on a bad day"), "the policy's message is missing: {told}");
        allow(f).await?;
        heals(f, &there, &refused).await
    })
    .await
}

#[tokio::test]
async fn a_policy_against_reservations() -> Result<()> {
    Framework::test("policy-locks", async |f| {
        f.create_provider("vpn", 1).await?;
        deny(f, f.name(), "vpn.beebs.dev", "maskreservations").await?;
        let spec = MaskReservationSpec { name: "x".into(), namespace: "x".into(), uid: "x".into() };
        until_denied(f, MaskReservation::new("probe", spec)).await?;
        f.create_mask("mine").await?;
        let refused = f.wait_for_reason::<MaskConsumer>("mine", "AdmissionDenied").await?;
        f.wait_for_reason::<Mask>("mine", "AdmissionDenied").await?;
        f.wait_for_event::<Mask>("mine", "AdmissionDenied", &["not on a bad day"]).await?;
        allow(f).await?;
        ensure_eq("MaskConsumer", f.wait_active("mine").await?.uid(), refused.uid())
    })
    .await
}

#[tokio::test]
async fn a_policy_against_consumers() -> Result<()> {
    Framework::test("policy-consumers", async |f| {
        f.create_provider("vpn", 1).await?;
        deny(f, f.name(), "vpn.beebs.dev", "maskconsumers").await?;
        until_denied(f, MaskConsumer::new("probe", Default::default())).await?;
        f.create_mask("mine").await?;
        f.wait_for_reason::<Mask>("mine", "AdmissionDenied").await?;
        f.wait_for_event::<Mask>("mine", "AdmissionDenied", &["not on a bad day"]).await?;
        allow(f).await?;
        f.wait_until("mine", "Ready", |mask: &Mask| is_ready(mask)).await.map(drop)
    })
    .await
}

async fn delete_namespace(there: &Framework) -> Result<()> {
    there.kubectl(&["delete", "namespace", there.name(), "--wait=false"]).await.map(drop)
}

async fn namespace_gone(there: &Framework) -> Result<()> {
    let api: Api<Namespace> = Api::all(there.client.clone());
    let uid = api.get(there.name()).await.ok().and_then(|namespace| namespace.uid());
    let Some(uid) = uid else { return Ok(()) };
    let gone = timeout(TIMEOUT, await_condition(api, there.name(), is_deleted(&uid))).await;
    gone.with_context(|| format!("namespace {} is still there\n{}", there.name(), there.namespace.dump()))??;
    Ok(())
}

#[tokio::test]
async fn a_namespace_of_users_goes() -> Result<()> {
    Framework::test("users-go", async |f| {
        let there = neighbours(f).await?;
        let (mut here, mut away) =
            (History::start(&f.client, Some(f.name())).await?, History::start(&f.client, Some(there.name())).await?);
        let first = there.create_active_mask("mine").await?;
        let pod = there.run_pod(owned_pod("user", &first, 2)?).await?;
        there.create_mask("waits").await?;
        there.wait_for_reason::<MaskConsumer>("waits", "NoFreeSlot").await?;
        // Its priority puts it behind all Masks of the other namespace, unless that is deleted.
        f.create(Mask::new("next", MaskSpec { priority: Some(-1), ..Default::default() })).await?;
        f.wait_for_reason::<MaskConsumer>("next", "NoFreeSlot").await?;
        delete_namespace(&there).await?;
        f.wait_active("next").await?;
        namespace_gone(&there).await?;

        let ended = |change: &&Change| change.deleted && Some(change.object.uid()) == pod.uid();
        let ended = away.changes().await?.iter().find(ended).context("the end of the Pod")?.version;
        let is_next = |object: &Object| matches!(object, Object::Consumer(consumer) if is_active(consumer));
        let active = here.changes().await?.iter().find(|change| is_next(&change.object)).context("next")?.version;
        ensure!(ended < active, "next Active at {active}, the Pod gone at {ended}");
        let one = |all: &[MaskReservation]| all.len() == 1;
        f.wait_until_all("one reservation", one).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn the_namespace_of_a_provider_goes() -> Result<()> {
    Framework::test("provider-goes", async |f| {
        let there = Framework::new(shared::cluster().await?, "accounts").await?;
        let users = Some(vec![f.name().to_owned()]);
        let provider = there.create_provider_with("vpn", 2, |spec| spec.namespaces = users).await?;
        let consumer = f.create_active_mask("mine").await?;
        let pod = f.run_pod(owned_pod("user", &consumer, 1)?).await?;
        delete_namespace(&there).await?;
        f.wait_deleted::<Pod>(&pod).await?;
        f.wait_deleted(&consumer).await?;
        there.wait_deleted::<MaskProvider>(&provider).await?;
        namespace_gone(&there).await?;
        f.wait_for_event::<Mask>("mine", "Evicted", &["vpn"]).await?;
        f.wait_for_reason::<Mask>("mine", "NoProviderFits").await?;
        f.wait_for_event::<Mask>("mine", "NoProviderFits", &[f.name()]).await
    })
    .await
}
