//! A Pod takes at most 300 bytes in the sums of the capacity of the cluster.

use k8s_openapi::api::core::v1::Pod;
use peak_alloc::PeakAlloc;
use serde_json::json;
use vpn_operator::capacity::{Cluster, PodView};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const LIMIT: usize = 300;

fn pod(number: usize) -> Pod {
    let set = number / 50;
    let pod = json!({
        "metadata": {
            "name": format!("a-deployment-of-usual-length-5d8f7c9b6d-{number:05}"),
            "namespace": format!("namespace-{}", number % 20),
            "labels": {
                "app.kubernetes.io/name": "a-deployment",
                "app.kubernetes.io/instance": format!("instance-{set}"),
                "app.kubernetes.io/managed-by": "Helm",
                "pod-template-hash": format!("{set:010x}"),
            },
        },
        "spec": {
            "nodeName": format!("node-{}", number % 500),
            "priority": number % 3,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}}],
        },
        "status": {"phase": "Running"},
    });
    serde_json::from_value(pod).expect("a Pod")
}

#[test]
fn a_pod_takes_at_most_300_bytes() {
    let mut cluster = Cluster::default();
    // Sizes just after the hash tables have grown, and just before.
    let mut applied = 0;
    let before = ALLOCATOR.current_usage();
    for pods in [10_000, 20_000, 40_000] {
        for number in applied..pods {
            cluster.apply_pod(PodView::of(&pod(number)).expect("a view"));
        }
        applied = pods;
        let bytes = (ALLOCATOR.current_usage() - before) / pods;
        println!("{pods} Pods: {bytes} bytes each");
        assert!(bytes <= LIMIT, "{bytes} bytes for each of {pods} Pods");
    }
    assert_eq!(cluster.pods(), applied);
}
