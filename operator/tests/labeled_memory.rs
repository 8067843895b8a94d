//! A labeled Pod takes at most 1 KiB of memory, besides its Mask and the objects of its slot.

use k8s_openapi::api::core::v1::Pod;
use peak_alloc::PeakAlloc;
use serde_json::json;
use vpn_operator::state::{ClusterState, InjectedPod, Object, WatchEvent};
use vpn_types::inject::{INJECT_LABEL, INJECTED_ANNOTATION, SLOT_GATE};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const PODS: usize = 10_000;
const LIMIT: usize = 1024;

/// A replica of a Deployment, half of which wait.
fn pod(number: usize) -> Object {
    let (set, waits) = (number / 50, number.is_multiple_of(2));
    let name = format!("a-deployment-of-usual-length-5d8f7c9b6d-{number:05}");
    let injected = json!({
        "version": "2.0.0", "secret": format!("{name}-vpn-x7k2p"), "providers": ["uk", "us"], "priority": 5, "surge": "wait",
    });
    let gates = if waits { json!([{"name": SLOT_GATE}]) } else { json!(null) };
    let message = format!("All slots of accounts/london, accounts/paris are taken; place {number} in line");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "namespace": format!("a-namespace-of-usual-length-{}", number % 20),
            "uid": format!("3f2b1c4d-0000-4000-8000-{number:012x}"),
            "resourceVersion": (1000 + number).to_string(),
            "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {
                INJECT_LABEL: "true", "app.kubernetes.io/name": "a-deployment", "pod-template-hash": "5d8f7c9b6d",
            },
            "annotations": {INJECTED_ANNOTATION: injected.to_string()},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a-deployment-of-usual-length-5d8f7c9b6d",
                "uid": format!("9a8b7c6d-0000-4000-8000-{set:012x}"), "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {"schedulingGates": gates, "containers": [{"name": "app", "image": "app"}]},
        "status": {"phase": "Pending", "conditions": [{
            "type": "vpn.beebs.dev/SlotAssigned", "status": if waits { "False" } else { "True" }, "reason": "NoFreeSlot",
            "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]},
    }))
    .expect("a Pod");
    Object::InjectedPod(Box::new(InjectedPod::of(&pod).expect("an injected Pod")))
}

#[test]
fn a_labeled_pod_takes_little_memory() {
    let mut state = ClusterState::default();
    let before = ALLOCATOR.current_usage();
    for number in 0..PODS {
        for change in state.watch_event(WatchEvent::Apply(pod(number))).changes {
            state.reindex(&change);
        }
    }
    assert_eq!(state.injected_pods.len(), PODS);
    let each = (ALLOCATOR.current_usage() - before) / PODS;
    println!("{each} bytes per labeled Pod");
    assert!(each <= LIMIT, "{each} bytes per labeled Pod");
}
