//! What the webhook adds to a Pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use serde_json::{Value, json};
use vpn_types::inject::{INJECT_LABEL, INJECTED_ANNOTATION, Injected, MASK_ANNOTATION, SIDECAR_ANNOTATION, SLOT_GATE};

use super::{
    Defaults,
    check::check,
    parts::{SECRET_VARIABLE, add_secret_variable, is_sidecar, push, set_pod_fields},
    ports, reinvocation,
    request::Request,
    value,
};
use crate::{
    gluetun::{self, Environment},
    model::beginning,
};

/// How long the tunnel may take before kubelet restarts gluetun.
const STARTUP_SECONDS: u64 = 120;
/// The longest beginning of the name of a Secret: the name of the Pod, shortened.
const LONGEST_BEGINNING: usize = 200;

/// The inputs of the decision besides the Pod.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// Labels of the namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// The minor version of Kubernetes 1.
    pub minor: u32,
    /// Settings of the installation.
    pub defaults: &'a Defaults,
    /// Random letters and digits, for the name of the Secret.
    pub suffix: &'a str,
    /// What is known of the Mask that [`wanted_mask`] names.
    pub mask: MaskSecret,
}

/// The Secret of the Mask that a Pod names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MaskSecret {
    /// There is no such Mask.
    #[default]
    NoMask,
    /// Nobody knows its name yet.
    NotKnown,
    /// Its name.
    Known(String),
}

/// The answer to an admission request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The Pod is admitted as it is.
    Unchanged,
    /// The Pod is admitted like this.
    Changed(Value),
    /// The Pod is refused, for this reason.
    Refused(String),
}

/// Returns the name of the Mask that a Pod wants to use.
pub fn wanted_mask(pod: &Value) -> Option<&str> {
    let name = pod["metadata"]["annotations"][MASK_ANNOTATION].as_str();
    // A bad name is refused by the decision, which names the annotation.
    name.filter(|name| value::name(name).is_ok())
}

/// Decides about a Pod that is about to be created.
pub fn decide(pod: &Value, inputs: &Inputs<'_>) -> Answer {
    match pod["metadata"]["labels"][INJECT_LABEL].as_str() {
        Some("true") => {}
        None | Some("false") => return Answer::Unchanged,
        Some(other) => {
            return Answer::Refused(format!(
                "label {INJECT_LABEL}: expected \"true\" or \"false\", but found {other:?}"
            ));
        }
    }
    match inject(pod, inputs) {
        Ok(new) if new == *pod => Answer::Unchanged,
        Ok(new) => Answer::Changed(new),
        Err(why) => Answer::Refused(why),
    }
}

fn inject(pod: &Value, inputs: &Inputs<'_>) -> Result<Value, String> {
    let mut new = pod.clone();
    // A copy of an injected Pod also has to wait for a slot of its own.
    strip(&mut new);
    let is_again = is_gated(pod) && new != *pod;
    if is_again {
        retain(&mut new, "/spec/schedulingGates", |gate| gate["name"] != json!(SLOT_GATE));
    }
    let typed: Pod = serde_json::from_value(new.clone()).map_err(|error| format!("cannot be read: {error}"))?;
    let (none, metadata) = (BTreeMap::new(), &typed.metadata);
    let annotations = metadata.annotations.as_ref().unwrap_or(&none);
    let request = Request::parse(annotations, metadata.labels.as_ref().unwrap_or(&none))?;
    check(&typed, &request, inputs.namespace_labels, inputs.minor)?;
    if is_again {
        return reinvocation::adapt(pod, &typed.spec.unwrap_or_default(), &request);
    }
    let secret = secret_of(&typed, &request, inputs)?;
    let spec = typed.spec.unwrap_or_default();
    push(&mut new["spec"]["schedulingGates"], json!({"name": SLOT_GATE}));
    // The API server admits no template whose containers mount a volume that it does not declare. So a template with a
    // VPN container declares it as an empty directory.
    retain(&mut new, "/spec/volumes", |volume| volume["name"] != json!(gluetun::VOLUME));
    push(&mut new["spec"]["volumes"], gluetun::volume(&secret));
    set_pod_fields(&mut new["spec"], request.sidecar);
    if request.sidecar {
        let sidecar = sidecar(&spec, &request, inputs.defaults, &secret);
        match new["spec"]["initContainers"].as_array_mut() {
            Some(all) => all.insert(0, sidecar),
            None => new["spec"]["initContainers"] = json!([sidecar]),
        }
    } else {
        add_secret_variable(&mut new["spec"], &secret);
    }
    let injected = Injected {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        secret,
        mask: request.mask,
        providers: request.providers,
        priority: request.priority,
        surge: request.surge,
    };
    new["metadata"]["annotations"][INJECTED_ANNOTATION] = json!(json!(injected).to_string());
    Ok(new)
}

