//! Pods that connect to a VPN service.

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::node::images;

/// The key of the Secret with the configuration of OpenVPN.
pub const CONFIG_FILE: &str = "custom.conf";
/// The directory where OpenVPN expects the Secret.
pub const CREDENTIALS_DIR: &str = "/gluetun/credentials";

/// A volume for a Pod and a volume mount for its container `vpn`, with the files of a Secret.
pub fn mount(secret: &str) -> (Value, Value) {
    (
        json!({ "name": "credentials", "secret": { "secretName": secret, "optional": true } }),
        json!({ "name": "credentials", "mountPath": CREDENTIALS_DIR, "readOnly": true }),
    )
}

/// A Pod with the VPN client as a native sidecar, as in the README. Its container `main` has the image [`images::TOOLS`] and
/// starts when the VPN is connected. `owner` is the owner reference of a MaskConsumer.
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

/// A Pod like a device outside of the cluster: OpenVPN connects with a profile in a Secret, and the Pod is ready when
/// OpenVPN is connected. The container `main` has the given image, so tests can run commands in it.
pub fn device_pod(name: &str, secret: &str, profile: &str, image: &str) -> Result<Pod> {
    let script = format!(
        "mkdir -p /dev/net; [ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
         exec openvpn --config /profile/{profile} --connect-retry 1 1 --management /tmp/management unix"
    );
    let connected = "ip address show dev tun0 | grep -q inet";
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "terminationGracePeriodSeconds": 3,
            "enableServiceLinks": false,
            "containers": [
                {
                    "name": "openvpn", "image": images::VPN_SERVER, "command": ["sh", "-c", script],
                    "securityContext": { "capabilities": { "add": ["NET_ADMIN"] } },
                    "startupProbe": {
                        "exec": { "command": ["sh", "-c", connected] }, "periodSeconds": 1, "failureThreshold": 60,
                    },
                    "volumeMounts": [{ "name": "profile", "mountPath": "/profile" }],
                },
                { "name": "main", "image": image, "command": ["sleep", "1000000"] },
            ],
            "volumes": [{ "name": "profile", "secret": { "secretName": secret } }],
        },
    }))?)
}
