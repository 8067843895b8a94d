#![allow(clippy::unwrap_used, reason = "a test")]

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use vpn_types::{
    MaskConsumer,
    inject::{INJECT_LABEL, INJECTED_ANNOTATION, SLOT_GATE},
};

use super::{GateReason, gated};
use crate::state::{ClusterState, InjectedPod, Object, Project, WatchEvent};

fn metadata(name: &str, second: u32) -> Value {
    json!({
        "namespace": "apps", "name": name, "uid": format!("uid of {name}"), "resourceVersion": "1",
        "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
    })
}

/// Returns a Pod whose Secret has the name of its Mask, or of the Mask that it shares and an `s`.
fn pod(name: &str, second: u32, shares: Option<&str>, gates: &[&str]) -> Value {
    let secret = shares.map_or_else(|| name.to_owned(), |mask| format!("{mask}s"));
    let injected = json!({"version": "2.0.0", "secret": secret, "mask": shares});
    let mut metadata = metadata(name, second);
    metadata["labels"] = json!({INJECT_LABEL: "true"});
    metadata["annotations"] = json!({INJECTED_ANNOTATION: injected.to_string()});
    let gates: Vec<_> = gates.iter().map(|name| json!({"name": name})).collect();
    json!({"metadata": metadata, "spec": {"containers": [], "schedulingGates": gates}})
}

/// Returns a MaskConsumer for the Mask of a Pod, or for one that Pods share.
fn consumer(name: &str, pod: Option<&str>, status: Value) -> Value {
    let pod = pod.map(|pod| json!({"name": pod, "uid": format!("uid of {pod}")}));
    let mask = json!({"uid": "uid of the Mask", "creationTimestamp": "2026-01-01T00:00:00Z", "pod": pod});
    json!({"metadata": metadata(name, 0), "spec": {"mask": mask}, "status": status})
}

fn active(secret: &str, holder: Option<&str>) -> Value {
    let pod = holder.map(|pod| json!({"name": pod, "uid": format!("uid of {pod}")}));
    json!({"phase": "Active", "pod": pod, "provider": {
        "namespace": "vpn", "name": "paris", "uid": "uid of paris", "slot": 0, "reservation": "uid of paris-0",
        "secret": secret,
    }})
}

/// Returns the number of Pods and the second of the oldest, for each reason that any has.
fn shown(
    pods: impl IntoIterator<Item = Value>,
    consumers: impl IntoIterator<Item = Value>,
) -> Vec<(&'static str, u64, i64)> {
    let mut state = ClusterState::default();
    for pod in pods {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        state.watch_event(WatchEvent::Apply(Object::InjectedPod(Box::new(InjectedPod::of(&pod).unwrap()))));
    }
    for consumer in consumers {
        let consumer: MaskConsumer = serde_json::from_value(consumer).unwrap();
        state.watch_event(WatchEvent::Apply(Object::Consumer(consumer.project().unwrap())));
    }
    let all = gated(&state);
    assert_eq!(all.keys().map(|namespace| &**namespace).collect::<Vec<_>>(), ["apps"]);
    let pods = &all["apps"];
    let reasons = GateReason::ALL.into_iter().filter(|reason| pods.count(*reason) > 0);
    reasons.map(|reason| (reason.as_str(), pods.count(reason), pods.oldest(reason).unwrap().timestamp() % 60)).collect()
}

const OWN: [&str; 1] = [SLOT_GATE];

#[test]
fn pods_wait_for_what_their_mask_lacks() {
    let pods = || [pod("one", 20, None, &OWN), pod("two", 10, None, &OWN)];
    assert_eq!(shown(pods(), []), [("NoMask", 2, 10)]);
    let waits = consumer("one", Some("one"), json!({"phase": "Waiting"}));
    assert_eq!(shown(pods(), [waits]), [("NoMask", 1, 10), ("NoSlot", 1, 20)]);
    let mut deleted = consumer("one", Some("one"), active("one", None));
    let assigned = deleted.clone();
    assert_eq!(shown(pods(), [assigned]), [("NoMask", 1, 10), ("SlotAssigned", 1, 20)]);
    // A release in progress, after which the Mask waits again.
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:01:00Z");
    assert_eq!(shown(pods(), [deleted]), [("NoMask", 1, 10), ("NoSlot", 1, 20)]);
}

#[test]
fn pods_without_the_gate_and_those_that_are_deleted_do_not_wait() {
    let mut deleted = pod("two", 10, None, &OWN);
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:01:00Z");
    assert_eq!(shown([pod("one", 0, None, &[]), deleted], []), []);
}

#[test]
fn a_pod_with_the_gate_of_another_component_waits_for_that_before_its_mask_exists() {
    let pods = || [pod("one", 5, None, &["example.com/quota", SLOT_GATE])];
    assert_eq!(shown(pods(), []), [("OtherSchedulingGate", 1, 5)]);
    let waits = consumer("one", Some("one"), json!({"phase": "Waiting"}));
    assert_eq!(shown(pods(), [waits]), [("NoSlot", 1, 5)]);
    assert_eq!(shown([pod("one", 5, None, &["example.com/quota"])], []), []);
}

#[test]
fn pods_that_share_a_mask_wait_for_the_one_that_has_its_slot() {
    let pods = || ["one", "two"].map(|name| pod(name, 5, Some("mask"), &OWN));
    let held = consumer("mask", None, active("masks", Some("one")));
    assert_eq!(shown(pods(), [held]), [("SlotInUseByPod", 1, 5), ("SlotAssigned", 1, 5)]);
    // Nobody has it, so the first of them should get it.
    let free = consumer("mask", None, active("masks", None));
    assert_eq!(shown(pods(), [free]), [("SlotAssigned", 2, 5)]);
    // The credentials are in another Secret, so their turn never comes.
    let other = consumer("mask", None, active("other", Some("three")));
    assert_eq!(shown(pods(), [other]), [("SlotAssigned", 2, 5)]);
}

#[test]
fn the_mask_of_another_pod_is_none() {
    let theirs = |name| consumer(name, Some("another"), active(name, None));
    assert_eq!(shown([pod("copy", 5, None, &OWN)], [theirs("copy")]), [("NoMask", 1, 5)]);
    assert_eq!(shown([pod("one", 5, Some("mask"), &OWN)], [theirs("mask")]), [("NoMask", 1, 5)]);
}
