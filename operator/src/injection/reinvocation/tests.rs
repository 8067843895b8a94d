#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, sample::subsequence};
use vpn_types::inject::{INJECT_LABEL, SIDECAR_ANNOTATION};

use super::*;
use crate::injection::{Answer, Defaults, Inputs, MaskSecret, decide};

/// What the webhook makes of a Pod. A later call has another suffix, as its request has another UID.
fn call(pod: &Value, suffix: &str) -> Value {
    let defaults =
        Defaults { image: "gluetun:1".to_owned(), resources: None, outbound_subnets: vec!["10.0.0.0/8".into()] };
    let namespace_labels = &BTreeMap::new();
    let inputs = Inputs { namespace_labels, minor: 36, defaults: &defaults, suffix, mask: MaskSecret::NoMask };
    match decide(pod, &inputs) {
        Answer::Changed(new) => new,
        Answer::Unchanged => pod.clone(),
        Answer::Refused(why) => panic!("{why}"),
    }
}

fn pod(sidecar: &str, ports: &[u16]) -> Value {
    let ports: Vec<_> = ports.iter().map(|port| json!({"containerPort": port})).collect();
    json!({
        "metadata": {
            "name": "app", "labels": {INJECT_LABEL: "true"}, "annotations": {SIDECAR_ANNOTATION: sidecar},
        },
        "spec": {"containers": [{"name": "app", "image": "app", "ports": ports}]},
    })
}

/// Adds the containers of another webhook.
fn mesh(pod: &Value, containers: &[Value], init_containers: &[Value], fields: &Value) -> Value {
    let mut new = pod.clone();
    for (list, added) in [("containers", containers), ("initContainers", init_containers)] {
        // In front, which is the worst place for the sidecar.
        let present = new["spec"][list].as_array().cloned().unwrap_or_default();
        new["spec"][list] = json!([added, &present].concat());
    }
    json_patch::merge(&mut new["spec"], fields);
    new
}

/// Sorts the lists whose order does not matter, and leaves out empty ones.
fn comparable(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let spec = &mut pod["spec"];
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            if let Some(env) = container["env"].as_array_mut() {
                env.sort_by_key(|one| one["name"].to_string());
            }
        }
        let first = usize::from(list == "initContainers");
        if let Some(containers) = spec[list].as_array_mut().filter(|containers| containers.len() > first) {
            containers[first..].sort_by_key(|one| one["name"].to_string());
        }
        if spec[list] == json!([]) {
            spec[list] = Value::Null;
        }
    }
    pod
}

proptest! {
    /// The other webhook may be called before ours or after it: the Pods are the same.
    #[test]
    fn the_order_of_the_webhooks_makes_no_difference(
        has_sidecar in any::<bool>(),
        ports in subsequence(vec![80u16, 8000, 8001, 9999, 10000], 0..4),
        added_ports in vec(prop_oneof![Just(8000u16), Just(9999), Just(15021), Just(15090)], 0..4),
        init_containers in 0..3usize,
        fields in prop_oneof![
            Just(json!({})),
            Just(json!({"terminationGracePeriodSeconds": 0})),
            Just(json!({"enableServiceLinks": true, "terminationGracePeriodSeconds": 7})),
        ],
    ) {
        let before = pod(if has_sidecar { "gluetun" } else { "none" }, &ports);
        let added: Vec<_> = added_ports.iter().enumerate().map(|(number, port)| json!({
            "name": format!("proxy-{number}"), "image": "proxy",
            "readinessProbe": {"httpGet": {"path": "/healthz/ready", "port": port}},
        })).collect();
        let inits: Vec<_> = (0..init_containers).map(|number| json!({"name": format!("init-{number}"), "image": "i"})).collect();
        let theirs = |pod: &Value| mesh(pod, &added, &inits, &fields);
        let ours_last = call(&theirs(&before), "first");
        let ours_first = call(&theirs(&call(&before, "first")), "second");
        prop_assert_eq!(comparable(&ours_first), comparable(&ours_last));
        prop_assert_eq!(&call(&ours_first, "third"), &ours_first);
    }
}

/// Such as one that takes images from a mirror, or that adds a variable to each container.
#[test]
fn what_another_webhook_changes_in_the_sidecar_stays() {
    let mut changed = call(&pod("gluetun", &[80]), "first");
    let sidecar = &mut changed["spec"]["initContainers"][0];
    sidecar["image"] = json!("mirror.example/gluetun:1");
    sidecar["env"].as_array_mut().unwrap().push(json!({"name": "TZ", "value": "UTC"}));
    changed["spec"]["containers"].as_array_mut().unwrap().push(json!({
        "name": "proxy", "image": "proxy", "ports": [{"containerPort": 15021}],
    }));
    let mut expected = changed.clone();
    let env = expected["spec"]["initContainers"][0]["env"].as_array_mut().unwrap();
    env.iter_mut().find(|one| one["name"] == "FIREWALL_INPUT_PORTS").unwrap()["value"] = json!("80,15021");
    assert_eq!(call(&changed, "second"), expected);
}
