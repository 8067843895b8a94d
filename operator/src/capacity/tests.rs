mod simulation;

use std::sync::Arc;

use kube::core::{Expression, Selector};
use proptest::{collection::vec, prelude::*};
use serde_json::json;

use super::*;
use crate::model::{LabelMatcher, ObjectKey, labels};

fn amount(cpu_millis: u64, memory_bytes: u64) -> Resources {
    Resources { cpu_millis, memory_bytes }
}

fn node(name: &str, resources: Resources, pods: u64) -> NodeView {
    let allocatable = Allocatable { resources, pods };
    NodeView {
        name: Arc::from(name),
        capacity: allocatable,
        allocatable,
        is_cordoned: false,
        is_ready: true,
        is_tainted: false,
    }
}

fn pod(app: &str, name: &str, node: Option<&str>, requests: Resources) -> PodView {
    PodView {
        key: ObjectKey::new("default", name),
        node: node.map(Arc::from),
        labels: labels([(&"app".to_owned(), &app.to_owned())]),
        priority: if app == "batch" { -10 } else { 0 },
        requests,
        is_counted: true,
    }
}

fn selected(app: &str) -> Consumers {
    let selector: Selector = Expression::Equal("app".to_owned(), app.to_owned()).into();
    Consumers::Selected { namespace: Arc::from("default"), labels: LabelMatcher::new(selector) }
}

fn query(reserve: Resources, replica: Resources) -> Query {
    Query { consumers: selected("batch"), reserve, replica }
}

/// Nodes with what others use of them.
#[derive(Clone, Debug)]
struct Situation {
    nodes: Vec<(u64, u64, u64)>,
    others: Vec<(Option<usize>, u64, u64)>,
    consumers: Vec<(Option<usize>, u64, u64)>,
    reserve: (u64, u64),
    replica: (u64, u64),
}

fn situation() -> impl Strategy<Value = Situation> {
    let pods = || vec((proptest::option::weighted(0.8, 0usize..6), 0u64..3000, 0u64..3000), 0..12);
    (
        vec((0u64..10_000, 0u64..10_000, 0u64..8), 0..6),
        pods(),
        pods(),
        (0u64..5000, 0u64..5000),
        (0u64..3000, 0u64..3000),
    )
        .prop_map(|(nodes, others, consumers, reserve, replica)| Situation {
            nodes,
            others,
            consumers,
            reserve,
            replica,
        })
}

impl Situation {
    fn name(index: usize) -> String {
        format!("node-{index}")
    }

    fn pods<'a>(app: &'a str, all: &'a [(Option<usize>, u64, u64)]) -> impl Iterator<Item = PodView> + 'a {
        all.iter().enumerate().map(move |(index, (at, cpu, memory))| {
            let node = at.map(Self::name);
            pod(app, &format!("{app}-{index}"), node.as_deref(), amount(*cpu, *memory))
        })
    }

    fn cluster(&self) -> Cluster {
        let mut cluster = Cluster::default();
        for (index, (cpu, memory, pods)) in self.nodes.iter().enumerate() {
            cluster.apply_node(node(&Self::name(index), amount(*cpu, *memory), *pods));
        }
        Self::pods("other", &self.others).for_each(|pod| cluster.apply_pod(pod));
        cluster
    }

    fn query(&self) -> Query {
        query(amount(self.reserve.0, self.reserve.1), amount(self.replica.0, self.replica.1))
    }

    /// What the bound Pods of others leave on each Node: CPU, memory and Pods.
    fn free(&self) -> Vec<(u64, u64, u64)> {
        let mut free = self.nodes.clone();
        for (at, cpu, memory) in &self.others {
            if let Some(node) = at.and_then(|at| free.get_mut(at)) {
                *node = (node.0.saturating_sub(*cpu), node.1.saturating_sub(*memory), node.2.saturating_sub(1));
            }
        }
        free
    }
}

