//! The effective requests of a Pod.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::api::resource::Quantity,
};

use super::resources::Resources;

fn of_container(container: &Container) -> Resources {
    Resources::of(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
}

/// Returns what the scheduler counts for a Pod: the containers and the sidecars together, or the init container that
/// needs more together with the sidecars that started before it. Requests of the Pod replace that, and the overhead of
/// its RuntimeClass comes on top.
pub fn requests(spec: &PodSpec) -> Resources {
    let mut sidecars = Resources::default();
    let mut start = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let own = of_container(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = sidecars.plus(own);
            start = start.max(sidecars);
        } else {
            start = start.max(sidecars.plus(own));
        }
    }
    let running = spec.containers.iter().map(of_container).fold(sidecars, Resources::plus);
    let mut effective = running.max(start);
    let of_pod = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let given = |list: Option<&BTreeMap<String, Quantity>>, name: &str| list.is_some_and(|all| all.contains_key(name));
    let pod = Resources::of(of_pod);
    if given(of_pod, "cpu") {
        effective.cpu_millis = pod.cpu_millis;
    }
    if given(of_pod, "memory") {
        effective.memory_bytes = pod.memory_bytes;
    }
    effective.plus(Resources::of(spec.overhead.as_ref()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: Value) -> (u64, u64) {
        let spec: PodSpec = serde_json::from_value(spec).expect("a spec");
        let Resources { cpu_millis, memory_bytes } = requests(&spec);
        (cpu_millis, memory_bytes >> 20)
    }

    fn container(cpu: &str, memory: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    fn sidecar(cpu: &str, memory: &str) -> Value {
        let mut sidecar = container(cpu, memory);
        sidecar["restartPolicy"] = json!("Always");
        sidecar
    }

    #[test]
    fn containers_count_together() {
        assert_eq!(of(json!({"containers": [container("1", "1Gi"), container("500m", "64Mi")]})), (1500, 1088));
        assert_eq!(of(json!({"containers": [{"name": "c"}]})), (0, 0));
        let limits = json!({"name": "c", "resources": {"limits": {"cpu": "1"}}});
        assert_eq!(of(json!({"containers": [limits]})), (0, 0));
    }

    #[test]
    fn an_init_container_counts_where_it_needs_more() {
        let containers = [container("1", "64Mi"), container("1", "64Mi")];
        let init = [container("3", "1Mi"), container("1", "256Mi")];
        assert_eq!(of(json!({"initContainers": init, "containers": containers})), (3000, 256));
    }

    #[test]
    fn a_sidecar_counts_with_the_containers_and_with_later_init_containers() {
        let containers = [container("1", "64Mi")];
        let before = [sidecar("1", "64Mi"), container("3", "1Mi")];
        assert_eq!(of(json!({"initContainers": before, "containers": containers})), (4000, 128));
        let after = [container("3", "1Mi"), sidecar("1", "64Mi")];
        assert_eq!(of(json!({"initContainers": after, "containers": containers})), (3000, 128));
        let two = [sidecar("1", "1Mi"), sidecar("1", "1Mi")];
        assert_eq!(of(json!({"initContainers": two, "containers": containers})), (3000, 66));
    }

    #[test]
    fn requests_of_the_pod_replace_those_of_its_containers_and_overhead_is_added() {
        let spec = json!({
            "containers": [container("1", "64Mi")],
            "resources": {"requests": {"cpu": "3"}},
            "overhead": {"cpu": "250m", "memory": "120Mi"},
        });
        assert_eq!(of(spec), (3250, 184));
    }
}
