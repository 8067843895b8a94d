//! The API server says no: quotas, policies, namespaces that are going away. Who is refused says why, keeps no slot from
//! others, and is served once the obstacle is gone.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    Bench, History,
    cluster::shared,
    history::{Moment, Seen},
    pods::usage::user_pod,
    testing::bench::same,
    wait::{Kind, LIMIT, is_active, is_ready, ready_condition},
};
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::{Namespace, Pod, ResourceQuota, Secret},
};
use kube::{
    Api, ResourceExt,
    api::PostParams,
    runtime::{conditions::is_deleted, wait::await_condition},
};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskReservation, MaskReservationSpec, MaskSpec};

/// A namespace beside that of the test, and one slot in the latter for both.
pub async fn neighbours(bench: &Bench) -> Result<Bench> {
    let other = Bench::new(shared::cluster().await?, "neighbour").await?;
    let both = Some(vec![bench.name().to_owned(), other.name().to_owned()]);
    bench.provider_with("vpn", 1, |spec| spec.namespaces = both).await?;
    Ok(other)
}

/// `mine` is refused in `there`; what it cannot use goes to `other` in the test's own namespace.
pub async fn steps_aside(bench: &Bench, there: &Bench, reason: &str) -> Result<MaskConsumer> {
    there.mask("mine").await?;
    let refused = there.says::<MaskConsumer>("mine", reason).await?;
    there.says::<Mask>("mine", reason).await?;
    there.told::<Mask>("mine", reason, &[]).await?;
    let other = bench.active_mask("other").await?;
    let mine = |all: &[MaskReservation]| all.len() == 1 && Some(&all[0].spec.uid) == other.uid().as_ref();
    bench.until_all("the lock of the other one only", mine).await?;
    Ok(refused)
}

/// Once nothing is in its way any more, the same MaskConsumer is served.
pub async fn heals(bench: &Bench, there: &Bench, refused: &MaskConsumer) -> Result<()> {
    bench.delete::<Mask>("other").await?;
    let served = there.active("mine").await?;
    same("MaskConsumer", served.uid(), refused.uid())?;
    there.kubectl(&["wait", "--for=condition=Ready", "mask/mine", "--timeout=60s"]).await?;
    Ok(())
}

async fn quota(there: &Bench, resource: &str) -> Result<()> {
    there.kubectl(&["create", "quota", "none", &format!("--hard={resource}=0")]).await?;
    // It counts from when the controller manager has looked at it.
    let in_force = |quota: &ResourceQuota| quota.status.as_ref().is_some_and(|status| status.hard.is_some());
    there.until("none", "a quota in force", in_force).await.map(drop)
}

#[tokio::test]
async fn a_quota_on_secrets() -> Result<()> {
    Bench::test("quota", async |bench| {
        let there = neighbours(bench).await?;
        quota(&there, "count/secrets").await?;
        let refused = steps_aside(bench, &there, "QuotaExceeded").await?;
        let told = ready_condition(&refused).map(|ready| ready.message).unwrap_or_default();
        ensure!(told.contains("exceeded quota: none"), "the quota is not named: {told}");
        there.kubectl(&["delete", "quota", "none"]).await?;
        heals(bench, &there, &refused).await
    })
    .await
}

#[tokio::test]
async fn a_quota_on_consumers() -> Result<()> {
    Bench::test("quota-consumers", async |bench| {
        bench.provider("vpn", 1).await?;
        quota(bench, "count/maskconsumers.vpn.beebs.dev").await?;
        bench.mask("mine").await?;
        bench.says::<Mask>("mine", "QuotaExceeded").await?;
        bench.told::<Mask>("mine", "QuotaExceeded", &["exceeded quota: none"]).await?;
        bench.kubectl(&["delete", "quota", "none"]).await?;
        bench.active("mine").await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_quota_on_reservations() -> Result<()> {
    Bench::test("quota-locks", async |bench| {
        bench.provider("vpn", 2).await?;
        quota(bench, "count/maskreservations.vpn.beebs.dev").await?;
        bench.mask("mine").await?;
        bench.says::<MaskConsumer>("mine", "QuotaExceeded").await?;
        bench.told::<Mask>("mine", "QuotaExceeded", &["exceeded quota: none"]).await?;
        bench.kubectl(&["delete", "quota", "none"]).await?;
        bench.active("mine").await.map(drop)
    })
    .await
}

/// Denies to create objects of a kind in a namespace.
async fn deny(bench: &Bench, there: &str, group: &str, resource: &str) -> Result<()> {
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
        "metadata": { "name": bench.name() },
        "spec": {
            "matchConstraints": { "resourceRules": [{
                "apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource],
            }] },
            "validations": [{ "expression": "false", "message": "not on a bad day" }],
        },
    }))?;
    let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
        "metadata": { "name": bench.name() },
        "spec": {
            "policyName": bench.name(),
            "validationActions": ["Deny"],
            "matchResources": { "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": there } } },
        },
    }))?;
    Api::all(bench.client.clone()).create(&PostParams::default(), &policy).await?;
    Api::all(bench.client.clone()).create(&PostParams::default(), &binding).await?;
    Ok(())
}

