//! `spec.verify.overrides`: changes of the verification Pod, merged like `kubectl patch --type=strategic`: containers,
//! variables, volumes and mounts by name, while plain values are replaced.
//!
//! Invariant: overrides that [`check_overrides`] accepts can be merged, and no field is silently ignored.

use k8s_openapi::{
    DeepMerge,
    api::core::v1::{Container, Pod},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use vpn_types::MaskProviderVerifyOverridesSpec;

use crate::gluetun::CONTAINER;

/// The container that reads the address before the VPN is up.
pub const INIT: &str = "init";
/// The container that reads the address through the VPN.
pub const PROBE: &str = "probe";

/// Checks that the overrides are parts of a Pod and of containers.
///
/// # Errors
/// Returns the path of the invalid field, relative to `overrides`, and the reason.
pub fn check_overrides(overrides: &MaskProviderVerifyOverridesSpec) -> Result<(), String> {
    parse(overrides).map(drop)
}

/// Merges the overrides into the Pod. Containers are matched by name, whether or not they are init containers.
///
/// # Errors
/// As [`check_overrides`].
pub fn merge_overrides(mut pod: Pod, overrides: &MaskProviderVerifyOverridesSpec) -> Result<Pod, String> {
    let Parsed { containers, pod: patch } = parse(overrides)?;
    for container in containers {
        merge_container(&mut pod, container);
    }
    if let Some(mut patch) = patch {
        // `vpn` is an init container here, but was none in 1.0.1. So known containers are matched by name only.
        if let Some(spec) = &mut patch.spec {
            let known = |container: &Container| [INIT, CONTAINER, PROBE].contains(&&*container.name);
            let mut named: Vec<_> = spec.containers.extract_if(.., |container| known(container)).collect();
            named.extend(spec.init_containers.iter_mut().flat_map(|all| all.extract_if(.., |one| known(one))));
            for container in named {
                merge_container(&mut pod, container);
            }
        }
        pod.merge_from(patch);
    }
    Ok(pod)
}

fn merge_container(pod: &mut Pod, patch: Container) {
    let Some(spec) = &mut pod.spec else { return };
    let all = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
    for container in all.filter(|container| container.name == patch.name) {
        // A variable has either a value or a reference, so the override replaces both.
        for variable in container.env.iter_mut().flatten() {
            if patch.env.iter().flatten().any(|other| other.name == variable.name) {
                (variable.value, variable.value_from) = (None, None);
            }
        }
        container.merge_from(patch.clone());
    }
}

struct Parsed {
    containers: Vec<Container>,
    pod: Option<Pod>,
}

fn parse(overrides: &MaskProviderVerifyOverridesSpec) -> Result<Parsed, String> {
    let mut containers = Vec::new();
    if let Some(all) = &overrides.containers {
        for (name, patch) in [(INIT, &all.init), (CONTAINER, &all.vpn), (PROBE, &all.probe)] {
            let Some(patch) = patch else { continue };
            let path = format!("containers.{name}");
            let mut patch = patch.clone();
            let Value::Object(fields) = &mut patch else { return Err(format!("{path}: it has to be an object")) };
            if fields.get("name").is_some_and(|given| given != name) {
                return Err(format!("{path}.name: a container cannot be renamed"));
            }
            fields.insert("name".to_owned(), json!(name));
            containers.push(typed(&path, patch)?);
        }
    }
    let pod = overrides.pod.clone().map(|pod| typed("pod", pod)).transpose()?;
    Ok(Parsed { containers, pod })
}

/// Decodes a value, and rejects unknown fields.
fn typed<T: DeserializeOwned>(path: &str, value: Value) -> Result<T, String> {
    let mut unknown = None;
    let typed = serde_ignored::deserialize(value, |field| {
        unknown.get_or_insert_with(|| field.to_string().replace(".?", ""));
    })
    .map_err(|error| format!("{path}: {error}"))?;
    match unknown {
        Some(field) => Err(format!("{path}.{field}: there is no such field")),
        None => Ok(typed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(value: Value) -> MaskProviderVerifyOverridesSpec {
        serde_json::from_value(value).expect("overrides")
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({"spec": {
            "initContainers": [
                {"name": "init", "image": "a"},
                {"name": "vpn", "image": "b", "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "X"}}}]},
            ],
            "containers": [{"name": "probe", "image": "c"}],
        }}))
        .expect("a Pod")
    }

    fn merged(value: Value) -> Value {
        serde_json::to_value(merge_overrides(pod(), &overrides(value)).expect("merges")).expect("JSON")
    }

    #[test]
    fn containers_are_matched_by_name_in_either_list() {
        let by_kind = merged(json!({"containers": {"vpn": {"image": "new"}, "probe": {"image": "other"}}}));
        let by_name = merged(
            json!({"pod": {"spec": {"containers": [{"name": "vpn", "image": "new"}, {"name": "probe", "image": "other"}]}}}),
        );
        assert_eq!(by_kind, by_name);
        assert_eq!(by_kind["spec"]["initContainers"][1]["image"], "new");
        assert_eq!(by_kind["spec"]["containers"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn lists_are_merged_by_name() {
        let env = json!([{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]);
        let pod = merged(json!({
            "containers": {"vpn": {"env": env}},
            "pod": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "extra", "image": "d"}]}},
        }));
        assert_eq!(pod["spec"]["initContainers"][1]["env"], env);
        assert_eq!(pod["spec"]["initContainers"][1]["image"], "b");
        assert_eq!(pod["spec"]["containers"][1]["name"], "extra");
        assert_eq!(pod["metadata"]["labels"]["a"], "b");
    }

    #[test]
    fn an_invalid_field_is_named() {
        for (value, path) in [
            (json!({"containers": {"vpn": {"imgae": "x"}}}), "containers.vpn.imgae: there is no such field"),
            (json!({"containers": {"vpn": {"image": 7}}}), "containers.vpn: invalid type"),
            (json!({"containers": {"vpn": {"name": "x"}}}), "containers.vpn.name: a container cannot be renamed"),
            (json!({"containers": {"probe": []}}), "containers.probe: it has to be an object"),
            (json!({"pod": {"spec": {"nodeselector": {}}}}), "pod.spec.nodeselector: there is no such field"),
        ] {
            let why = check_overrides(&overrides(value)).expect_err("refused");
            assert!(why.starts_with(path), "{why}");
        }
    }
}
