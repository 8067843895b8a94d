//! Pods with a VPN client of their own (`vpn.beebs.dev/sidecar: none`), which reads the Secret of the slot from the
//! volume `vpn-credentials`.

use anyhow::{Result, ensure};
use e2e::{
    node::images,
    testing::framework::ensure_eq,
    vpn::{CONFIG_FILE, VpnService},
};
use k8s_openapi::api::core::v1::{Pod, Secret};
use serde_json::{Value, json};
use vpn_types::{Mask, MaskSpec};

use crate::injection::{apply, deployment, most_at_once, seen, wait_for_ready, with_slots};

/// Two replicas of a Deployment, whose Pods have the VPN client of the test bed as their own.
fn replicas(vpn: &VpnService, mut annotations: Value) -> Value {
    annotations["vpn.beebs.dev/sidecar"] = json!("none");
    let mut own = deployment("own", vpn, 2, annotations);
    let start = format!(
        "for file in /credentials/*; do
           key=${{file##*/}}
           case $key in *.*) ;; *) export \"$key=$(cat \"$file\")\" ;; esac
         done
         export OPENVPN_CUSTOM_CONFIG=/credentials/{CONFIG_FILE}
         exec /gluetun-entrypoint"
    );
    let spec = &mut own["spec"]["template"]["spec"];
    spec["initContainers"] = json!([{
        "name": "vpn",
        "image": images::GLUETUN,
        "restartPolicy": "Always",
        "command": ["sh", "-c", start],
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
        "startupProbe": {
            "exec": {"command": ["/gluetun-entrypoint", "healthcheck"]}, "periodSeconds": 1, "failureThreshold": 120,
        },
        "volumeMounts": [{"name": "vpn-credentials", "mountPath": "/credentials"}],
    }]);
    spec["volumes"] = json!([{"name": "vpn-credentials", "emptyDir": {}}]);
    own
}

fn has_begun(pod: &Pod) -> bool {
    let is_bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let has_status = pod.status.as_ref().is_some_and(|status| status.init_container_statuses.is_some());
    is_bound || has_status
}

/// Only one of two Pods runs, behind the VPN. When it is deleted, the next one runs.
async fn one_after_the_other(annotations: Value) -> Result<()> {
    with_slots(1, async |f, vpn, history| {
        let spec = MaskSpec { secret_name: Some("login".to_owned()), ..MaskSpec::default() };
        let is_shared = annotations.get("vpn.beebs.dev/mask").is_some();
        if is_shared {
            f.create(Mask::new("shared", spec)).await?;
        }
        apply(f, &replicas(vpn, annotations)).await?;
        for _ in 0..2 {
            for pod in wait_for_ready(f, 1).await? {
                ensure_eq("all that the app saw", seen(f, &pod).await?, vpn.exit_address().to_string())?;
                let secret =
                    f.kubectl(&["exec", &pod, "--container=app", "--", "sh", "-c", "echo $VPN_SECRET"]).await?;
                ensure_eq("a shared Secret", secret.trim() == "login", is_shared)?;
                let data = f.api::<Secret>().get(secret.trim()).await?.data.unwrap_or_default();
                ensure!(data.contains_key(CONFIG_FILE), "no credentials in {secret}");
                let waits = |pods: &[Pod]| pods.len() == 2 && pods.iter().filter(|pod| !has_begun(pod)).count() == 1;
                f.wait_until_all::<Pod>("the other Pod waits", waits).await?;
                f.kubectl(&["delete", "pod", &pod]).await?;
            }
        }
        wait_for_ready(f, 1).await?;
        ensure_eq("most Pods at once", most_at_once(history).await?, 1)
    })
    .await
}

pub async fn pods_with_a_client_of_their_own_take_turns() -> Result<()> {
    one_after_the_other(json!({})).await
}

pub async fn pods_with_a_client_of_their_own_share_a_mask() -> Result<()> {
    one_after_the_other(json!({"vpn.beebs.dev/mask": "shared"})).await
}
