//! Scenarios with Pods that the webhook injected.

use serde_json::json;
use vpn_operator::{controllers::table, model::Kind};
use vpn_types::{
    SLOT_ASSIGNED,
    inject::{INJECT_LABEL, SLOT_GATE},
};

use crate::{
    crashes::crash_everywhere,
    metadata::{is_deleting, uid_of},
    node::Act,
    oracle, pods,
    process::separate_processes,
    run::{Move, Sim},
    scenarios::{check, settle, settle_and_check, settle_without},
    user::{FOREIGN, Restarts, SHARED_MASK, key},
    watch::Filter,
};

fn is_gated(sim: &Sim, name: &str) -> bool {
    let pod = sim.server.get(Kind::Pod, &key("a", name)).unwrap();
    pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty())
}

fn condition(sim: &Sim, name: &str) -> String {
    let pod = sim.server.get(Kind::Pod, &key("a", name)).unwrap();
    let condition = pods::condition(pod, SLOT_ASSIGNED).unwrap();
    format!("{} {}", condition["status"].as_str().unwrap(), condition["message"].as_str().unwrap())
}

fn runs(sim: &Sim, name: &str) -> bool {
    sim.server.get(Kind::Pod, &key("a", name)).is_some_and(|pod| sim.nodes.sessions.contains_key(uid_of(pod)))
}

fn own(sim: &mut Sim, name: &str) {
    sim.injected_pod(&key("a", name), None, Restarts::Never);
}

fn shared(sim: &mut Sim, name: &str) {
    sim.injected_pod(&key("a", name), Some(SHARED_MASK), Restarts::Never);
}

fn with_slots(slots: u64) -> Sim {
    let mut sim = Sim::new(&[table::all()]);
    sim.account("p", slots);
    settle_and_check(&mut sim);
    sim
}

/// Two Pods that share a Mask: the first one runs, and the second one waits.
fn two_sharing() -> Sim {
    let mut sim = with_slots(1);
    sim.mask(&key("a", SHARED_MASK), json!({"secretName": format!("{SHARED_MASK}-secret")}));
    for name in ["one", "two"] {
        shared(&mut sim, name);
        settle(&mut sim);
    }
    sim
}

#[test]
fn a_pod_starts_with_three_writes_beside_the_assignment_and_no_reads() {
    let mut sim = with_slots(1);
    sim.counts.clear();
    own(&mut sim, "one");
    settle_without(&mut sim, |chosen| matches!(chosen, Move::Node(..)));
    assert_eq!(sim.total("create", Kind::Mask), 1);
    assert_eq!(sim.total("patch", Kind::InjectedPod), 2, "it loses its gate, and says so");
    let reads: usize = sim.counts.iter().filter(|((verb, _), _)| ["get", "list"].contains(verb)).map(|(_, n)| n).sum();
    assert_eq!(reads, 0);
    settle(&mut sim);
    assert!(runs(&sim, "one"));
    assert!(condition(&sim, "one").contains("True Assigned slot 0 of MaskProvider vpn/p"));
    settle_and_check(&mut sim);
}

#[test]
fn pods_wait_in_line_and_a_pod_that_has_ended_gives_its_slot_back() {
    let mut sim = with_slots(1);
    own(&mut sim, "one");
    settle(&mut sim);
    own(&mut sim, "two");
    settle(&mut sim);
    assert!(is_gated(&sim, "two") && !runs(&sim, "two"));
    assert!(condition(&sim, "two").contains("place 1 in line"), "{}", condition(&sim, "two"));
    sim.nodes.exit(&mut sim.server, &key("a", "one"), 0, 0);
    settle_and_check(&mut sim);
    assert!(runs(&sim, "two"));
    // The Pod remains, with its log.
    assert!(sim.server.get(Kind::Pod, &key("a", "one")).is_some());
}

#[test]
fn a_gated_pod_that_is_deleted_leaves_the_line() {
    let mut sim = with_slots(0);
    own(&mut sim, "one");
    settle(&mut sim);
    assert_eq!(sim.server.of_kind(Kind::Mask).count(), 1);
    sim.delete(Kind::Pod, &key("a", "one"), "Background");
    settle_and_check(&mut sim);
    assert_eq!(sim.server.of_kind(Kind::Mask).count(), 0);
}

#[test]
fn a_slot_that_is_taken_back_takes_its_pod_along() {
    let mut sim = with_slots(1);
    own(&mut sim, "one");
    settle(&mut sim);
    sim.slots("p", 0);
    settle_and_check(&mut sim);
    assert!(sim.server.get(Kind::Pod, &key("a", "one")).is_none());
    assert_eq!(sim.server.of_kind(Kind::Mask).count(), 0);
}

