//! Pods with a VPN client of their own, which reads the Secret of the slot (`vpn.beebs.dev/sidecar: none`).

use anyhow::{Context, Result, ensure};
use e2e::testing::framework::ensure_eq;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::{
    manifests::{apply, deployment, is_gated, message, runs, template},
    test,
};

/// The name of the Secret, as the containers get it.
fn secret_of(pod: &Pod) -> Option<&str> {
    let app = pod.spec.as_ref()?.containers.first()?;
    app.env.as_ref()?.iter().find(|variable| variable.name == "VPN_SECRET")?.value.as_deref()
}

/// The Secrets in the volume with the credentials.
fn mounted(pod: &Pod) -> Vec<&str> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let volumes = volumes.filter(|volume| volume.name == "vpn-credentials");
    volumes.filter_map(|volume| volume.secret.as_ref()?.secret_name.as_deref()).collect()
}

/// The Pod meets the Pod Security Standard `restricted`, and nothing that the webhook adds violates it.
#[tokio::test]
async fn a_restricted_namespace_admits_a_pod_with_its_own_client() -> Result<()> {
    test("own-restricted", async |f| {
        f.kubectl(&["label", "namespace", f.name(), "pod-security.kubernetes.io/enforce=restricted"]).await?;
        let mut own = template("own", &json!({"vpn.beebs.dev/sidecar": "none"}));
        (own["apiVersion"], own["kind"], own["metadata"]["name"]) = (json!("v1"), json!("Pod"), json!("own"));
        let volume = json!([{"name": "vpn-credentials", "mountPath": "/credentials"}]);
        own["spec"]["containers"][0]["volumeMounts"] = volume;
        let error = apply(f, std::slice::from_ref(&own)).await.err().context("admitted")?.to_string();
        ensure!(error.contains("violates PodSecurity"), "{error}");

        own["spec"]["securityContext"] = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
        let powerless = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        own["spec"]["containers"][0]["securityContext"] = powerless;
        apply(f, &[own]).await?;
        let waits = |pod: &Pod| is_gated(pod) && !message(pod).is_empty();
        let pod = f.wait_until("own", "it waits", waits).await?;
        ensure!(pod.spec.is_some_and(|spec| spec.init_containers.is_none()), "a container was added");
        f.create_provider("vpn", 1).await?;
        let pod = f.wait_until("own", "it runs", runs).await?;
        let secret = secret_of(&pod).context("no VPN_SECRET")?;
        ensure_eq("mounted", mounted(&pod), vec![secret])?;
        let data = f.api::<Secret>().get(secret).await?.data.unwrap_or_default();
        ensure!(data.contains_key("OPENVPN_PASSWORD"), "no credentials");
        Ok(())
    })
    .await
}

fn with_client(volume: Value) -> Value {
    let mut own = deployment("own", 2, &json!({"vpn.beebs.dev/sidecar": "none"}));
    let spec = &mut own["spec"]["template"]["spec"];
    spec["containers"][0]["volumeMounts"] = json!([{"name": "vpn-credentials", "mountPath": "/credentials"}]);
    spec["volumes"] = json!([volume]);
    own
}

/// The API server admits no workload whose containers mount a volume that the template does not have.
#[tokio::test]
async fn the_volume_in_the_template_of_a_workload_gets_the_secret() -> Result<()> {
    test("own-workload", async |f| {
        f.create_provider("vpn", 2).await?;
        apply(f, &[with_client(json!({"name": "vpn-credentials", "emptyDir": {}}))]).await?;
        let both = |pods: &[Pod]| pods.iter().filter(|pod| runs(pod)).count() == 2;
        let pods = f.wait_until_all::<Pod>("both run", both).await?;
        for pod in &pods {
            let secret = secret_of(pod).context("no VPN_SECRET")?;
            ensure_eq(&pod.name_any(), mounted(pod), vec![secret])?;
        }
        ensure!(secret_of(&pods[0]) != secret_of(&pods[1]), "both have the same Secret");
        Ok(())
    })
    .await
}