proptest! {
    #[test]
    fn the_replicas_fit_and_leave_the_reserve(mut given in situation()) {
        given.others.retain(|(at, ..)| at.is_some());
        let mut left = given.cluster().available(&given.query()).replicas_that_fit;
        let mut free = given.free();
        for (cpu, memory, pods) in &mut free {
            while left > 0 && *cpu >= given.replica.0 && *memory >= given.replica.1 && *pods > 0 {
                (*cpu, *memory, *pods, left) = (*cpu - given.replica.0, *memory - given.replica.1, *pods - 1, left - 1);
            }
        }
        prop_assert_eq!(left, 0, "replicas without a place");
        let (cpu, memory) = free.iter().fold((0, 0), |(cpu, memory), node| (cpu + node.0, memory + node.1));
        // Without replicas, the reserve may be larger than what is there.
        if given.cluster().available(&given.query()).replicas_that_fit > 0 {
            prop_assert!(given.replica.0 == 0 || cpu >= given.reserve.0);
            prop_assert!(given.replica.1 == 0 || memory >= given.reserve.1);
        }
    }

    #[test]
    fn there_is_no_place_for_one_more_replica_without_the_reserve(mut given in situation()) {
        given.others.retain(|(at, ..)| at.is_some());
        let fit = given.cluster().available(&query(Resources::default(), given.query().replica)).replicas_that_fit;
        let by = |free: u64, each: u64| free.checked_div(each).unwrap_or(u64::MAX);
        let each = given.replica;
        let most = given.free().iter().map(|node| by(node.0, each.0).min(by(node.1, each.1)).min(node.2)).sum::<u64>();
        prop_assert_eq!(fit, most);
    }

    #[test]
    fn the_consumers_that_run_make_no_difference(given in situation()) {
        let mut cluster = given.cluster();
        let consumers = [selected("batch"), Consumers::BelowPriority(0)];
        let all = consumers.map(|consumers| Query { consumers, ..given.query() });
        let before = all.clone().map(|query| cluster.available(&query));
        prop_assert_eq!(before[0], before[1]);
        Situation::pods("batch", &given.consumers).for_each(|pod| cluster.apply_pod(pod));
        prop_assert_eq!(all.map(|query| cluster.available(&query)), before);
    }

    #[test]
    fn what_waits_or_is_kept_in_reserve_only_takes_away(given in situation()) {
        let with = given.cluster().available(&given.query());
        let mut without = given.clone();
        without.others.retain(|(at, ..)| at.is_some());
        without.reserve = (0, 0);
        let without = without.cluster().available(&without.query());
        prop_assert!(with.replicas_that_fit <= without.replicas_that_fit);
        prop_assert!(with.resources.cpu_millis <= without.resources.cpu_millis);
        prop_assert!(with.resources.memory_bytes <= without.resources.memory_bytes);
        let cpu = u128::from(with.replicas_that_fit) * u128::from(given.replica.0);
        prop_assert!(cpu <= u128::from(with.resources.cpu_millis));
    }

    #[test]
    fn removal_restores(given in situation(), order in vec(any::<prop::sample::Index>(), 1..40)) {
        let mut cluster = given.cluster();
        let query = Query { consumers: selected("nobody"), ..given.query() };
        let before = (cluster.totals(), cluster.available(&query), cluster.pods(), format!("{cluster:?}").len());
        let added: Vec<_> = Situation::pods("batch", &given.consumers).collect();
        for index in order {
            if added.is_empty() { break }
            let pod = index.get(&added);
            match cluster.pod(&pod.key) {
                // A Pod is bound after it was created, and may be seen twice.
                None => cluster.apply_pod(PodView { node: None, ..pod.clone() }),
                Some(_) => cluster.apply_pod(pod.clone()),
            }
        }
        for pod in &added {
            cluster.remove_pod(&pod.key);
            cluster.remove_pod(&pod.key);
        }
        let after = (cluster.totals(), cluster.available(&query), cluster.pods(), format!("{cluster:?}").len());
        prop_assert_eq!(after, before);
        for index in 0..given.others.len() {
            cluster.remove_pod(&ObjectKey::new("default", format!("other-{index}")));
        }
        for index in 0..given.nodes.len() {
            cluster.remove_node(&Situation::name(index));
        }
        prop_assert_eq!(format!("{cluster:?}"), format!("{:?}", Cluster::default()));
    }
}