#[test]
fn pods_that_share_a_mask_run_one_after_the_other() {
    let mut sim = with_slots(2);
    sim.mask(&key("a", SHARED_MASK), json!({"secretName": format!("{SHARED_MASK}-secret")}));
    settle_and_check(&mut sim);
    for name in ["one", "three", "two"] {
        shared(&mut sim, name);
    }
    settle(&mut sim);
    assert!(runs(&sim, "one") && is_gated(&sim, "two") && is_gated(&sim, "three"));
    assert!(condition(&sim, "three").contains("Pod one uses the slot of Mask shared; place 1 in line"));
    sim.delete(Kind::Pod, &key("a", "one"), "Background");
    // Its containers have not ended yet.
    settle_without(&mut sim, |chosen| matches!(chosen, Move::Node(_, Act::Remove | Act::SetFinalPhase | Act::Stop(_))));
    assert!(is_gated(&sim, "three"));
    settle(&mut sim);
    assert!(runs(&sim, "three") && is_gated(&sim, "two"));
    sim.nodes.exit(&mut sim.server, &key("a", "three"), 0, 1);
    settle_and_check(&mut sim);
    assert!(runs(&sim, "two"));
}

/// Removes Pod `one` by force. Pod `two` runs only after `uncleanDelay`.
fn lose(mut sim: Sim) {
    let before = sim.clock;
    sim.nodes.remove_by_force(&mut sim.server, &key("a", "one"));
    settle(&mut sim);
    assert!(runs(&sim, "two"));
    assert!(sim.clock - before >= 300_000, "after {} ms", sim.clock - before);
    settle_and_check(&mut sim);
}

#[test]
fn a_pod_that_was_lost_holds_a_shared_mask_for_a_while() {
    lose(two_sharing());
}

/// Whether the garbage collector is slow or fast, and an operator runs or not.
#[test]
fn a_pod_that_was_lost_holds_its_own_slot_for_a_while() {
    for (gc_stalled, crash) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut sim = with_slots(1);
        own(&mut sim, "one");
        settle(&mut sim);
        own(&mut sim, "two");
        settle(&mut sim);
        sim.gc_stalled = gc_stalled;
        let before = sim.clock;
        sim.nodes.remove_by_force(&mut sim.server, &key("a", "one"));
        if crash {
            sim.crash(0);
        }
        settle(&mut sim);
        assert!(runs(&sim, "two"));
        assert!(sim.clock - before >= 300_000, "after {} ms, {gc_stalled}, {crash}", sim.clock - before);
        sim.gc_stalled = false;
        settle_and_check(&mut sim);
    }
}

#[test]
fn a_pod_without_its_label_keeps_its_slot() {
    let mut sim = two_sharing();
    sim.edit(Kind::Pod, &key("a", "one"), json!({"metadata": {"labels": null}}));
    for _ in 0..1000 {
        let moves = sim.moves();
        match moves.first() {
            Some(chosen) => sim.make(chosen.clone()).unwrap(),
            None => sim.advance(10_000),
        }
    }
    assert!(runs(&sim, "one") && is_gated(&sim, "two"));
    sim.delete(Kind::Pod, &key("a", "one"), "Background");
    settle_and_check(&mut sim);
    assert!(runs(&sim, "two"));
}

/// Nobody would remove its gate any more.
#[test]
fn a_gated_pod_that_loses_its_label_leaves_the_line() {
    let mut sim = with_slots(0);
    own(&mut sim, "one");
    settle(&mut sim);
    assert_eq!(sim.server.of_kind(Kind::Mask).count(), 1);
    sim.edit(Kind::Pod, &key("a", "one"), json!({"metadata": {"labels": null}}));
    settle(&mut sim);
    assert_eq!(sim.server.of_kind(Kind::Mask).count(), 0);
    assert!(is_gated(&sim, "one"));
    sim.edit(Kind::Pod, &key("a", "one"), json!({"metadata": {"labels": {INJECT_LABEL: "true"}}}));
    sim.slots("p", 1);
    settle_and_check(&mut sim);
    assert!(runs(&sim, "one"));
}

#[test]
fn a_pod_whose_gate_is_removed_by_hand_is_deleted() {
    for is_shared in [false, true] {
        let mut sim = if is_shared { two_sharing() } else { with_slots(0) };
        if !is_shared {
            own(&mut sim, "two");
            settle(&mut sim);
        }
        let gates = sim.server.get(Kind::Pod, &key("a", "two")).unwrap()["spec"]["schedulingGates"].clone();
        assert_eq!(gates, json!([{"name": SLOT_GATE}]));
        sim.edit(Kind::Pod, &key("a", "two"), json!({"spec": {"schedulingGates": null}}));
        settle_without(&mut sim, |chosen| matches!(chosen, Move::Node(..)));
        let pod = sim.server.get(Kind::Pod, &key("a", "two"));
        assert!(pod.is_none_or(|pod| is_deleting(pod)), "{is_shared} {pod:?}");
        settle_and_check(&mut sim);
    }
}

