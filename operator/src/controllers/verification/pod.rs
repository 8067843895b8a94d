//! The verification Pod.
//!
//! Order of containers: `init` reads the address without the VPN. `vpn` (gluetun, a native sidecar) counts as started
//! only when its own health check passes through the tunnel. Only then does `probe` start, read the address again and
//! exit.

use std::time::Duration;

use k8s_openapi::{ByteString, api::core::v1::Pod};
use kube::Resource;
use serde_json::{Value, json};
use vpn_types::{MaskConsumer, VERIFY_LABEL, verify_name};

use super::settings::Settings;
use crate::state::{ConsumerView, ProviderView, SecretData, VerifySpecView};
use crate::state::{INIT, PROBE, VPN, merge_overrides};

/// Reads one address from the first service that returns one. Any other answer counts as no address.
const READ_ADDRESS: &str = r#"
read_address() {
  for service in $IP_SERVICES; do
    answer=$(curl -fsS --max-time 1 "$service" 2>/dev/null | tr -d '[:space:]')
    case "$answer" in
      ''|*[!0-9a-fA-F.:]*) ;;
      *) printf '%s' "$answer"; return ;;
    esac
  done
}
"#;

/// Best effort: without this address there is no comparison, and any address counts.
const INIT_SCRIPT: &str = "read_address > /shared/ip\n";

/// Repeats until it has an address: the operator deletes the Pod when the time is up. The same address as before may
/// come from the last packet that bypassed the tunnel, so it has to be read several times.
const PROBE_SCRIPT: &str = r#"
unmasked=$(cat /shared/ip)
same=0
while :; do
  address=$(read_address)
  if [ -n "$address" ] && [ "$address" = "$unmasked" ]; then same=$((same + 1)); fi
  if [ -n "$address" ] && { [ "$address" != "$unmasked" ] || [ "$same" -ge 3 ]; }; then break; fi
  sleep 1
done
printf '{"unmasked":"%s","address":"%s"}' "$unmasked" "$address" > /dev/termination-log
[ "$address" != "$unmasked" ]
"#;

/// How long the Pod may run beyond both timeouts, in case no operator is running to delete it.
const SPARE: Duration = Duration::from_secs(120);

/// The maximum length of a value that fits into one environment variable with its name (Linux: MAX_ARG_STRLEN, 128
/// KiB).
const LONGEST_VALUE: usize = 96 * 1024;

