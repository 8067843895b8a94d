//! What users read: Events, conditions, and the labels of the operator's objects.

use anyhow::{Context, Result, ensure};
use e2e::{Framework, pods::usage::owned_pod, testing::framework::ensure_eq};
use k8s_openapi::{
    api::{
        core::v1::{LimitRange, ResourceQuota},
        events::v1::Event,
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use serde_json::{Value, json};
use vpn_types::{Mask, MaskProvider, VERIFIED};

/// Several Pods on one slot are several devices. An Event reports them when the slot is released.
#[tokio::test]
async fn pods_that_share_a_slot_are_named() -> Result<()> {
    Framework::test("shared-slot", async |f| {
        f.create_provider("vpn", 1).await?;
        let consumer = f.create_active_mask("mine").await?;
        for name in ["one", "two"] {
            f.run_pod(owned_pod(name, &consumer, 1)?).await?;
        }
        f.delete::<Mask>("mine").await?;
        f.wait_for_event::<Mask>("mine", "SlotShared", &["one", "two"]).await?;
        f.wait_deleted(&consumer).await
    })
    .await
}

#[tokio::test]
async fn labels_of_delivery_tools_stay_on_the_mask() -> Result<()> {
    Framework::test("labels", async |f| {
        f.create_provider("vpn", 1).await?;
        f.create::<Mask>(serde_json::from_value(json!({
            "apiVersion": "vpn.beebs.dev/v1",
            "kind": "Mask",
            "metadata": {
                "name": "from-git",
                "labels": {
                    "argocd.argoproj.io/instance": "media",
                    "app.kubernetes.io/instance": "media",
                    "app.kubernetes.io/managed-by": "Helm",
                    "helm.sh/chart": "media-1.0.0",
                    "kustomize.toolkit.fluxcd.io/name": "media",
                    "team": "x",
                },
            },
            "spec": {},
        }))?)
        .await?;
        let consumer = f.wait_active("from-git").await?;
        let labels: Vec<_> = consumer.metadata.labels.unwrap_or_default().into_iter().collect();
        ensure_eq("labels", labels, vec![("team".to_owned(), "x".to_owned())])
    })
    .await
}

fn verified(provider: &MaskProvider) -> Option<&Condition> {
    let mut conditions = provider.status.as_ref()?.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == VERIFIED)
}

/// Creates a provider with verification, and waits until its `Verified` condition has this reason.
async fn refused_verification(f: &Framework, verify: Value, reason: &str) -> Result<Condition> {
    f.create_credentials("vpn").await?;
    let mut provider = f.new_provider("vpn", 1);
    provider.spec.verify = Some(serde_json::from_value(verify)?);
    f.create(provider).await?;
    let refused = |provider: &MaskProvider| verified(provider).is_some_and(|condition| condition.reason == reason);
    let provider = f.wait_until("vpn", reason, refused).await?;
    verified(&provider).cloned().context("no condition")
}

#[tokio::test]
async fn a_quota_that_demands_limits_is_no_missing_permission() -> Result<()> {
    Framework::test("quota-limits", async |f| {
        f.create::<ResourceQuota>(serde_json::from_value(json!({
            "metadata": { "name": "limits" },
            "spec": { "hard": { "limits.memory": "1Gi", "limits.cpu": "2" } },
        }))?)
        .await?;
        let in_force = |quota: &ResourceQuota| quota.status.as_ref().is_some_and(|status| status.used.is_some());
        f.wait_until("limits", "a quota in force", in_force).await?;
        let condition = refused_verification(f, json!({}), "QuotaExceeded").await?;
        for word in ["must specify limits.cpu", "verify.resources", "spec.verify.overrides.containers"] {
            ensure!(condition.message.contains(word), "{word} is not in {}", condition.message);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_limit_range_is_no_missing_permission() -> Result<()> {
    Framework::test("limit-range", async |f| {
        f.create::<LimitRange>(serde_json::from_value(json!({
            "metadata": { "name": "at-most" },
        "spec": { "limits": [{ "type": "Container", "max": { "memory": "64Mi" } }] },
        }))?)
        .await?;
        let resources = json!({ "limits": { "memory": "1Gi" } });
        let verify = json!({ "overrides": { "containers": { "vpn": { "resources": resources } } } });
        let condition = refused_verification(f, verify, "LimitRangeExceeded").await?;
        for word in ["memory", "verify.resources", "spec.verify.overrides.containers"] {
            ensure!(condition.message.contains(word), "{word} is not in {}", condition.message);
        }
        Ok(())
    })
    .await
}

/// A verification in progress is not a warning.
#[tokio::test]
async fn a_verification_under_way_is_a_normal_event() -> Result<()> {
    Framework::test("verifying", async |f| {
        f.create_credentials("vpn").await?;
        let mut provider = f.new_provider("vpn", 1);
        provider.spec.verify = None;
        f.create(provider).await?;
        let is_it = |event: &&Event| event.reason.as_deref() == Some("Verifying");
        let events = f.wait_until_all::<Event>("an Event Verifying", |all| all.iter().any(|one| is_it(&one))).await?;
        for event in events.iter().filter(is_it) {
            ensure_eq("type", event.type_.as_deref(), Some("Normal"))?;
        }
        Ok(())
    })
    .await
}