/// Its containers never ran, so nothing has to be waited for.
#[test]
fn a_pod_that_was_never_scheduled_hands_a_shared_mask_over_at_once() {
    let mut sim = with_slots(1);
    sim.mask(&key("a", SHARED_MASK), json!({"secretName": format!("{SHARED_MASK}-secret")}));
    settle_and_check(&mut sim);
    for name in ["one", "two"] {
        shared(&mut sim, name);
        settle_without(&mut sim, |chosen| matches!(chosen, Move::Node(..)));
    }
    assert!(!is_gated(&sim, "one") && is_gated(&sim, "two"));
    let before = sim.clock;
    sim.delete(Kind::Pod, &key("a", "one"), "Background");
    settle(&mut sim);
    assert!(runs(&sim, "two"));
    assert!(sim.clock - before < 60_000, "after {} ms", sim.clock - before);
    settle_and_check(&mut sim);
}

/// The Pod had no node when the watch broke. It got one, and was force-deleted, before the next list.
#[test]
fn a_pod_that_was_lost_while_the_watch_was_interrupted_holds_its_slot_for_a_while() {
    let mut sim = with_slots(1);
    let on_node = |chosen: &Move| matches!(chosen, Move::Node(..));
    own(&mut sim, "one");
    settle_without(&mut sim, on_node);
    assert!(!is_gated(&sim, "one"));
    own(&mut sim, "two");
    settle_without(&mut sim, on_node);
    let pods = Filter::Whole(Kind::InjectedPod);
    let of_pods = Move::Watch(0, pods.clone());
    settle_without(&mut sim, |chosen| *chosen == of_pods);
    assert!(runs(&sim, "one"));
    sim.processes[0].watches.get_mut(&pods).unwrap().restart();
    lose(sim);
}

/// A slot that nobody can use yet would be lost to all others.
#[test]
fn a_pod_gets_its_slot_after_its_other_scheduling_gates() {
    let mut sim = with_slots(1);
    let slot = json!({"name": SLOT_GATE});
    let mut pod = sim.injected(&key("a", "one"), None, Restarts::Never);
    pod["spec"]["schedulingGates"] = json!([{"name": "example.com/quota"}, slot]);
    sim.create(Kind::Pod, &key("a", "one"), pod);
    settle(&mut sim);
    assert_eq!(sim.server.of_kind(Kind::Mask).count(), 0);
    assert!(condition(&sim, "one").contains("remove the scheduling gate example.com/quota first"));
    own(&mut sim, "two");
    settle(&mut sim);
    assert!(runs(&sim, "two"));
    sim.edit(Kind::Pod, &key("a", "one"), json!({"spec": {"schedulingGates": [slot]}}));
    settle(&mut sim);
    assert!(condition(&sim, "one").contains("place 1 in line"), "{}", condition(&sim, "one"));
    sim.delete(Kind::Pod, &key("a", "two"), "Background");
    settle_and_check(&mut sim);
    assert!(runs(&sim, "one"));
}

#[test]
fn a_pod_cannot_use_a_mask_that_is_not_there_or_belongs_to_another_pod() {
    let mut sim = with_slots(1);
    shared(&mut sim, "lonely");
    settle(&mut sim);
    assert!(condition(&sim, "lonely").contains("Mask shared does not exist"));
    sim.mask(&key("a", SHARED_MASK), json!({"secretName": format!("{SHARED_MASK}-secret")}));
    settle_and_check(&mut sim);
    assert!(runs(&sim, "lonely"));
}

/// The release waits for a finalizer of another component, before it deletes the Pod.
#[test]
fn nothing_is_read_again_and_again_while_a_finalizer_holds_the_secret() {
    let mut sim = with_slots(1);
    own(&mut sim, "one");
    settle(&mut sim);
    let (name, _) = sim.server.of_kind(Kind::Mask).next().unwrap();
    let mask = name.clone();
    sim.edit(Kind::Secret, &mask, json!({"metadata": {"finalizers": [FOREIGN]}}));
    sim.delete(Kind::Mask, &mask, "Background");
    settle(&mut sim);
    let result = sim.stays_quiet();
    check(&sim, result);
    assert!(runs(&sim, "one"));
    sim.clean_up();
    settle_and_check(&mut sim);
}

/// Two Pods of their own and two that share a Mask, on two slots, one after the other.
fn scenario(sim: &mut Sim) -> Result<(), String> {
    sim.account("p", 2);
    sim.mask(&key("a", SHARED_MASK), json!({"secretName": format!("{SHARED_MASK}-secret")}));
    sim.settle()?;
    shared(sim, "shared-0");
    own(sim, "own-0");
    sim.settle()?;
    shared(sim, "shared-1");
    own(sim, "own-1");
    sim.settle()?;
    sim.nodes.exit(&mut sim.server, &key("a", "own-0"), 0, 0);
    sim.delete(Kind::Pod, &key("a", "shared-0"), "Background");
    sim.settle()?;
    oracle::at_rest(sim)?;
    if !runs(sim, "own-1") || !runs(sim, "shared-1") {
        return Err("the next Pods do not run".to_owned());
    }
    sim.stays_quiet()
}

#[test]
fn a_crash_at_any_request_does_not_change_the_result() {
    crash_everywhere(&[table::all()], scenario);
}

#[test]
fn a_crash_of_any_process_at_any_request_does_not_change_the_result() {
    crash_everywhere(&separate_processes(), scenario);
}