/// How gluetun gets a key of a Secret.
#[derive(Debug, PartialEq, Eq)]
enum Use {
    Variable,
    /// Mounted as a file.
    File,
    Skipped(&'static str),
}

/// Returns the path of a file: the path that a variable gives (`OPENVPN_CUSTOM_CONFIG`), else gluetun's default.
fn path_of(key: &str, data: &SecretData) -> String {
    let named = data.values().filter_map(|value| std::str::from_utf8(&value.0).ok());
    let mut paths = named.map(str::trim).filter(|path| path.starts_with('/') && !path.contains(['\n', ':']));
    match paths.find(|path| path.rsplit('/').next() == Some(key)) {
        Some(path) => path.to_owned(),
        None if key == "wg0.conf" => "/gluetun/wireguard/wg0.conf".to_owned(),
        None => format!("/gluetun/{key}"),
    }
}

/// Whether a key of a Secret is the name of a file.
pub fn is_file(key: &str) -> bool {
    [".conf", ".ovpn", ".crt", ".pem", ".key"].iter().any(|ending| key.ends_with(ending))
}

fn use_of(key: &str, value: &ByteString) -> Use {
    let is_name = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !key.starts_with(|first: char| first.is_ascii_digit());
    match std::str::from_utf8(&value.0) {
        _ if is_file(key) => Use::File,
        _ if !is_name => Use::Skipped("is not a valid environment variable name"),
        Ok(text) if text.contains('\0') => Use::Skipped("is binary"),
        Err(_) => Use::Skipped("is binary"),
        Ok(text) if text.len() > LONGEST_VALUE => Use::Skipped("is too long for an environment variable"),
        Ok(_) => Use::Variable,
    }
}

/// Returns the keys of a credentials Secret that a verification ignores, and why. Lists only the first few.
pub fn skipped_keys(data: &SecretData) -> Option<String> {
    let skipped = data.iter().filter_map(|(key, value)| match use_of(key, value) {
        Use::Skipped(why) => Some(format!("{key} {why}")),
        Use::Variable | Use::File => None,
    });
    let skipped: Vec<_> = skipped.collect();
    let more = skipped.len().saturating_sub(5);
    let shown = skipped.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    match (shown.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(shown),
        (false, more) => Some(format!("{shown} and {more} more")),
    }
}

/// Returns the Pod that verifies `provider` with the credentials in the Secret `copy`.
///
/// # Errors
///
/// If the overrides are invalid, which the condition `InvalidSpec` has reported before.
pub fn build(
    provider: &ProviderView,
    verify: &VerifySpecView,
    consumer: &ConsumerView,
    copy: &str,
    data: &SecretData,
    settings: &Settings,
) -> Result<Pod, String> {
    let timeout = verify.timeout.unwrap_or(settings.timeout);
    let (mut env, mut files) = (Vec::new(), Vec::new());
    for (key, value) in data.iter() {
        match use_of(key, value) {
            Use::Variable => {
                env.push(json!({"name": key, "valueFrom": {"secretKeyRef": {"name": copy, "key": key}}}));
            }
            Use::File => {
                let path = path_of(key, data);
                files.push(json!({"name": "files", "mountPath": path, "subPath": key, "readOnly": true}));
            }
            Use::Skipped(_) => {}
        }
    }
    let services = json!([{"name": "IP_SERVICES", "value": settings.ip_services.join(" ")}]);
    let shared = json!([{"name": "shared", "mountPath": "/shared"}]);
    let unprivileged = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let script = |text: &str| json!(["sh", "-c", format!("{READ_ADDRESS}{text}")]);
    let mut volumes = vec![json!({"name": "shared", "emptyDir": {}})];
    if !files.is_empty() {
        volumes.push(json!({"name": "files", "secret": {"secretName": copy}}));
    }
    let lifetime = settings.scheduling_timeout + timeout + SPARE;
    let owner = json!({
        "apiVersion": MaskConsumer::api_version(&()), "kind": MaskConsumer::kind(&()),
        "name": &*consumer.meta.key.name, "uid": consumer.meta.uid.as_str(),
        "controller": true, "blockOwnerDeletion": true,
    });
    let pod = json!({
        "metadata": {},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            // A Service named `openvpn` would set OPENVPN_PORT.
            "enableServiceLinks": false,
            "activeDeadlineSeconds": lifetime.as_secs(),
            "terminationGracePeriodSeconds": 10,
            "initContainers": [
                {
                    "name": INIT, "image": settings.init_image, "command": script(INIT_SCRIPT),
                    "env": services, "volumeMounts": shared, "securityContext": unprivileged,
                    "resources": settings.resources.get(INIT),
                },
                {
                    "name": VPN, "image": settings.vpn_image, "restartPolicy": "Always",
                    "env": env, "volumeMounts": files,
                    "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
                    "startupProbe": {
                        "exec": {"command": ["/gluetun-entrypoint", "healthcheck"]},
                        "periodSeconds": 2, "timeoutSeconds": 5,
                        // The operator applies its own timeout; this one must not expire first.
                        "failureThreshold": lifetime.as_secs() / 2,
                    },
                    "resources": settings.resources.get(VPN),
                },
            ],
            "containers": [{
                "name": PROBE, "image": settings.probe_image, "command": script(PROBE_SCRIPT),
                "env": services, "volumeMounts": shared, "securityContext": unprivileged,
                "resources": settings.resources.get(PROBE),
            }],
            "volumes": volumes,
        },
    });
    let pod: Pod = serde_json::from_value(without_nulls(pod)).map_err(|error| error.to_string())?;
    let mut pod = merge_overrides(pod, &verify.overrides)?;
    // The operator identifies its Pod by these fields: overrides cannot change them.
    let meta = &mut pod.metadata;
    meta.name = Some(verify_name(&provider.meta.key.name));
    meta.generate_name = None;
    meta.namespace = Some(provider.meta.key.namespace.to_string());
    let labels = meta.labels.get_or_insert_default();
    labels.insert("app".to_owned(), "vpn-operator".to_owned());
    labels.insert(VERIFY_LABEL.to_owned(), provider.meta.uid.to_string());
    meta.owner_references = serde_json::from_value(json!([owner])).ok();
    Ok(pod)
}

fn without_nulls(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(|value| *value = without_nulls(value.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| *value = without_nulls(value.take())),
        _ => {}
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_secret_are_variables_files_or_neither() {
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        assert_eq!(use_of("OPENVPN_USER", &bytes("x")), Use::Variable);
        assert_eq!(use_of("custom.conf", &bytes("x")), Use::File);
        assert!(matches!(use_of("my-key", &bytes("x")), Use::Skipped(_)));
        assert!(matches!(use_of("2KEY", &bytes("x")), Use::Skipped(_)));
        assert!(matches!(use_of("KEY", &ByteString(vec![0xff])), Use::Skipped("is binary")));
        assert!(matches!(use_of("KEY", &bytes("a\0b")), Use::Skipped("is binary")));
        assert!(matches!(use_of("KEY", &bytes(&"x".repeat(LONGEST_VALUE + 1))), Use::Skipped(_)));
    }

    #[test]
    fn files_are_mounted_where_gluetun_reads_them() {
        let data: SecretData = std::sync::Arc::new(
            [("OPENVPN_CUSTOM_CONFIG", "/gluetun/here/custom.conf"), ("custom.conf", "client\n"), ("wg0.conf", "x")]
                .map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())))
                .into(),
        );
        assert_eq!(path_of("custom.conf", &data), "/gluetun/here/custom.conf");
        assert_eq!(path_of("wg0.conf", &data), "/gluetun/wireguard/wg0.conf");
        assert_eq!(path_of("ca.crt", &data), "/gluetun/ca.crt");
    }
}
