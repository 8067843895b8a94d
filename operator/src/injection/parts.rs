//! The parts that the webhook adds to a Pod.

use serde_json::{Value, json};

use crate::{gluetun, model::SHORTEST_GRACE_PERIOD};

/// The variable with the name of the Secret, for Pods with a VPN container of their own.
pub const SECRET_VARIABLE: &str = "VPN_SECRET";

/// Sets the fields of the Pod, beside those of its containers.
pub fn set_pod_fields(spec: &mut Value, has_sidecar: bool) {
    if spec["terminationGracePeriodSeconds"] == json!(0) {
        spec["terminationGracePeriodSeconds"] = json!(SHORTEST_GRACE_PERIOD);
    }
    if has_sidecar {
        // A Service named `openvpn` would set OPENVPN_PORT.
        spec["enableServiceLinks"] = json!(false);
    }
}

/// Adds the variable with the name of the Secret to the containers that do not have it yet.
pub fn add_secret_variable(spec: &mut Value, secret: &str) {
    let variable = json!({"name": SECRET_VARIABLE, "value": secret});
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let has_it = container["env"].as_array().is_some_and(|env| env.contains(&variable));
            if !has_it {
                push(&mut container["env"], variable.clone());
            }
        }
    }
}

/// Whether a container is the sidecar.
pub fn is_sidecar(container: &Value) -> bool {
    container["name"] == json!(gluetun::CONTAINER)
        && container["volumeMounts"].as_array().into_iter().flatten().any(|one| one["name"] == json!(gluetun::VOLUME))
}

/// Appends an item to a list that may not exist yet.
pub fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(items) => items.push(item),
        None => *list = json!([item]),
    }
}
