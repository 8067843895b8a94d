//! Pods that the webhook rejects, with a message that tells the user what to do.

use std::time::Instant;

use anyhow::{Result, ensure};
use e2e::{Framework, wait::TIMEOUT};
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use kube::ResourceExt;
use serde_json::{Value, json};
use vpn_types::{Mask, MaskSpec};

use crate::{
    manifests::{apply, deployment, is_gated, message, pod, runs},
    test,
};

async fn refused(f: &Framework, annotations: Value, spec: Value, words: &[&str]) -> Result<()> {
    let mut refused = serde_json::to_value(pod("refused", &annotations)?)?;
    for (field, value) in spec.as_object().into_iter().flatten() {
        refused["spec"][field] = value.clone();
    }
    let error = match f.create::<Pod>(serde_json::from_value(refused)?).await {
        Ok(_) => anyhow::bail!("admitted: {annotations} {spec}"),
        Err(error) => format!("{error:#}"),
    };
    for word in words.iter().chain(&["vpn-operator:"]) {
        ensure!(error.contains(word), "{word:?} is not in: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_injected_is_refused() -> Result<()> {
    test("refused", async |f| {
        let annotations = [
            ("priority", "high", "expected an integer"),
            ("outbound-subnets", "10.0.0.0", "10.0.0.0/8"),
            ("input-ports", "http", "expected ports"),
            ("resources", "64Mi", "expected JSON"),
            ("sidecar", "off", "expected gluetun or none"),
            ("surge", "no", "expected evict or wait"),
            ("mask", "nobody", "there is no Mask nobody"),
            ("image", "", "expected an image"),
            ("provider", "uk", "expected one of providers"),
        ];
        for (name, value, why) in annotations {
            let name = format!("vpn.beebs.dev/{name}");
            refused(f, json!({&name: value}), json!({}), &[&name, why]).await?;
        }
        refused(f, json!({}), json!({"hostNetwork": true}), &["remove hostNetwork"]).await?;
        refused(f, json!({}), json!({"nodeName": "kwok-node-0"}), &["use nodeSelector"]).await?;
        let second = json!({"containers": [{"name": "vpn", "image": "qmcgaw/gluetun"}]});
        refused(f, json!({}), second, &["vpn.beebs.dev/sidecar: none"]).await
    })
    .await
}

#[tokio::test]
async fn the_workload_says_why_its_pods_are_refused() -> Result<()> {
    test("restricted", async |f| {
        let level = "pod-security.kubernetes.io/enforce=baseline";
        f.kubectl(&["label", "namespace", f.name(), level]).await?;
        apply(f, &[deployment("scraper", 1, &json!({}))]).await?;
        let sets = f.wait_until_all::<ReplicaSet>("a ReplicaSet", |sets| !sets.is_empty()).await?;
        let name = sets[0].name_any();
        f.wait_for_event::<ReplicaSet>(&name, "FailedCreate", &["NET_ADMIN", "enforce: privileged"]).await?;
        // The workload recovers once the namespace is corrected.
        f.create_provider("vpn", 1).await?;
        f.kubectl(&["label", "namespace", f.name(), "pod-security.kubernetes.io/enforce-"]).await?;
        f.kubectl(&["rollout", "restart", "deployment/scraper"]).await?;
        f.wait_until_all::<Pod>("it runs", |pods| pods.iter().any(runs)).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn an_admitted_pod_stays_as_it_is() -> Result<()> {
    test("again", async |f| {
        let mut manifest = serde_json::to_value(pod("one", &json!({}))?)?;
        (manifest["apiVersion"], manifest["kind"]) = (json!("v1"), json!("Pod"));
        let file = tempfile::Builder::new().suffix(".json").tempfile()?;
        std::fs::write(file.path(), manifest.to_string())?;
        let path = file.path().to_str().unwrap_or_default();
        let apply = ["apply", "--server-side", "--field-manager=delivery", "-f", path];
        f.kubectl(&apply).await?;
        f.wait_until::<Pod>("one", "it waits", |pod| is_gated(pod) && !message(pod).is_empty()).await?;
        // A GitOps tool sees no difference, and its next apply changes nothing.
        f.kubectl(&["diff", "--server-side", "--field-manager=delivery", "-f", path]).await?;
        let before = f.api::<Pod>().get("one").await?;
        f.kubectl(&apply).await?;
        let after = f.api::<Pod>().get("one").await?;
        ensure!(before.spec == after.spec, "the Pod changed");
        f.create_provider("vpn", 1).await?;
        f.wait_until("one", "it runs", runs).await?;
        f.kubectl(&["diff", "--server-side", "--field-manager=delivery", "-f", path]).await.map(drop)
    })
    .await
}

/// As a policy engine may do.
#[tokio::test]
async fn the_pod_says_if_its_gate_cannot_be_removed() -> Result<()> {
    test("frozen", async |f| {
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": f.name()},
            "spec": {
                "matchConstraints": {"resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods"]},
                ]},
                "validations": [{"expression": "false", "message": "Pods are frozen"}],
            },
        });
        let here = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": f.name()}}});
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": f.name()},
            "spec": {"policyName": f.name(), "validationActions": ["Deny"], "matchResources": here},
        });
        apply(f, &[policy, binding]).await?;
        f.create(pod("one", &json!({}))?).await?;
        let deadline = Instant::now() + TIMEOUT;
        while f.kubectl(&["label", "pod/one", "some=label", "--dry-run=server"]).await.is_ok() {
            ensure!(Instant::now() < deadline, "the policy is not in force");
        }
        f.create_provider("vpn", 1).await?;
        let words = ["A slot is assigned, but the scheduling gate cannot be removed", "Pods are frozen"];
        let says = |pod: &Pod| words.iter().all(|word| message(pod).contains(word));
        f.wait_until("one", "its condition says what is wrong", says).await?;
        f.wait_for_event::<Pod>("one", "AdmissionDenied", &words).await?;
        f.kubectl(&["delete", "validatingadmissionpolicybinding", f.name()]).await?;
        f.wait_until("one", "running", runs).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn the_name_of_a_secret_cannot_be_changed() -> Result<()> {
    test("immutable", async |f| {
        f.create(Mask::new("one", MaskSpec { secret_name: Some("first".to_owned()), ..Default::default() })).await?;
        let change = f.patch::<Mask>("one", json!({"spec": {"secretName": "second"}})).await;
        ensure!(change.is_err_and(|why| why.to_string().contains("spec.secretName cannot be changed")), "changed");
        f.create_mask("two").await?;
        let added = f.patch::<Mask>("two", json!({"spec": {"secretName": "second"}})).await;
        ensure!(added.is_err(), "added later");
        f.create_provider("vpn", 1).await?;
        let consumer = f.wait_active("one").await?;
        let secret = consumer.status.and_then(|status| status.provider).map(|provider| provider.secret);
        ensure!(secret.as_deref() == Some("first"), "{secret:?}");
        Ok(())
    })
    .await
}
