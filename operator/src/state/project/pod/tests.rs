use serde_json::{Value, json};

use super::*;

fn view(mut body: Value) -> PodView {
    for (field, value) in [("uid", "u1"), ("resourceVersion", "7"), ("namespace", "ns"), ("name", "x")] {
        body["metadata"][field] = json!(value);
    }
    let pod: Pod = serde_json::from_value(body).expect("decodes");
    pod.project().expect("has name, UID and version")
}

fn status(name: &str, state: Value) -> Value {
    json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

fn terminated(code: i32, finished_at: Option<&str>) -> Value {
    json!({"terminated": {"exitCode": code, "finishedAt": finished_at}})
}

const ASKED: &str = "2030-01-01T00:00:00Z";
const BEFORE: &str = "2029-12-31T23:59:59Z";
const GRACE: i64 = 30;
const END_OF_GRACE: &str = "2030-01-01T00:00:30Z";

/// A bound Pod with one container, and additional fields.
fn pod(added: Value) -> Value {
    let mut pod = json!({
        "metadata": {"generation": 1},
        "spec": {"nodeName": "n", "containers": [{"name": "a"}]},
        "status": {"phase": "Running"},
    });
    json_patch::merge(&mut pod, &added);
    pod
}

fn deleted(added: Value) -> Value {
    let metadata = json!({"deletionTimestamp": END_OF_GRACE, "deletionGracePeriodSeconds": GRACE, "generation": 2});
    let mut pod = pod(json!({ "metadata": metadata }));
    json_patch::merge(&mut pod, &added);
    pod
}

fn stage(pod: Value) -> PodStage {
    view(pod).stage
}

#[test]
fn a_pod_that_is_not_deleted_has_not_ended_even_if_all_its_containers_have() {
    for (policy, code) in [("Always", 0), ("Always", 1), ("OnFailure", 1), ("OnFailure", 0), ("Never", 0)] {
        let ended = pod(json!({
            "spec": {"restartPolicy": policy},
            "status": {"containerStatuses": [status("a", terminated(code, None))]},
        }));
        assert_eq!(stage(ended), PodStage::Running, "{policy} {code}");
    }
}

#[test]
fn a_final_phase_is_evidence_unless_pod_garbage_collection_set_it() {
    let collected = json!([{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}]);
    let evicted = json!([{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}]);
    for phase in ["Succeeded", "Failed"] {
        let never_ran = json!({"waiting": {"reason": "ImagePullBackOff"}});
        for state in [terminated(1, None), never_ran] {
            let with = |conditions: &Value| {
                pod(json!({"status": {
                    "phase": phase, "conditions": conditions, "containerStatuses": [status("a", state.clone())],
                }}))
            };
            assert_eq!(stage(with(&json!([]))), PodStage::Ended);
            assert_eq!(stage(with(&evicted)), PodStage::Ended);
            assert_eq!(stage(with(&collected)), PodStage::Running);
        }
        // Pod garbage collection adds no condition on a node with the taint `node.kubernetes.io/out-of-service`.
        let mut crashing = status("a", json!({"waiting": {"reason": "CrashLoopBackOff"}}));
        crashing["restartCount"] = json!(3);
        let statuses = json!({"status": {"phase": phase, "containerStatuses": [crashing]}});
        assert_eq!(stage(pod(statuses)), PodStage::Running);
        // It also writes the generation that only kubelet can observe.
        let was_terminated = deleted(json!({"status": {
            "phase": phase, "conditions": collected, "observedGeneration": 2,
            "containerStatuses": [status("a", terminated(1, Some(BEFORE)))],
        }}));
        assert_eq!(stage(was_terminated), PodStage::Running);
        // Rejected by kubelet: nothing has ever started.
        assert_eq!(stage(pod(json!({"status": {"phase": phase}}))), PodStage::Ended);
        // Contradictory, so not an end.
        let running = json!({"status": {"phase": phase, "containerStatuses": [status("a", json!({"running": {}}))]}});
        assert_eq!(stage(pod(running)), PodStage::Running);
    }
}

#[test]
fn a_deleted_pod_has_ended_once_all_its_containers_have() {
    let all = |a: Value, sidecar: Value| {
        deleted(json!({
            "spec": {"initContainers": [{"name": "s", "restartPolicy": "Always"}]},
            "status": {"observedGeneration": 2, "containerStatuses": [status("a", a)],
                       "initContainerStatuses": [status("s", sidecar)]},
        }))
    };
    let end = || terminated(137, Some(END_OF_GRACE));
    assert_eq!(stage(all(end(), end())), PodStage::Ended);
    assert_eq!(stage(all(end(), json!({"running": {}}))), PodStage::Running);
    assert_eq!(stage(all(json!({"waiting": {}}), end())), PodStage::Running);
    assert_eq!(stage(all(end(), json!({"waiting": {}}))), PodStage::Ended);
    let two = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
    let mut lacks = deleted(json!({"status": {"observedGeneration": 2, "containerStatuses": [status("a", end())]}}));
    assert_eq!(stage(lacks.clone()), PodStage::Ended);
    json_patch::merge(&mut lacks, &two);
    assert_eq!(stage(lacks), PodStage::Running);
}

/// A container that crashed before the node observed the deletion may run again.
#[test]
fn a_status_from_before_the_node_observed_the_deletion_is_no_evidence() {
    let crashed = |policy: Value, code: i32, seen: Option<i64>, at: Option<&str>| {
        let mut spec = policy;
        spec["name"] = json!("a");
        stage(deleted(json!({
            "spec": {"containers": [spec]},
            "status": {"observedGeneration": seen, "containerStatuses": [status("a", terminated(code, at))]},
        })))
    };
    let always = || json!({});
    let never = || json!({"restartPolicy": "Never"});
    let on_failure = || json!({"restartPolicy": "OnFailure"});
    let rule = |operator: &str, action: &str| {
        json!({"restartPolicy": "Never", "restartPolicyRules": [
            {"action": action, "exitCodes": {"operator": operator, "values": [42]}},
        ]})
    };
    use PodStage::{Ended, Running};
    // With an observed generation.
    assert_eq!(crashed(always(), 1, Some(1), Some(END_OF_GRACE)), Running);
    assert_eq!(crashed(always(), 1, Some(2), Some(BEFORE)), Ended);
    assert_eq!(crashed(never(), 1, Some(1), None), Ended);
    assert_eq!(crashed(on_failure(), 0, Some(1), None), Ended);
    assert_eq!(crashed(on_failure(), 1, Some(1), None), Running);
    assert_eq!(crashed(rule("In", "Restart"), 42, Some(1), None), Running);
    assert_eq!(crashed(rule("In", "Restart"), 1, Some(1), None), Ended);
    assert_eq!(crashed(rule("NotIn", "Restart"), 1, Some(1), None), Running);
    assert_eq!(crashed(rule("In", "RestartAllContainers"), 42, Some(1), None), Running);
    // Without an observed generation, the time proves nothing: the clock of the node may be wrong.
    for at in [Some(BEFORE), Some(ASKED), Some(END_OF_GRACE), None] {
        assert_eq!(crashed(always(), 1, None, at), Running, "{at:?}");
        assert_eq!(crashed(on_failure(), 0, None, at), Ended, "{at:?}");
    }
    assert_eq!(crashed(never(), 1, None, Some(BEFORE)), Ended);
}

#[test]
fn a_pod_without_a_node_is_unbound() {
    let unbound = view(json!({"metadata": {}, "spec": {"containers": []}, "status": {"phase": "Pending"}}));
    assert_eq!(unbound.stage, PodStage::Unbound);
}

/// Deleted while an init container ran: the other containers never start, and keep waiting in the last status.
#[test]
fn a_pod_that_was_deleted_before_it_was_initialized_has_ended_only_with_a_final_phase() {
    let stage = |phase: &str, vpn: Value, conditions: Value| {
        stage(deleted(json!({
            "spec": {"containers": [{"name": "probe"}], "initContainers": [{"name": "vpn"}]},
            "status": {
                "phase": phase, "conditions": conditions,
                "initContainerStatuses": [status("vpn", vpn)],
                "containerStatuses": [status("probe", json!({"waiting": {"reason": "PodInitializing"}}))],
            },
        })))
    };
    let (ended, running) = (terminated(0, None), json!({"running": {}}));
    let collected = json!([{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}]);
    assert_eq!(stage("Failed", ended.clone(), json!([])), PodStage::Ended);
    assert_eq!(stage("Pending", ended.clone(), json!([])), PodStage::Running);
    assert_eq!(stage("Failed", running, json!([])), PodStage::Running);
    assert_eq!(stage("Failed", ended, collected), PodStage::Running);
}

#[test]
fn every_reference_to_a_secret_is_found() {
    let key = |name: &str| json!({"secretKeyRef": {"name": name, "key": "k"}});
    let pod = view(json!({"metadata": {}, "spec": {
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

#[test]
fn a_pod_belongs_to_a_workload_unless_a_consumer_controls_it() {
    let owned = |owners: Value| view(json!({"metadata": {"ownerReferences": owners}})).is_of_workload;
    let owner = |version: &str, kind: &str, controller: bool| json!({"apiVersion": version, "kind": kind, "name": "o", "uid": "o", "controller": controller});
    assert!(owned(json!([owner("apps/v1", "ReplicaSet", true)])));
    assert!(!owned(json!([owner("apps/v1", "ReplicaSet", false)])));
    assert!(!owned(json!([owner("vpn.beebs.dev/v1", "MaskConsumer", true)])));
    assert!(!owned(json!([])));
}
