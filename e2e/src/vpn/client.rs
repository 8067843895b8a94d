//! Pods that connect to a VPN service.

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::node::images;

/// The key of the Secret with the configuration of OpenVPN.
pub const CONFIG_FILE: &str = "custom.conf";
/// Where the Secret has to be mounted for OpenVPN.
pub const CREDENTIALS_DIR: &str = "/gluetun/credentials";

/// What a Pod has to have so that its container `vpn` finds the files of a Secret: a volume of the Pod, and a mount of
/// the container.
pub fn mount(secret: &str) -> (Value, Value) {
    (
        json!({ "name": "credentials", "secret": { "secretName": secret, "optional": true } }),
        json!({ "name": "credentials", "mountPath": CREDENTIALS_DIR, "readOnly": true }),
    )
}

/// A Pod with the VPN client as a native sidecar, as the README tells, and a container `main` with [`images::TOOLS`]
/// that starts once the VPN is up. `owner` is the owner reference of a MaskConsumer.
pub fn client_pod(name: &str, secret: &str, owner: Option<Value>) -> Result<Pod> {
    let (volume, mount) = mount(secret);
    let healthcheck = json!({ "command": ["/gluetun-entrypoint", "healthcheck"] });
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name, "ownerReferences": owner.into_iter().collect::<Vec<_>>() },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            "enableServiceLinks": false,
            "automountServiceAccountToken": false,
            "initContainers": [{
                "name": "vpn",
                "image": images::GLUETUN,
                "restartPolicy": "Always",
                "envFrom": [{ "secretRef": { "name": secret } }],
                "securityContext": { "capabilities": { "add": ["NET_ADMIN"] } },
                "startupProbe": { "exec": healthcheck, "periodSeconds": 1, "failureThreshold": 120 },
                "volumeMounts": [mount],
            }],
            "containers": [{ "name": "main", "image": images::TOOLS, "command": ["sleep", "1000000"] }],
            "volumes": [volume],
        },
    }))?)
}