fn secret_of(pod: &Pod, request: &Request, inputs: &Inputs<'_>) -> Result<String, String> {
    let Some(mask) = &request.mask else {
        let name = pod.metadata.name.as_ref().or(pod.metadata.generate_name.as_ref());
        let name = name.map_or("pod", |name| name.trim_end_matches(['-', '.']));
        let start = beginning(name, LONGEST_BEGINNING).trim_end_matches(['-', '.']);
        return Ok(format!("{start}-{}", inputs.suffix));
    };
    match &inputs.mask {
        MaskSecret::Known(secret) => Ok(secret.clone()),
        MaskSecret::NoMask => Err(format!("annotation {MASK_ANNOTATION}: there is no Mask {mask} in this namespace")),
        MaskSecret::NotKnown => Err(format!(
            "annotation {MASK_ANNOTATION}: Mask {mask} has no slot yet, so the name of its Secret is not known; set \
             spec.secretName in the Mask, or wait"
        )),
    }
}

fn sidecar(spec: &PodSpec, request: &Request, defaults: &Defaults, secret: &str) -> Value {
    let mut settings = Vec::new();
    let subnets = request.outbound_subnets.as_ref().unwrap_or(&defaults.outbound_subnets);
    if !subnets.is_empty() {
        settings.push(("FIREWALL_OUTBOUND_SUBNETS", subnets.join(",")));
    }
    settings.extend(ports::settings(spec, request));
    let image = request.image.as_ref().unwrap_or(&defaults.image);
    // Resources of the Pod (KEP-2837) are for all its containers, and those of a container must fit in them.
    let default_resources = defaults.resources.as_ref().filter(|_| spec.resources.is_none());
    let resources = request.resources.as_ref().or(default_resources);
    let mut container = gluetun::container(image, secret, &Environment::All, &settings, resources, STARTUP_SECONDS);
    let annotation = json!({"fieldRef": {"fieldPath": format!("metadata.annotations['{INJECTED_ANNOTATION}']")}});
    push(
        container.entry("env").or_insert(Value::Null),
        json!({"name": gluetun::INJECTED_VARIABLE, "valueFrom": annotation}),
    );
    container.insert(
        "readinessProbe".to_owned(),
        json!({"exec": {"command": gluetun::healthcheck()}, "periodSeconds": 10, "timeoutSeconds": 5}),
    );
    // gluetun reconnects by itself. This is for the case that it cannot.
    container.insert(
        "livenessProbe".to_owned(),
        json!({
            "exec": {"command": gluetun::healthcheck()}, "periodSeconds": 30, "timeoutSeconds": 5, "failureThreshold": 10,
        }),
    );
    Value::Object(container)
}

fn is_gated(pod: &Value) -> bool {
    let gates = pod["spec"]["schedulingGates"].as_array().into_iter().flatten();
    gates.into_iter().any(|gate| gate["name"] == json!(SLOT_GATE))
}

/// Removes what an earlier injection added.
fn strip(pod: &mut Value) {
    let was_injected = pod
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
        .is_some_and(|annotations| annotations.remove(INJECTED_ANNOTATION).is_some());
    if !was_injected {
        return;
    }
    let has_sidecar = pod["metadata"]["annotations"][SIDECAR_ANNOTATION].as_str() != Some("none");
    if has_sidecar {
        retain(pod, "/spec/initContainers", |container| !is_sidecar(container));
    }
    retain(pod, "/spec/volumes", |volume| volume["name"] != json!(gluetun::VOLUME));
    for list in ["/spec/initContainers", "/spec/containers"] {
        for container in pod.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            retain(container, "/env", |variable| variable["name"] != json!(SECRET_VARIABLE));
        }
    }
}

fn retain(object: &mut Value, list: &str, keep: fn(&Value) -> bool) {
    if let Some(all) = object.pointer_mut(list).and_then(Value::as_array_mut) {
        all.retain(keep);
    }
}

#[cfg(test)]
mod tests;
