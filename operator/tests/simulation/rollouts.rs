//! Rolling updates of Deployments with labeled Pods.

use serde_json::json;
use vpn_operator::{
    controllers::table,
    model::{Kind, NewObject, Operation},
};
use vpn_types::{Reason, SLOT_ASSIGNED, inject::Surge};

use crate::{
    crashes::{crash_everywhere, crash_everywhere_in_turn},
    deployments::Template,
    metadata::is_deleting,
    oracle, pods,
    process::separate_processes,
    run::{Bias, Move, Sim},
    scenarios::{check, run_for, run_until, settle, settle_and_check, settle_without, settle_without_any},
    user::{SHARED_MASK, key},
    watch::Filter,
};

pub const PLAIN: Template = Template { shares: false, surge: Surge::Evict, is_broken: false };
const SHARING: Template = Template { shares: true, ..PLAIN };
const WAITING: Template = Template { surge: Surge::Wait, ..PLAIN };
const BROKEN: Template = Template { is_broken: true, ..PLAIN };

/// A Deployment whose first revision runs.
pub fn deployed(slots: u64, replicas: usize, max_surge: usize, template: Template) -> Sim {
    let mut sim = Sim::new(&[table::all()]);
    sim.account("p", slots);
    settle(&mut sim);
    sim.deploy(&key("a", "web"), replicas, max_surge, template);
    settle_and_check(&mut sim);
    check(&sim, sim.is_rolled_out());
    sim
}

/// The reason and the message of the Pod that waits.
fn why(sim: &Sim) -> (String, String) {
    let newest = sim.server.deployments[0].newest();
    let gated = sim.server.of_kind(Kind::Pod).find(|(_, pod)| newest.owns(pod) && pods::is_gated(pod));
    let condition = pods::condition(gated.expect("a Pod waits").1, SLOT_ASSIGNED).unwrap();
    let text = |field: &str| condition[field].as_str().unwrap().to_owned();
    (text("reason"), text("message"))
}

fn refused() -> String {
    Reason::EvictionRefused.as_str().to_owned()
}

fn of_old_revision_run(sim: &Sim) -> usize {
    let old = &sim.server.deployments[0].replica_sets[0];
    let pods = sim.server.of_kind(Kind::Pod).filter(|(_, pod)| old.owns(pod));
    pods.filter(|(_, pod)| sim.nodes.sessions.contains_key(pod["metadata"]["uid"].as_str().unwrap())).count()
}

#[test]
fn a_rollout_on_full_slots_evicts_each_pod_of_the_old_revision_once() {
    for bias in [Bias::Even, Bias::WatchesFirst] {
        for max_surge in [1, 2, 3] {
            let mut sim = deployed(3, 3, max_surge, PLAIN);
            sim.bias = bias;
            sim.roll_out(PLAIN);
            settle_and_check(&mut sim);
            check(&sim, sim.is_rolled_out());
            assert_eq!(sim.evictions.len(), 3, "{bias:?} maxSurge {max_surge}");
        }
    }
}

#[test]
fn a_rollout_with_a_free_slot_evicts_nothing() {
    let mut sim = deployed(3, 2, 1, PLAIN);
    sim.roll_out(PLAIN);
    settle_and_check(&mut sim);
    check(&sim, sim.is_rolled_out());
    assert_eq!(sim.evictions.len(), 0);
}

/// The new Pod waits, although a slot is free, because the Secret of the account is missing.
#[test]
fn a_rollout_evicts_nothing_while_something_else_than_a_slot_is_missing() {
    let mut sim = deployed(3, 2, 1, PLAIN);
    sim.delete(Kind::Secret, &key("vpn", "p-secret"), "Background");
    settle(&mut sim);
    sim.roll_out(PLAIN);
    run_for(&mut sim, 600);
    assert_eq!((sim.evictions.len(), of_old_revision_run(&sim)), (0, 2), "{:?}", why(&sim));
    sim.create_secret(&key("vpn", "p-secret"), "cGFzcw==");
    settle_and_check(&mut sim);
    check(&sim, sim.is_rolled_out());
    assert_eq!(sim.evictions.len(), 0);
}

