//! The gluetun container. The Pod that verifies an account and the Pods that use one get the same container, so that
//! what was verified is what runs. The facts are those of gluetun v3.41.

mod variables;

use k8s_openapi::api::core::v1::ResourceRequirements;
use serde_json::{Map, Value, json};

pub use variables::{is_public, missing_login};

/// The name of the container.
pub const CONTAINER: &str = "vpn";
/// The name of the volume with the credentials.
pub const VOLUME: &str = "vpn-credentials";
/// Where the credentials are mounted.
pub const MOUNT_PATH: &str = "/gluetun/credentials";
/// The gluetun image, pinned because the log patterns match the wording of this version.
pub const IMAGE: &str = "qmcgaw/gluetun:v3.41.3";

/// The variable with the annotation of the webhook, which `kubectl debug --copy-to` leaves out. Such a copy has the Secret,
/// but neither the label nor the scheduling gate, so it would be a second device in the slot.
pub const INJECTED_VARIABLE: &str = "VPN_OPERATOR_INJECTED";

/// Prepares the start of gluetun:
///
/// 1. A copy of an injected Pod does not start.
/// 2. A container that was killed leaves rules in the network of the Pod, and gluetun would fail with `file exists`.
/// 3. Each key of the Secret that is a file is put to where gluetun reads it: to the path in a variable, such as
///    `OPENVPN_CUSTOM_CONFIG`, else to the default of gluetun. The names of the keys are not known when a Pod is created.
/// 4. gluetun has no default for that variable. If a custom provider has only one OpenVPN configuration, that is it.
const START: &str = r#"if [ -z "${VPN_OPERATOR_INJECTED-true}" ]; then
  echo "This Pod is a copy of a Pod with a slot, and has no slot of its own. Copy its labels and annotations too: kubectl debug --keep-labels --keep-annotations"
  exit 1
fi
ip rule delete table 51820 2>/dev/null
ip -6 rule delete table 51820 2>/dev/null
profiles=0
for file in /gluetun/credentials/*; do
  key=${file##*/}
  case $key in *.conf|*.ovpn|*.crt|*.pem|*.key) ;; *) continue ;; esac
  path=$(env | sed -n 's|^[A-Za-z0-9_]*=[[:space:]]*\(/[^:]*[^:[:space:]]\)[[:space:]]*$|\1|p' | grep "/$key\$" | head -n 1)
  if [ -z "$path" ]; then
    path=/gluetun/$key
    case $key in
      wg0.conf) path=/gluetun/wireguard/wg0.conf ;;
      *.conf|*.ovpn) profile=$path; profiles=$((profiles + 1)) ;;
    esac
  fi
  if [ ! -e "$path" ]; then mkdir -p "${path%/*}" && ln -s "$file" "$path"; fi
done
if [ "$VPN_SERVICE_PROVIDER,${VPN_TYPE:-openvpn},$OPENVPN_CUSTOM_CONFIG,$profiles" = custom,openvpn,,1 ]; then
  export OPENVPN_CUSTOM_CONFIG="$profile"
fi
exec /gluetun-entrypoint"#;

/// Whether a key of a Secret is the name of a file.
pub fn is_file(key: &str) -> bool {
    [".conf", ".ovpn", ".crt", ".pem", ".key"].iter().any(|ending| key.ends_with(ending))
}

/// How the container gets the credentials as environment variables.
#[derive(Clone, Debug)]
pub enum Environment<'a> {
    /// All keys that are names of variables.
    All,
    /// These keys.
    Keys(Vec<&'a str>),
}

/// Returns the container as a native sidecar (KEP-753): containers that follow it start when the tunnel is up.
/// `settings` are variables in addition to the credentials, which they override.
pub fn container(
    image: &str,
    secret: &str,
    environment: &Environment<'_>,
    settings: &[(&str, String)],
    resources: Option<&ResourceRequirements>,
    startup_seconds: u64,
) -> Map<String, Value> {
    let mut env: Vec<_> = settings.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let mut container = json!({
        "name": CONTAINER,
        "image": image,
        "restartPolicy": "Always",
        "command": ["sh", "-c", START],
        // The Pod may demand a user without rights for its other containers.
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}, "runAsUser": 0, "runAsNonRoot": false},
        // The health server listens on loopback, which kubelet cannot reach.
        "startupProbe": {
            "exec": {"command": healthcheck()},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": (startup_seconds / 2).max(1),
        },
        "volumeMounts": [{"name": VOLUME, "mountPath": MOUNT_PATH, "readOnly": true}],
    });
    match environment {
        Environment::All => container["envFrom"] = json!([{"secretRef": {"name": secret}}]),
        Environment::Keys(keys) => env.extend(
            keys.iter().map(|key| json!({"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})),
        ),
    }
    if !env.is_empty() {
        container["env"] = json!(env);
    }
    if let Some(resources) = resources {
        container["resources"] = json!(resources);
    }
    match container {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// Returns the command that fails unless the tunnel is up.
pub fn healthcheck() -> Value {
    json!(["/gluetun-entrypoint", "healthcheck"])
}

/// Returns the volume with the credentials.
pub fn volume(secret: &str) -> Value {
    json!({"name": VOLUME, "secret": {"secretName": secret}})
}
