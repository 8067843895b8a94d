//! Access to the API for the commands that create and revoke clients in the Pods of a server.
//!
//! Invariant: only the container `openvpn` of a server that asks for it has a token.

use serde_json::{Value, json};

/// Where clients of the API look for a token.
const TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Where the commands write profiles.
const PROFILE_DIR: &str = "/etc/openvpn/certs/pki";
/// How long a token is valid. The kubelet renews it before.
const TOKEN_SECONDS: u32 = 3607;
/// Profiles have about 5 KiB.
const PROFILES_SIZE: &str = "16Mi";

/// Gives the container `openvpn` of a Pod the token of a ServiceAccount, and a place for profiles.
pub fn enable(pod: &mut Value, account: &str, server: &str) {
    pod["serviceAccountName"] = json!(account);
    // Not by automountServiceAccountToken, which would give it to all containers.
    let token = json!({"name": "api-access", "projected": {"defaultMode": 0o400, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]}});
    let profiles = json!({"name": "profiles", "emptyDir": {"medium": "Memory", "sizeLimit": PROFILES_SIZE}});
    extend(&mut pod["volumes"], [token, profiles]);
    let containers = pod["containers"].as_array_mut().into_iter().flatten();
    for container in containers.filter(|container| container["name"] == "openvpn") {
        container["env"] = json!([{"name": "OPENVPN_SERVER", "value": server}]);
        extend(
            &mut container["volumeMounts"],
            [
                json!({"name": "api-access", "mountPath": TOKEN_DIR, "readOnly": true}),
                json!({"name": "profiles", "mountPath": PROFILE_DIR}),
            ],
        );
    }
}

fn extend(list: &mut Value, more: [Value; 2]) {
    if let Some(list) = list.as_array_mut() {
        list.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_container_of_openvpn_has_the_token() {
        let container = |name: &str| json!({"name": name, "volumeMounts": []});
        let mut pod = json!({"containers": [container("openvpn"), container("exporter")], "volumes": []});
        enable(&mut pod, "account", "home");
        assert_eq!(pod["serviceAccountName"], "account");
        assert_eq!(pod["containers"][0]["volumeMounts"].as_array().map(Vec::len), Some(2));
        assert_eq!(pod["containers"][0]["env"][0]["value"], "home");
        assert_eq!(pod["containers"][1], container("exporter"));
        assert_eq!(pod["volumes"].as_array().map(Vec::len), Some(2));
    }
}