#[test]
fn a_rollout_that_a_budget_refuses_says_so_and_goes_on_when_it_is_allowed() {
    let mut sim = deployed(2, 2, 1, PLAIN);
    sim.server.budget_refuses = true;
    sim.roll_out(PLAIN);
    run_for(&mut sim, 600);
    assert_eq!((sim.evictions.len(), of_old_revision_run(&sim)), (0, 2));
    let (reason, message) = why(&sim);
    assert_eq!(reason, refused());
    assert!(message.contains("Cannot evict pod as it would violate the pod's disruption budget"), "{message}");
    assert!(message.contains("maxSurge: 0"), "{message}");
    let attempts = sim.counts[&("create", Some(Kind::InjectedPod))];
    assert!((2..60).contains(&attempts), "{attempts} attempts in ten minutes");
    sim.server.budget_refuses = false;
    settle_and_check(&mut sim);
    check(&sim, sim.is_rolled_out());
    assert_eq!(sim.evictions.len(), 2);
}

#[test]
fn a_rollout_with_the_annotation_to_wait_evicts_nothing() {
    let mut sim = deployed(2, 2, 1, WAITING);
    sim.roll_out(WAITING);
    settle_and_check(&mut sim);
    run_for(&mut sim, 600);
    assert_eq!((sim.evictions.len(), of_old_revision_run(&sim)), (0, 2));
    assert_eq!(sim.counts.get(&("create", Some(Kind::InjectedPod))), None, "not even an attempt");
    let (reason, message) = why(&sim);
    assert_eq!(reason, refused());
    assert!(message.contains("is not evicted (vpn.beebs.dev/surge: wait)"), "{message}");
    sim.slots("p", 3);
    settle_and_check(&mut sim);
    check(&sim, sim.is_rolled_out());
    assert_eq!(sim.evictions.len(), 0);
}

#[test]
fn a_revision_that_does_not_become_ready_replaces_a_single_pod() {
    let mut sim = deployed(3, 3, 2, PLAIN);
    sim.roll_out(BROKEN);
    run_for(&mut sim, 600);
    assert_eq!((sim.evictions.len(), of_old_revision_run(&sim)), (1, 2));
    sim.roll_back();
    settle_and_check(&mut sim);
    check(&sim, sim.is_rolled_out());
    let evicted: Vec<_> = sim.evictions.iter().map(|one| &one.pod.name[..5]).collect();
    assert_eq!(evicted, ["web-1", "web-2"], "the broken Pod gives the slot back");
}

/// The slot of the evicted Pod is held for a while, and no other Pod is evicted meanwhile.
#[test]
fn a_slot_that_is_held_after_its_release_goes_to_the_new_pod() {
    for crash in [false, true] {
        let mut sim = deployed(2, 2, 2, PLAIN);
        sim.edit(Kind::Provider, &key("vpn", "p"), json!({"spec": {"release": {"delay": "90s"}}}));
        settle(&mut sim);
        sim.roll_out(PLAIN);
        run_until(&mut sim, |sim| !sim.evictions.is_empty());
        run_for(&mut sim, 30);
        assert!(!sim.server.of_kind(Kind::Pod).any(|(key, _)| *key == sim.evictions[0].pod));
        if crash {
            sim.crash(0);
        }
        run_for(&mut sim, 30);
        assert_eq!(sim.evictions.len(), 1, "crash: {crash}");
        settle_and_check(&mut sim);
        check(&sim, sim.is_rolled_out());
        assert_eq!(sim.evictions.len(), 2);
    }
}

/// Such as that of a lost Pod of another workload.
#[test]
fn a_slot_that_is_held_for_long_does_not_delay_a_rollout() {
    let mut sim = deployed(3, 2, 1, PLAIN);
    sim.edit(Kind::Provider, &key("vpn", "p"), json!({"spec": {"release": {"delay": "2h"}}}));
    sim.mask(&key("a", "other"), json!({}));
    settle(&mut sim);
    sim.delete(Kind::Mask, &key("a", "other"), "Background");
    settle_without(&mut sim, |_| false);
    sim.edit(Kind::Provider, &key("vpn", "p"), json!({"spec": {"release": {"delay": "0s"}}}));
    sim.roll_out(PLAIN);
    run_for(&mut sim, 600);
    check(&sim, sim.is_rolled_out());
}

/// The watches of the operator are far behind when the eviction is accepted.
#[test]
fn a_late_watch_causes_no_second_eviction() {
    let mut sim = deployed(3, 3, 1, PLAIN);
    sim.roll_out(PLAIN);
    run_until(&mut sim, |sim| !sim.evictions.is_empty());
    for _ in 0..20 {
        sim.advance(1_000);
        settle_without(&mut sim, |chosen| matches!(chosen, Move::Watch(..)));
    }
    assert_eq!(sim.evictions.len(), 1);
    settle_and_check(&mut sim);
    check(&sim, sim.is_rolled_out());
    assert_eq!(sim.evictions.len(), 3);
}

