use super::*;
use crate::world::{Meta, ObjectKey};

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
    PodView { meta, consumers: Box::default(), secrets: Box::default(), node: None, stage, stop_by: None }
}

fn synced(pods: &[PodView]) -> PodsOf {
    let mut all = PodsOf::default();
    all.list_began();
    pods.iter().cloned().for_each(|pod| all.listed(pod));
    assert!(!all.is_synced());
    all.list_ended();
    all
}

#[test]
fn a_pod_has_ended_once_its_containers_have_though_it_is_still_there() {
    let mut pods = synced(&[pod("a", 1, PodStage::Running)]);
    assert_eq!(pods.ending(&Uid::from("a")), None);
    pods.applied(pod("a", 2, PodStage::Ended));
    assert_eq!(pods.ending(&Uid::from("a")), Some(Ending::Clean));
}

#[test]
fn a_pod_that_vanishes_while_it_runs_ends_uncleanly() {
    let mut pods = synced(&[pod("a", 1, PodStage::Running), pod("b", 2, PodStage::Running)]);
    pods.deleted(&pod("a", 3, PodStage::Running));
    pods.vanished(&Uid::from("b"));
    assert_eq!(pods.ending(&Uid::from("a")), Some(Ending::Unclean));
    assert_eq!(pods.ending(&Uid::from("b")), Some(Ending::Unclean));
    assert_eq!(pods.present().count(), 0);
}

#[test]
fn the_last_state_of_a_pod_tells_how_it_ended() {
    let mut pods = synced(&[pod("a", 1, PodStage::Running), pod("b", 2, PodStage::Running)]);
    pods.deleted(&pod("a", 3, PodStage::Ended));
    pods.deleted(&pod("b", 4, PodStage::Unbound));
    assert_eq!(pods.ending(&Uid::from("a")), Some(Ending::Clean));
    assert_eq!(pods.ending(&Uid::from("b")), Some(Ending::Clean));
}

#[test]
fn a_pod_that_a_relist_lacks_has_vanished() {
    let mut pods = synced(&[pod("a", 1, PodStage::Running), pod("b", 2, PodStage::Ended)]);
    pods.list_began();
    pods.list_ended();
    assert_eq!(pods.ending(&Uid::from("a")), Some(Ending::Unclean));
    assert_eq!(pods.ending(&Uid::from("b")), Some(Ending::Clean));
}

#[test]
fn an_older_list_brings_nothing_back() {
    let mut pods = synced(&[pod("a", 1, PodStage::Running), pod("b", 5, PodStage::Ended)]);
    pods.deleted(&pod("a", 4, PodStage::Ended));
    pods.merge(&[pod("a", 3, PodStage::Running), pod("b", 2, PodStage::Running), pod("c", 6, PodStage::Running)]);
    assert!(pods.get(&Uid::from("a")).is_none());
    assert_eq!(pods.ending(&Uid::from("b")), Some(Ending::Clean));
    assert!(pods.get(&Uid::from("c")).is_some());
    assert_eq!(pods.ending(&Uid::from("never seen")), None);
}