#[test]
fn metrics_have_the_published_names_and_units() {
    let mut cluster = Cluster::default();
    cluster.apply_node(node("a", amount(4000, 8 << 30), 110));
    cluster.apply_node(NodeView { is_cordoned: true, ..node("b", amount(4000, 8 << 30), 110) });
    cluster.apply_pod(pod("web", "web-1", Some("a"), amount(1500, 1 << 30)));
    cluster.apply_pod(pod("batch", "batch-1", Some("a"), amount(1000, 1 << 30)));
    assert_eq!(
        cluster.totals().metrics(),
        [
            ("cpu_capacity_total", 8000),
            ("mem_capacity_total", 16 << 20),
            ("pod_capacity_total", 220),
            ("cpu_allocatable_total", 8000),
            ("mem_allocatable_total", 16 << 20),
            ("pod_allocatable_total", 220),
            ("cpu_requests_total", 2500),
            ("mem_requests_total", 2 << 20),
            ("cpu_capacity_remaining", 5500),
            ("mem_capacity_remaining", 14 << 20),
        ]
    );
    let available = cluster.available(&query(amount(500, 0), amount(1000, 1 << 30)));
    assert_eq!(
        available.metrics(),
        [("cpu_capacity_available", 2000), ("mem_capacity_available", 7 << 20), ("replicas_that_fit", 2)]
    );
}

#[test]
fn slices_smaller_than_a_replica_hold_none_and_serve_as_reserve() {
    let mut cluster = Cluster::default();
    for index in 0..10 {
        cluster.apply_node(node(&format!("node-{index}"), amount(1500, 1 << 30), 110));
    }
    let fit = |reserve| cluster.available(&query(amount(reserve, 0), amount(1000, 0))).replicas_that_fit;
    assert_eq!([fit(0), fit(5000), fit(5001), fit(15_000), fit(u64::MAX)], [10, 10, 9, 0, 0]);
}

#[test]
fn a_pod_of_others_that_waits_takes_its_place_unless_no_node_holds_it() {
    let mut cluster = Cluster::default();
    cluster.apply_node(node("large", amount(10_000, 1 << 30), 110));
    cluster.apply_node(node("small", amount(2000, 1 << 30), 110));
    let fit = |cluster: &Cluster| cluster.available(&query(Resources::default(), amount(1000, 0))).replicas_that_fit;
    cluster.apply_pod(pod("web", "web-1", None, amount(1500, 0)));
    assert_eq!(fit(&cluster), 10);
    cluster.apply_pod(pod("web", "web-2", None, amount(2500, 0)));
    assert_eq!(fit(&cluster), 7);
    cluster.apply_pod(pod("web", "web-3", None, amount(11_000, 0)));
    assert_eq!(fit(&cluster), 7);
    cluster.apply_pod(pod("batch", "batch-1", None, amount(1000, 0)));
    assert_eq!(fit(&cluster), 7);
}

#[test]
fn nodes_and_pods_are_projected() {
    let ready = json!({"capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
        "allocatable": {"cpu": "3920m", "memory": "7Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True"}]});
    let node = |spec, status| {
        let node = json!({"metadata": {"name": "a"}, "spec": spec, "status": status});
        NodeView::of(&serde_json::from_value(node).expect("a Node")).expect("a view")
    };
    let view = node(json!({}), ready.clone());
    assert_eq!(view.capacity, Allocatable { resources: amount(4000, 8 << 30), pods: 110 });
    assert_eq!(view.allocatable.resources, amount(3920, 7 << 30));
    assert!(view.is_schedulable());
    let taint = |effect: &str| json!({"taints": [{"key": "k", "effect": effect}]});
    assert!(node(taint("PreferNoSchedule"), ready.clone()).is_schedulable());
    assert!(!node(taint("NoSchedule"), ready.clone()).is_schedulable());
    assert!(!node(taint("NoExecute"), ready.clone()).is_schedulable());
    assert!(!node(json!({"unschedulable": true}), ready).is_schedulable());
    assert!(!node(json!({}), json!({"conditions": [{"type": "Ready", "status": "Unknown"}]})).is_schedulable());

    let pod = |spec: serde_json::Value, phase: &str| {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "n", "labels": {"b": "2", "a": "1"}},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": phase}});
        pod["spec"].as_object_mut().expect("a map").extend(spec.as_object().expect("a map").clone());
        PodView::of(&serde_json::from_value(pod).expect("a Pod")).expect("a view")
    };
    let view = pod(json!({"nodeName": "a", "priority": 7}), "Running");
    assert_eq!((view.node.as_deref(), view.priority, view.requests), (Some("a"), 7, amount(1000, 0)));
    assert_eq!(crate::model::label(&view.labels, "b"), Some("2"));
    assert!(view.is_counted && pod(json!({}), "Pending").is_counted);
    assert!(!pod(json!({"nodeName": "a"}), "Succeeded").is_counted);
    assert!(!pod(json!({"nodeName": "a"}), "Failed").is_counted);
    assert!(!pod(json!({"schedulingGates": [{"name": "vpn.beebs.dev/slot"}]}), "Pending").is_counted);
}
