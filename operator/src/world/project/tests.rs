use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskReservation};

use super::*;

fn view<T: Project + serde::de::DeserializeOwned>(mut body: Value) -> T::View {
    for (field, value) in [("uid", "u1"), ("resourceVersion", "7"), ("namespace", "ns"), ("name", "x-3")] {
        if body["metadata"].get(field).is_none() {
            body["metadata"][field] = json!(value);
        }
    }
    let object: T = serde_json::from_value(body).expect("decodes");
    object.project().expect("has name, UID and version")
}

#[test]
fn a_mask_without_spec_wants_any_provider() {
    for body in [json!({"spec": null}), json!({})] {
        let mask = view::<Mask>(body);
        assert_eq!((mask.tags, mask.priority), (None, 0));
        assert!(view::<MaskConsumer>(json!({"spec": null})).mask.is_none());
    }
}

#[test]
fn a_mask_with_an_empty_list_of_tags_wants_none() {
    let mask = view::<Mask>(json!({"spec": {"providers": []}}));
    assert!(mask.tags.is_some_and(|tags| tags.is_empty()));
}

#[test]
fn an_object_without_version_has_no_view() {
    let mask: Mask = serde_json::from_value(json!({"metadata": {"name": "x", "uid": "u"}})).expect("decodes");
    assert!(mask.project().is_none());
}

#[test]
fn the_name_of_a_reservation_tells_its_slot() {
    let spec = json!({"name": "m", "namespace": "ns", "uid": "c1"});
    let reservation = view::<MaskReservation>(json!({"spec": spec}));
    assert_eq!(reservation.slot, Some((Arc::from("x"), 3)));
    assert_eq!(reservation.provider_uid, None);
    let other = view::<MaskReservation>(json!({"metadata": {"name": "x-03"}, "spec": spec}));
    assert_eq!(other.slot, None);
}

#[test]
fn owners_of_other_groups_do_not_count() {
    let owner = |group: &str| json!([{"apiVersion": group, "kind": "Mask", "name": "m", "uid": "m1"}]);
    let of = |group| view::<MaskConsumer>(json!({"metadata": {"ownerReferences": owner(group)}})).owner;
    assert_eq!(of("vpn.beebs.dev/v1"), Some(Uid::from("m1")));
    assert_eq!(of("example.com/v1"), None);
}

#[test]
fn timestamps_alone_do_not_change_the_fingerprint_of_a_status() {
    let status = |message: &str, at: &str| {
        let condition = json!({
            "type": "Ready", "status": "True", "reason": "Assigned", "message": message, "lastTransitionTime": at,
        });
        let status = json!({"phase": "Active", "message": message, "lastUpdated": at, "conditions": [condition]});
        view::<Mask>(json!({"status": status})).status.fingerprint
    };
    assert_eq!(status("one", "2030-01-01T00:00:00Z"), status("one", "2031-01-01T00:00:00Z"));
    assert_ne!(status("one", "2030-01-01T00:00:00Z"), status("two", "2030-01-01T00:00:00Z"));
}

#[test]
fn a_duration_that_cannot_be_read_is_told() {
    let spec = json!({"secret": "s", "maxSlots": 1, "release": {"delay": "soon"}});
    let provider = view::<MaskProvider>(json!({"spec": spec}));
    assert!(provider.invalid.is_some_and(|why| why.contains("release.delay")));
}

fn stage(status: Value) -> PodStage {
    let containers = json!([{"name": "a"}, {"name": "b"}]);
    view::<Pod>(json!({"spec": {"nodeName": "n", "containers": containers}, "status": status})).stage
}

#[test]
fn a_pod_ends_when_all_its_containers_have_terminated_whatever_its_phase() {
    let container = |name: &str, state: &str| {
        let state = if state == "terminated" { json!({state: {"exitCode": 0}}) } else { json!({state: {}}) };
        json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state})
    };
    let both = |a: &str, b: &str| json!([container("a", a), container("b", b)]);
    assert_eq!(stage(json!({"phase": "Failed"})), PodStage::Running);
    assert_eq!(stage(json!({"containerStatuses": both("terminated", "running")})), PodStage::Running);
    assert_eq!(stage(json!({"containerStatuses": [container("a", "terminated")]})), PodStage::Running);
    assert_eq!(stage(json!({"containerStatuses": both("terminated", "terminated")})), PodStage::Ended);
    let sidecar = |state: &str| json!({"containerStatuses": both("terminated", "terminated"), "initContainerStatuses": [container("c", state)]});
    assert_eq!(stage(sidecar("running")), PodStage::Running);
    assert_eq!(stage(sidecar("waiting")), PodStage::Ended);
    let unbound = view::<Pod>(json!({"spec": {"containers": []}, "status": {"phase": "Pending"}}));
    assert_eq!(unbound.stage, PodStage::Unbound);
}

#[test]
fn every_way_to_use_a_secret_is_found() {
    let key = |name: &str| json!({"secretKeyRef": {"name": name, "key": "k"}});
    let pod = view::<Pod>(json!({"spec": {
        "containers": [{"name": "a", "env": [{"name": "E", "valueFrom": key("env")}]}],
        "initContainers": [{"name": "b", "envFrom": [{"secretRef": {"name": "init"}}]}],
        "ephemeralContainers": [{"name": "c", "envFrom": [{"secretRef": {"name": "ephemeral"}}]}],
        "volumes": [
            {"name": "v", "secret": {"secretName": "volume"}},
            {"name": "w", "projected": {"sources": [{"secret": {"name": "projected"}}]}},
        ],
    }}));
    let names: Vec<_> = pod.secrets.iter().map(|name| &**name).collect();
    assert_eq!(names, ["env", "ephemeral", "init", "projected", "volume"]);
}

/// Deleted while an init container ran: the others never start, and stay as they are in its last status.
#[test]
fn a_pod_that_ended_before_it_was_initialized_has_ended_only_by_the_word_of_its_node() {
    let stage = |phase: &str, vpn: Value, conditions: Value| {
        let status = |name: &str, state: &Value| json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        view::<Pod>(json!({
            "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n", "containers": [{"name": "probe"}], "initContainers": [{"name": "vpn"}]},
            "status": {
                "phase": phase, "conditions": conditions,
                "initContainerStatuses": [status("vpn", &vpn)],
                "containerStatuses": [status("probe", &json!({"waiting": {"reason": "PodInitializing"}}))],
            },
        }))
        .stage
    };
    let (ended, running) = (json!({"terminated": {"exitCode": 0}}), json!({"running": {}}));
    let collected = json!([{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}]);
    assert_eq!(stage("Failed", ended.clone(), json!([])), PodStage::Ended);
    assert_eq!(stage("Pending", ended.clone(), json!([])), PodStage::Running);
    assert_eq!(stage("Failed", running, json!([])), PodStage::Running);
    assert_eq!(stage("Failed", ended, collected), PodStage::Running);
}
