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
use crate::gluetun::{self, Environment, is_file};
use crate::state::{ConsumerView, ProviderView, SecretData, VerifySpecView};
use crate::state::{INIT, PROBE, merge_overrides};

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
    File,
    Skipped(&'static str),
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
    let variables = data.iter().filter(|(key, value)| use_of(key, value) == Use::Variable);
    let keys = Environment::Keys(variables.map(|(key, _)| key.as_str()).collect());
    let services = json!([{"name": "IP_SERVICES", "value": settings.ip_services.join(" ")}]);
    let shared = json!([{"name": "shared", "mountPath": "/shared"}]);
    let unprivileged = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let script = |text: &str| json!(["sh", "-c", format!("{READ_ADDRESS}{text}")]);
    let lifetime = settings.scheduling_timeout + timeout + SPARE;
    // The operator applies its own timeout; that of the probe must not expire first.
    let vpn = gluetun::container(
        &settings.vpn_image,
        copy,
        &keys,
        &[],
        settings.resources.get(gluetun::CONTAINER),
        lifetime.as_secs(),
    );
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
                vpn,
            ],
            "containers": [{
                "name": PROBE, "image": settings.probe_image, "command": script(PROBE_SCRIPT),
                "env": services, "volumeMounts": shared, "securityContext": unprivileged,
                "resources": settings.resources.get(PROBE),
            }],
            "volumes": [{"name": "shared", "emptyDir": {}}, gluetun::volume(copy)],
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
}