/// Nothing to watch tells that a policy is in force: it is tried out, without creating anything.
async fn until_denied<K: Kind>(there: &Bench, probe: K) -> Result<()> {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let deadline = Instant::now() + LIMIT;
    while there.api::<K>().create(&dry, &probe).await.is_ok() {
        ensure!(Instant::now() < deadline, "the policy is not in force after {LIMIT:?}");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn allow(bench: &Bench) -> Result<()> {
    bench.kubectl(&["delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", bench.name()]).await?;
    Ok(())
}

#[tokio::test]
async fn a_policy_against_secrets() -> Result<()> {
    Bench::test("policy-secrets", async |bench| {
        let there = neighbours(bench).await?;
        deny(bench, there.name(), "", "secrets").await?;
        let probe = json!({ "metadata": { "name": "probe" } });
        until_denied::<Secret>(&there, serde_json::from_value(probe)?).await?;
        let refused = steps_aside(bench, &there, "AdmissionDenied").await?;
        let told = ready_condition(&refused).map(|ready| ready.message).unwrap_or_default();
        ensure!(told.contains("not on a bad day"), "the policy's words are not told: {told}");
        allow(bench).await?;
        heals(bench, &there, &refused).await
    })
    .await
}

#[tokio::test]
async fn a_policy_against_reservations() -> Result<()> {
    Bench::test("policy-locks", async |bench| {
        bench.provider("vpn", 1).await?;
        deny(bench, bench.name(), "vpn.beebs.dev", "maskreservations").await?;
        let spec = MaskReservationSpec { name: "x".into(), namespace: "x".into(), uid: "x".into() };
        until_denied(bench, MaskReservation::new("probe", spec)).await?;
        bench.mask("mine").await?;
        let refused = bench.says::<MaskConsumer>("mine", "AdmissionDenied").await?;
        bench.says::<Mask>("mine", "AdmissionDenied").await?;
        bench.told::<Mask>("mine", "AdmissionDenied", &["not on a bad day"]).await?;
        allow(bench).await?;
        same("MaskConsumer", bench.active("mine").await?.uid(), refused.uid())
    })
    .await
}

#[tokio::test]
async fn a_policy_against_consumers() -> Result<()> {
    Bench::test("policy-consumers", async |bench| {
        bench.provider("vpn", 1).await?;
        deny(bench, bench.name(), "vpn.beebs.dev", "maskconsumers").await?;
        until_denied(bench, MaskConsumer::new("probe", Default::default())).await?;
        bench.mask("mine").await?;
        bench.says::<Mask>("mine", "AdmissionDenied").await?;
        bench.told::<Mask>("mine", "AdmissionDenied", &["not on a bad day"]).await?;
        allow(bench).await?;
        bench.until("mine", "Ready", |mask: &Mask| is_ready(mask)).await.map(drop)
    })
    .await
}

async fn delete_namespace(there: &Bench) -> Result<()> {
    there.kubectl(&["delete", "namespace", there.name(), "--wait=false"]).await.map(drop)
}

async fn namespace_gone(there: &Bench) -> Result<()> {
    let api: Api<Namespace> = Api::all(there.client.clone());
    let uid = api.get(there.name()).await.ok().and_then(|namespace| namespace.uid());
    let Some(uid) = uid else { return Ok(()) };
    let gone = timeout(LIMIT, await_condition(api, there.name(), is_deleted(&uid))).await;
    gone.with_context(|| format!("namespace {} is still there\n{}", there.name(), there.namespace.dump()))??;
    Ok(())
}

#[tokio::test]
async fn a_namespace_of_users_goes() -> Result<()> {
    Bench::test("users-go", async |bench| {
        let there = neighbours(bench).await?;
        let (mut here, mut away) = (
            History::start(&bench.client, Some(bench.name())).await?,
            History::start(&bench.client, Some(there.name())).await?,
        );
        let first = there.active_mask("mine").await?;
        let pod = there.run_pod(user_pod("user", &first, 2)?).await?;
        there.mask("waits").await?;
        there.says::<MaskConsumer>("waits", "NoFreeSlot").await?;
        // Behind all of the other namespace, were that to stay.
        bench.create(Mask::new("next", MaskSpec { priority: Some(-1), ..Default::default() })).await?;
        bench.says::<MaskConsumer>("next", "NoFreeSlot").await?;
        delete_namespace(&there).await?;
        bench.active("next").await?;
        namespace_gone(&there).await?;

        let ended = |moment: &&Moment| moment.gone && Some(moment.seen.uid()) == pod.uid();
        let ended = away.moments().await?.iter().find(ended).context("the end of the Pod")?.version;
        let is_next = |seen: &Seen| matches!(seen, Seen::Consumer(consumer) if is_active(consumer));
        let active = here.moments().await?.iter().find(|moment| is_next(&moment.seen)).context("next")?.version;
        ensure!(ended < active, "next Active at {active}, the Pod gone at {ended}");
        let one = |all: &[MaskReservation]| all.len() == 1;
        bench.until_all("one reservation", one).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn the_namespace_of_a_provider_goes() -> Result<()> {
    Bench::test("provider-goes", async |bench| {
        let there = Bench::new(shared::cluster().await?, "accounts").await?;
        let users = Some(vec![bench.name().to_owned()]);
        let provider = there.provider_with("vpn", 2, |spec| spec.namespaces = users).await?;
        let consumer = bench.active_mask("mine").await?;
        let pod = bench.run_pod(user_pod("user", &consumer, 1)?).await?;
        delete_namespace(&there).await?;
        bench.gone::<Pod>(&pod).await?;
        bench.gone(&consumer).await?;
        there.gone::<MaskProvider>(&provider).await?;
        namespace_gone(&there).await?;
        bench.told::<Mask>("mine", "Evicted", &["vpn"]).await?;
        bench.says::<Mask>("mine", "NoProviderFits").await?;
        bench.told::<Mask>("mine", "NoProviderFits", &[bench.name()]).await
    })
    .await
}
