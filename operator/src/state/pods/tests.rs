use std::sync::Arc;

use super::*;
use crate::model::{Meta, ObjectKey};

fn pod(uid: &str, version: u64, stage: PodStage) -> PodView {
    let meta = Meta {
        key: ObjectKey::new("ns", uid),
        uid: Uid::from(uid),
        version,
        generation: 1,
        created: Default::default(),
        deleting: false,
        finalizer: None,
        finalizers: 0,
        foreground: false,
        foreign: false,
    };
    PodView {
        meta,
        consumers: Box::new([Uid::from("consumer")]),
        injection: None,
        is_of_workload: false,
        secrets: Box::new([Arc::from("secret")]),
        node: None,
        stage,
        stop_by: None,
        has_no_grace_period: false,
    }
}

fn synced(pods: &[PodView]) -> NamespacePods {
    let mut all = NamespacePods::default();
    all.list_started();
    pods.iter().cloned().for_each(|pod| all.listed(pod));
    assert!(!all.is_synced());
    all.list_completed();
    all
}

#[test]
fn a_pod_has_ended_once_its_containers_have_even_if_it_still_exists() {
    let mut pods = synced(&[pod("a", 1, PodStage::Running)]);
    assert_eq!(pods.ending(&Uid::from("a")), None);
    pods.applied(pod("a", 2, PodStage::Ended));
    assert_eq!(pods.ending(&Uid::from("a")), Some(Ending::Clean));
}

#[test]
fn a_pod_that_disappears_while_it_runs_ends_uncleanly() {
    let mut pods = synced(&[pod("a", 1, PodStage::Running), pod("b", 2, PodStage::Running)]);
    pods.deleted(&pod("a", 3, PodStage::Running));
    assert_eq!(pods.ending(&Uid::from("a")), Some(Ending::Unclean));
    assert!(pods.get(&Uid::from("a")).is_none());
}

#[test]
fn the_last_state_of_a_pod_shows_how_it_ended() {
    let mut pods = synced(&[pod("a", 1, PodStage::Running), pod("b", 2, PodStage::Running)]);
    pods.deleted(&pod("a", 3, PodStage::Ended));
    pods.deleted(&pod("b", 4, PodStage::Unbound));
    assert_eq!(pods.ending(&Uid::from("a")), Some(Ending::Clean));
    assert_eq!(pods.ending(&Uid::from("b")), Some(Ending::Clean));
}

#[test]
fn a_running_pod_that_a_relist_does_not_contain_ends_uncleanly() {
    let mut pods = synced(&[pod("a", 1, PodStage::Running), pod("b", 2, PodStage::Ended)]);
    pods.list_started();
    pods.list_completed();
    assert_eq!(pods.ending(&Uid::from("a")), Some(Ending::Unclean));
    assert_eq!(pods.ending(&Uid::from("b")), Some(Ending::Clean));
}

#[test]
fn the_watch_decides_how_a_pod_ended_that_was_not_found() {
    let mut pods = synced(&[pod("a", 1, PodStage::Unbound)]);
    pods.not_found(&Uid::from("a"));
    assert_eq!(pods.ending(&Uid::from("a")), None);
    // It was bound to a node in between.
    pods.deleted(&pod("a", 3, PodStage::Running));
    assert_eq!(pods.ending(&Uid::from("a")), Some(Ending::Unclean));
}

#[test]
fn a_pod_that_had_no_node_when_the_watch_was_interrupted_ends_uncleanly() {
    let mut pods = synced(&[pod("a", 1, PodStage::Unbound)]);
    pods.list_started();
    pods.list_completed();
    assert_eq!(pods.ending(&Uid::from("a")), Some(Ending::Unclean));
}

#[test]
fn related_pods_are_owned_or_reference_the_secret() {
    let mut pods = synced(&[pod("a", 1, PodStage::Running)]);
    let related = |pods: &NamespacePods, consumer: &str, secret: &str| {
        pods.related(&Uid::from(consumer), [&Arc::from(secret)]).map(|pod| pod.meta.uid.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(related(&pods, "consumer", "secret"), ["a"]);
    assert_eq!(related(&pods, "other", "secret"), ["a"]);
    assert!(related(&pods, "other", "other").is_empty());
    let mut stripped = pod("a", 2, PodStage::Running);
    stripped.consumers = Box::default();
    pods.applied(stripped);
    assert!(related(&pods, "consumer", "other").is_empty());
    pods.deleted(&pod("a", 3, PodStage::Ended));
    assert!(related(&pods, "consumer", "secret").is_empty());
}

#[test]
fn an_older_list_does_not_bring_back_a_pod() {
    let mut pods = synced(&[pod("a", 1, PodStage::Running), pod("b", 5, PodStage::Ended)]);
    pods.deleted(&pod("a", 4, PodStage::Ended));
    pods.merge(&[pod("a", 3, PodStage::Running), pod("b", 2, PodStage::Running), pod("c", 6, PodStage::Running)]);
    assert!(pods.get(&Uid::from("a")).is_none());
    assert_eq!(pods.ending(&Uid::from("b")), Some(Ending::Clean));
    assert!(pods.get(&Uid::from("c")).is_some());
    assert_eq!(pods.ending(&Uid::from("never seen")), None);
}