/// The operator learns that the MaskConsumer of the evicted Pod is gone before it learns that the Pod is.
#[test]
fn a_late_watch_of_pods_causes_no_second_eviction() {
    let mut sim = deployed(3, 3, 1, PLAIN);
    sim.roll_out(PLAIN);
    run_until(&mut sim, |sim| !sim.evictions.is_empty());
    run_until(&mut sim, |sim| sim.server.of_kind(Kind::Consumer).any(|(_, consumer)| is_deleting(consumer)));
    let is_held_back = |sim: &Sim, chosen: &Move| match chosen {
        Move::Watch(_, watch) => *watch == Filter::Whole(Kind::InjectedPod),
        Move::Apply(i) => matches!(sim.in_flight[*i].operation, Operation::Create(_, NewObject::Reservation(_))),
        _ => false,
    };
    settle_without_any(&mut sim, is_held_back);
    assert!(!sim.server.of_kind(Kind::Consumer).any(|(_, consumer)| is_deleting(consumer)), "the release is over");
    // Any change of a Pod or its objects leads to a new decision.
    let waiting = sim.server.of_kind(Kind::Consumer).find(|(key, _)| key.name.starts_with("web-2")).unwrap().0.clone();
    sim.edit(Kind::Consumer, &waiting, json!({"metadata": {"labels": {"note": "changed"}}}));
    settle_without_any(&mut sim, is_held_back);
    assert_eq!(sim.evictions.len(), 1);
    settle_and_check(&mut sim);
    check(&sim, sim.is_rolled_out());
    assert_eq!(sim.evictions.len(), 3);
}

fn evictions(sim: &Sim, expected: usize) -> Result<(), String> {
    let pods: Vec<_> = sim.evictions.iter().map(|one| one.pod.to_string()).collect();
    if pods.len() == expected { Ok(()) } else { Err(format!("{expected} evictions expected: {pods:?}")) }
}

fn scenario(sim: &mut Sim) -> Result<(), String> {
    sim.account("p", 2);
    sim.settle()?;
    sim.deploy(&key("a", "web"), 2, 1, PLAIN);
    sim.settle()?;
    sim.roll_out(PLAIN);
    sim.settle()?;
    oracle::at_rest(sim)?;
    sim.is_rolled_out()?;
    evictions(sim, 2)?;
    sim.stays_quiet()
}

/// The process of the pods controller does not know the reservations. It waits a few seconds for a slot, and another
/// process that crashes may take longer.
fn scenario_of_separate_processes(sim: &mut Sim) -> Result<(), String> {
    sim.late_handovers = true;
    scenario(sim)
}

/// The Pods share a Mask, and have one slot.
fn sharing(sim: &mut Sim) -> Result<(), String> {
    sim.account("p", 1);
    sim.mask(&key("a", SHARED_MASK), json!({"secretName": format!("{SHARED_MASK}-secret")}));
    sim.settle()?;
    sim.deploy(&key("a", "web"), 1, 1, SHARING);
    sim.settle()?;
    sim.roll_out(SHARING);
    sim.settle()?;
    oracle::at_rest(sim)?;
    sim.is_rolled_out()?;
    evictions(sim, 1)?;
    sim.stays_quiet()
}

#[test]
fn a_crash_at_any_request_of_a_rollout_does_not_change_the_result() {
    crash_everywhere(&[table::all()], scenario);
}

#[test]
fn a_crash_of_any_process_at_any_request_of_a_rollout_does_not_change_the_result() {
    crash_everywhere_in_turn(&separate_processes(), scenario_of_separate_processes);
}

#[test]
fn a_crash_of_one_of_two_operators_at_any_request_of_a_rollout_does_not_change_the_result() {
    crash_everywhere_in_turn(&[table::all(), table::all()], scenario);
}

#[test]
fn a_crash_at_any_request_of_a_rollout_with_a_shared_mask_does_not_change_the_result() {
    crash_everywhere(&[table::all()], sharing);
    crash_everywhere_in_turn(&[table::all(), table::all()], sharing);
}

/// The decision needs no list for Pods that nothing controls, and none again and again while nothing can be done.
#[test]
fn replica_sets_are_listed_only_during_a_rollout_and_rarely() {
    let mut sim = deployed(2, 2, 1, PLAIN);
    let lists = |sim: &Sim| sim.counts.get(&(Operation::ListReplicaSets("a".into()).verb(), None)).copied();
    assert_eq!(lists(&sim), None);
    sim.roll_out(PLAIN);
    settle_and_check(&mut sim);
    assert!(lists(&sim).is_some_and(|lists| (1..=6).contains(&lists)), "{:?}", sim.counts);
}
