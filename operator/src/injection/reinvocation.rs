//! The reinvocation of the webhook: the API server calls it again for a Pod that it has changed, after other webhooks such
//! as that of a service mesh have changed the Pod too.
//!
//! Invariant: whether another webhook adds a container before or after the first call makes no difference. What others
//! changed in the sidecar stays.

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};
use vpn_types::inject::{INJECTED_ANNOTATION, Injected, SLOT_GATE};

use super::{
    parts::{add_secret_variable, is_sidecar, set_pod_fields},
    ports,
    request::Request,
};
use crate::gluetun;

/// Returns a Pod that was injected before, adapted to what others have changed since. `others` is its specification
/// without what the webhook added.
///
/// # Errors
///
/// If something else has set the annotation of the webhook.
pub fn adapt(pod: &Value, others: &PodSpec, request: &Request) -> Result<Value, String> {
    let mut new = pod.clone();
    let text = pod["metadata"]["annotations"][INJECTED_ANNOTATION].as_str().unwrap_or_default();
    let injected: Option<Injected> = serde_json::from_str(text).ok();
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let injected = injected.filter(|injected| volumes.into_iter().any(|one| is_volume(one, &injected.secret)));
    let spec = &mut new["spec"];
    let is_complete = injected.is_some_and(|injected| {
        set_pod_fields(spec, request.sidecar);
        if !request.sidecar {
            add_secret_variable(spec, &injected.secret);
            return true;
        }
        let sidecar = spec["initContainers"].as_array_mut().and_then(put_first);
        sidecar.map(|sidecar| set_ports(sidecar, &ports::settings(others, request))).is_some()
    });
    is_complete.then_some(new).ok_or_else(|| {
        format!("annotation {INJECTED_ANNOTATION} is reserved for the operator; remove it, and the gate {SLOT_GATE}")
    })
}

fn is_volume(volume: &Value, secret: &str) -> bool {
    volume["name"] == json!(gluetun::VOLUME) && volume["secret"]["secretName"] == json!(secret)
}

/// Moves the sidecar to the front, unless there is none.
fn put_first(containers: &mut Vec<Value>) -> Option<&mut Value> {
    let position = containers.iter().position(is_sidecar)?;
    let sidecar = containers.remove(position);
    containers.insert(0, sidecar);
    containers.first_mut()
}

/// Sets the variables of the sidecar that depend on the other containers. The others keep their order.
fn set_ports(sidecar: &mut Value, settings: &[(&str, String)]) {
    let mut env = sidecar["env"].as_array().cloned().unwrap_or_default();
    let wanted = |name: &Value| settings.iter().find(|(setting, _)| name == setting);
    env.retain(|one| !one["name"].as_str().is_some_and(ports::is_setting) || wanted(&one["name"]).is_some());
    for (name, value) in settings {
        match env.iter_mut().find(|one| one["name"] == *name) {
            Some(present) => present["value"] = json!(value),
            None => env.insert(0, json!({"name": name, "value": value})),
        }
    }
    sidecar["env"] = json!(env);
}

#[cfg(test)]
mod tests;
