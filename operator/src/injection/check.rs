//! Rejects Pods that cannot get a slot of their own, or cannot use it safely.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use vpn_types::inject::{INJECTED_ANNOTATION, SIDECAR_ANNOTATION, SLOT_GATE};

use super::request::Request;
use crate::gluetun;

/// The label of a namespace with the level that the admission plugin PodSecurity enforces.
const ENFORCED_LEVEL: &str = "pod-security.kubernetes.io/enforce";

/// The first minor version of Kubernetes 1 in which scheduling gates are stable and sidecars are on by default (KEP-3521,
/// KEP-753).
const FIRST_MINOR: u32 = 30;

/// Checks a Pod that is not injected yet.
///
/// # Errors
///
/// What is wrong, and what to do instead.
pub fn check(
    pod: &Pod,
    request: &Request,
    namespace_labels: &std::collections::BTreeMap<String, String>,
    minor: u32,
) -> Result<(), String> {
    if minor < FIRST_MINOR {
        return Err(format!(
            "Kubernetes 1.{minor} starts the containers of a Pod before its VPN is up; Kubernetes 1.{FIRST_MINOR} or \
             later is required"
        ));
    }
    let Some(spec) = &pod.spec else { return Ok(()) };
    if spec.host_network == Some(true) {
        return Err("with hostNetwork: true the VPN would take over the network of the node; remove hostNetwork".into());
    }
    if spec.node_name.as_ref().is_some_and(|name| !name.is_empty()) {
        return Err(
            "nodeName binds the Pod to its node before it has a slot; use nodeSelector or affinity instead".into()
        );
    }
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return Err("the VPN sidecar needs Linux, but spec.os.name is windows".into());
    }
    if spec.scheduling_gates.iter().flatten().any(|gate| gate.name == SLOT_GATE) {
        return Err(format!("the scheduling gate {SLOT_GATE} is reserved for the operator; remove it"));
    }
    let has_sidecar = containers(spec).any(|container| {
        let mut mounts = container.volume_mounts.iter().flatten();
        container.name == gluetun::CONTAINER && mounts.any(|mount| mount.name == gluetun::VOLUME)
    });
    if has_sidecar && request.sidecar {
        return Err(format!(
            "this is a copy of a Pod with the VPN sidecar, without its annotation {INJECTED_ANNOTATION}; copy the \
             annotations too, for example with kubectl debug --keep-labels --keep-annotations"
        ));
    }
    if let Some(volume) = spec.volumes.iter().flatten().find(|volume| volume.name == gluetun::VOLUME) {
        if request.sidecar {
            return Err(format!("the volume name {} is reserved for the operator; rename the volume", gluetun::VOLUME));
        }
        if volume.empty_dir.is_none() {
            return Err(format!(
                "the operator puts the credentials into the volume {}; declare it as emptyDir: {{}}",
                gluetun::VOLUME
            ));
        }
    }
    if !request.sidecar {
        return Ok(());
    }
    if let Some(level) = namespace_labels.get(ENFORCED_LEVEL).filter(|level| *level != "privileged") {
        return Err(format!(
            "the namespace enforces the Pod Security level {level}, which forbids the capability NET_ADMIN that the \
             VPN sidecar needs; label the namespace {ENFORCED_LEVEL}: privileged"
        ));
    }
    if let Some(container) = containers(spec).find(|container| is_gluetun(container)) {
        return Err(format!(
            "container {} is a VPN client already; set the annotation {SIDECAR_ANNOTATION}: none, declare the \
             volume {} as emptyDir: {{}}, and mount it in this container",
            container.name,
            gluetun::VOLUME
        ));
    }
    match containers(spec).find(|container| container.name == gluetun::CONTAINER) {
        Some(_) => Err(format!(
            "the container name {} is taken by the VPN sidecar; rename the container, or set the annotation \
             {SIDECAR_ANNOTATION}: none if it is a VPN client",
            gluetun::CONTAINER
        )),
        None => Ok(()),
    }
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// Whether the name of the image, without registry and tag, is that of gluetun.
fn is_gluetun(container: &Container) -> bool {
    let image = container.image.as_deref().unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or_default();
    name.split([':', '@']).next().is_some_and(|name| name.contains("gluetun"))
}
