//! The end of Pods: a Pod has ended only if its node has confirmed it. A terminated container may be restarted.

use serde_json::json;
use vpn_operator::{controllers::table, model::Kind};

use crate::{
    node::Act,
    run::{Move, Sim},
    scenarios::{check, settle, settle_and_check, settle_without},
    user::{PodLink, Restarts, key},
};

/// Returns the number of a container, and an exit code after which kubelet restarts it.
fn crash_of(restarts: Restarts) -> Option<(usize, i64)> {
    match restarts {
        Restarts::Always => Some((0, 0)),
        Restarts::OnFailure => Some((0, 1)),
        Restarts::Never => None,
        Restarts::Sidecar => Some((0, 1)),
        Restarts::ByRule => Some((0, 42)),
    }
}

/// One slot: `first` has it and has a Pod, `second` waits for it.
fn one_slot(link: PodLink, restarts: Restarts) -> Sim {
    let mut sim = Sim::new(&[table::all()]);
    sim.account("p", 1);
    sim.mask(&key("a", "first"), json!({}));
    settle(&mut sim);
    sim.pod_with_restarts("pod", &key("a", "first"), link, restarts);
    settle(&mut sim);
    sim.mask(&key("a", "second"), json!({}));
    settle(&mut sim);
    sim
}

fn exit(sim: &mut Sim, number: usize, code: i64) {
    sim.note(format!("container {number} ends with exit code {code}"));
    sim.nodes.exit(&mut sim.server, &key("a", "pod"), number, code);
}

fn is_start(chosen: &Move) -> bool {
    matches!(chosen, Move::Node(_, Act::Start(_)))
}

fn is_observation(chosen: &Move) -> bool {
    matches!(chosen, Move::Node(_, Act::ObserveDeletion))
}

#[test]
fn a_container_that_is_restarted_keeps_the_slot_of_a_deleted_mask() {
    for restarts in Restarts::ALL {
        let mut sim = one_slot(PodLink::SecretOnly, restarts);
        sim.delete(Kind::Mask, &key("a", "first"), "Background");
        settle(&mut sim);
        let Some((number, code)) = crash_of(restarts) else { continue };
        exit(&mut sim, number, code);
        // The operator has seen the exit, and the container has not restarted yet.
        settle_without(&mut sim, is_start);
        assert_eq!(sim.phase(Kind::Mask, &key("a", "second")), "Waiting", "{restarts:?}");
        settle(&mut sim);
        assert_eq!(sim.phase(Kind::Mask, &key("a", "second")), "Waiting", "{restarts:?}");
        sim.clean_up();
        settle_and_check(&mut sim);
        assert_eq!(sim.phase(Kind::Mask, &key("a", "second")), "Active", "{restarts:?}");
    }
}

#[test]
fn a_container_that_crashed_before_the_release_keeps_the_slot() {
    for restarts in Restarts::ALL {
        let mut sim = one_slot(PodLink::SecretOnly, restarts);
        let Some((number, code)) = crash_of(restarts) else { continue };
        exit(&mut sim, number, code);
        settle_without(&mut sim, is_start);
        sim.delete(Kind::Mask, &key("a", "first"), "Background");
        settle_without(&mut sim, is_start);
        assert_eq!(sim.phase(Kind::Mask, &key("a", "second")), "Waiting", "{restarts:?}");
        sim.clean_up();
        settle_and_check(&mut sim);
    }
}

/// The operator deletes the Pod. Until its node observes the deletion, kubelet still restarts containers.
#[test]
fn a_crashed_container_is_no_evidence_before_the_node_has_observed_the_deletion() {
    for restarts in Restarts::ALL {
        let mut sim = one_slot(PodLink::Owned, restarts);
        let Some((number, code)) = crash_of(restarts) else { continue };
        exit(&mut sim, number, code);
        settle_without(&mut sim, is_start);
        sim.delete(Kind::Mask, &key("a", "first"), "Background");
        settle_without(&mut sim, |chosen| is_start(chosen) || is_observation(chosen));
        assert_eq!(sim.phase(Kind::Mask, &key("a", "second")), "Waiting", "{restarts:?}");
        settle_without(&mut sim, is_observation);
        assert_eq!(sim.phase(Kind::Mask, &key("a", "second")), "Waiting", "{restarts:?}");
        settle_and_check(&mut sim);
        assert_eq!(sim.phase(Kind::Mask, &key("a", "second")), "Active", "{restarts:?}");
    }
}

#[test]
fn a_pod_that_ends_finally_releases_the_slot_without_being_deleted() {
    for (restarts, number, code) in [
        (Restarts::OnFailure, 0, 0),
        (Restarts::Never, 0, 0),
        (Restarts::Never, 0, 1),
        (Restarts::Sidecar, 1, 1),
        (Restarts::ByRule, 0, 1),
    ] {
        let mut sim = one_slot(PodLink::SecretOnly, restarts);
        sim.delete(Kind::Mask, &key("a", "first"), "Background");
        settle(&mut sim);
        exit(&mut sim, number, code);
        settle(&mut sim);
        assert_eq!(sim.phase(Kind::Mask, &key("a", "second")), "Active", "{restarts:?} {code}");
        let result = sim.stays_quiet();
        check(&sim, result);
    }
}

/// Kubelet on a lost node still restarts containers.
#[test]
fn a_crashed_pod_on_a_lost_node_keeps_the_slot() {
    let mut sim = one_slot(PodLink::Owned, Restarts::Always);
    exit(&mut sim, 0, 1);
    settle_without(&mut sim, is_start);
    let uid = crate::metadata::uid_of(&sim.server.objects[&(Kind::Pod, key("a", "pod"))]).to_owned();
    sim.nodes.lost.push(uid);
    sim.delete(Kind::Mask, &key("a", "first"), "Background");
    settle(&mut sim);
    assert_eq!(sim.phase(Kind::Mask, &key("a", "second")), "Waiting");
    sim.clean_up();
    settle_and_check(&mut sim);
    assert_eq!(sim.phase(Kind::Mask, &key("a", "second")), "Active");
}
