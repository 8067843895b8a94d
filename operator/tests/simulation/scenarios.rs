//! Scenarios with a known result.

use serde_json::json;
use vpn_operator::{controllers::table, model::Kind};

use crate::{
    explore::tail,
    metadata::uid_of,
    oracle,
    process::separate_processes,
    run::{Bias, Move, Sim},
    server::{FOREGROUND, ORPHAN},
    user::{PodLink, key},
};

pub fn check(sim: &Sim, result: Result<(), String>) {
    if let Err(what) = result {
        panic!("{what}\n{}\n{what}", tail(&sim.trace));
    }
}

pub fn settle(sim: &mut Sim) {
    let result = sim.settle();
    check(sim, result);
}

/// Lets time pass in which timers may never end.
pub fn run_for(sim: &mut Sim, seconds: u64) {
    let end = sim.clock + seconds * 1_000;
    run_until(sim, |sim| sim.clock >= end);
}

pub fn run_until(sim: &mut Sim, is_over: impl Fn(&Sim) -> bool) {
    for turn in 0..50_000 {
        if is_over(sim) {
            return;
        }
        let moves = sim.moves();
        match moves.len() {
            0 => sim.advance(500),
            all => {
                sim.advance_quietly();
                let result = sim.make(moves[turn * 7919 % all].clone());
                check(sim, result);
            }
        }
    }
    check(sim, Err("what the test waits for does not happen".to_owned()));
}

pub fn settle_and_check(sim: &mut Sim) {
    settle(sim);
    check(sim, oracle::at_rest(sim));
    let result = sim.stays_quiet();
    check(sim, result);
}

#[test]
fn a_mask_becomes_active_with_six_writes_and_no_reads() {
    let mut sim = Sim::new(&[table::all()]);
    sim.account("p", 2);
    settle_and_check(&mut sim);
    sim.counts.clear();
    sim.mask(&key("a", "m"), json!({}));
    settle_and_check(&mut sim);
    assert_eq!(sim.phase(Kind::Mask, &key("a", "m")), "Active");
    let provider = sim.counts.remove(&("patch", Some(Kind::Provider)));
    assert_eq!(provider, Some(1));
    assert_eq!(sim.counts.values().sum::<usize>(), 6, "{:?}", sim.counts);
}

#[test]
fn the_next_mask_gets_the_slot_when_the_last_pod_has_ended() {
    let mut sim = Sim::new(&[table::all()]);
    sim.account("p", 1);
    sim.mask(&key("a", "m0"), json!({}));
    settle_and_check(&mut sim);
    sim.mask(&key("a", "m1"), json!({}));
    sim.pod("pod", &key("a", "m0"), PodLink::Owned);
    settle_and_check(&mut sim);
    assert_eq!(sim.phase(Kind::Mask, &key("a", "m1")), "Waiting");
    sim.delete(Kind::Mask, &key("a", "m0"), "Background");
    settle_and_check(&mut sim);
    assert_eq!(sim.phase(Kind::Mask, &key("a", "m1")), "Active");
    assert_eq!(sim.phase(Kind::Mask, &key("a", "m0")), "");
}

#[test]
fn a_pod_on_a_lost_node_holds_the_slot_without_requests() {
    for link in [PodLink::SecretOnly, PodLink::OwnedWithoutBlocking, PodLink::Owned, PodLink::TwoOwners] {
        let mut sim = Sim::new(&[table::all()]);
        sim.account("p", 1);
        sim.mask(&key("a", "m"), json!({}));
        settle(&mut sim);
        sim.pod("pod", &key("a", "m"), link);
        settle(&mut sim);
        let uid = uid_of(&sim.server.objects[&(Kind::Pod, key("a", "pod"))]).to_owned();
        sim.nodes.lost.push(uid);
        sim.delete(Kind::Mask, &key("a", "m"), "Background");
        settle(&mut sim);
        let result = sim.stays_quiet();
        check(&sim, result);
        assert_eq!(sim.phase(Kind::Consumer, &key("a", "m")), "Terminating");
        sim.clean_up();
        settle_and_check(&mut sim);
        assert!(sim.server.get(Kind::Consumer, &key("a", "m")).is_none());
    }
}

#[test]
fn twenty_masks_on_twenty_slots_create_twenty_objects_of_each_kind() {
    for bias in [Bias::Even, Bias::WatchesLast, Bias::WatchesFirst] {
        let mut sim = Sim::new(&[table::all()]);
        sim.bias = bias;
        sim.account("p", 20);
        settle_and_check(&mut sim);
        sim.counts.clear();
        for i in 0..20 {
            sim.mask(&key("a", &format!("m{i}")), json!({}));
        }
        settle_and_check(&mut sim);
        for kind in [Kind::Consumer, Kind::Reservation, Kind::Secret] {
            assert_eq!(sim.total("create", kind), 20, "{bias:?} {:?}", sim.counts);
        }
        for kind in [Kind::Consumer, Kind::Reservation, Kind::Mask] {
            assert_eq!(sim.total("patch", kind), 20, "{bias:?} {:?}", sim.counts);
            assert_eq!(sim.total("get", kind), 0, "{bias:?} {:?}", sim.counts);
        }
    }
}

#[test]
fn a_slot_is_assigned_by_priority_then_age() {
    let mut sim = Sim::new(&[table::all()]);
    sim.account("p", 1);
    settle(&mut sim);
    for (name, priority) in [("z", 0), ("a", 0), ("y", 0), ("late", 7)] {
        sim.mask(&key("a", name), json!({"priority": priority}));
        settle(&mut sim);
        sim.advance(2_000);
    }
    for name in ["z", "late", "a", "y"] {
        settle_and_check(&mut sim);
        let active = sim.server.of_kind(Kind::Mask).filter(|(key, _)| sim.phase(Kind::Mask, key) == "Active");
        assert_eq!(active.map(|(key, _)| &*key.name).collect::<Vec<_>>(), [name]);
        sim.delete(Kind::Mask, &key("a", name), "Background");
    }
}

#[test]
fn a_mask_that_is_recreated_gets_a_slot() {
    for how in ["Background", FOREGROUND, ORPHAN] {
        let mut sim = Sim::new(&[table::all()]);
        sim.account("p", 1);
        sim.mask(&key("a", "m"), json!({}));
        settle(&mut sim);
        sim.pod("pod", &key("a", "m"), PodLink::Owned);
        settle(&mut sim);
        sim.delete(Kind::Mask, &key("a", "m"), how);
        while sim.server.get(Kind::Mask, &key("a", "m")).is_some() {
            let moves = sim.moves();
            // Delay the watches as long as possible.
            let chosen = moves.iter().find(|chosen| !matches!(chosen, Move::Watch(..))).unwrap_or(&moves[0]);
            let result = sim.make(chosen.clone());
            check(&sim, result);
        }
        sim.mask(&key("a", "m"), json!({}));
        settle_and_check(&mut sim);
        assert_eq!(sim.phase(Kind::Mask, &key("a", "m")), "Active");
    }
}

#[test]
fn a_release_completes_after_a_lost_response_to_the_deletion_of_a_pod() {
    let mut sim = Sim::new(&[table::all()]);
    sim.account("p", 1);
    sim.mask(&key("a", "m"), json!({}));
    settle(&mut sim);
    sim.pod("pod", &key("a", "m"), PodLink::Owned);
    settle(&mut sim);
    sim.delete(Kind::Mask, &key("a", "m"), "Background");
    let is_pod_delete = |sim: &Sim| {
        sim.in_flight.iter().position(|request| {
            request.operation.verb() == "delete" && request.operation.target().unwrap().0 == Kind::Pod
        })
    };
    while is_pod_delete(&sim).is_none() {
        let first = sim.moves()[0].clone();
        let result = sim.make(first);
        check(&sim, result);
    }
    let request = is_pod_delete(&sim).unwrap();
    let result = sim.apply(request);
    check(&sim, result);
    while sim.server.get(Kind::Pod, &key("a", "pod")).is_some() {
        sim.nodes.step(&mut sim.server, &key("a", "pod"));
    }
    sim.lose(request);
    settle_and_check(&mut sim);
    assert!(sim.server.get(Kind::Consumer, &key("a", "m")).is_none());
}

/// Settles while the moves that `blocked` selects do not happen.
pub fn settle_without(sim: &mut Sim, blocked: impl Fn(&Move) -> bool) {
    settle_without_any(sim, |_, chosen| blocked(chosen));
}

pub fn settle_without_any(sim: &mut Sim, blocked: impl Fn(&Sim, &Move) -> bool) {
    for turn in 0..1_000 {
        let moves: Vec<_> = sim.moves().into_iter().filter(|chosen| !blocked(sim, chosen)).collect();
        if moves.is_empty() {
            return;
        }
        let result = sim.make(moves[turn * 7919 % moves.len()].clone());
        check(sim, result);
    }
    check(sim, Err("does not come to rest".to_owned()));
}

#[test]
fn a_lock_that_the_watch_has_not_delivered_blocks_the_release_of_its_consumer() {
    let reservations = crate::watch::Filter::Whole(Kind::Reservation);
    let mut sim = Sim::new(&[table::all(), table::all()]);
    sim.account("p", 1);
    settle(&mut sim);
    // The second operator starts. It has listed the reservations, of which there are none, and nothing else.
    sim.crash(1);
    while !sim.processes[1].watches[&reservations].is_live() {
        let result = sim.make(Move::Watch(1, reservations.clone()));
        check(&sim, result);
    }
    let of_second = |chosen: &Move| matches!(chosen, Move::Watch(1, _));
    sim.mask(&key("a", "m"), json!({}));
    settle_without(&mut sim, of_second);
    // Without an owner, so that the garbage collector does not block the deletion of the consumer.
    sim.pod("pod", &key("a", "m"), PodLink::SecretOnly);
    settle_without(&mut sim, of_second);
    let uid = uid_of(&sim.server.objects[&(Kind::Pod, key("a", "pod"))]).to_owned();
    sim.nodes.lost.push(uid);
    sim.delete(Kind::Mask, &key("a", "m"), "Background");
    settle_without(&mut sim, of_second);
    // Now it lists the rest, and still does not know the lock.
    settle_without(&mut sim, |chosen| *chosen == Move::Watch(1, reservations.clone()));
    assert!(sim.server.get(Kind::Consumer, &key("a", "m")).is_some(), "{}", tail(&sim.trace));
    sim.clean_up();
    settle_and_check(&mut sim);
}

#[test]
fn a_lock_from_before_a_restart_is_released_if_the_secret_is_missing() {
    let mut sim = Sim::new(&[table::all()]);
    sim.account("p", 1);
    settle(&mut sim);
    sim.mask(&key("a", "m"), json!({}));
    while sim.server.of_kind(Kind::Reservation).count() == 0 {
        let first = sim.moves()[0].clone();
        let result = sim.make(first);
        check(&sim, result);
    }
    sim.crash(0);
    sim.delete(Kind::Secret, &key("vpn", "p-secret"), "Background");
    settle_and_check(&mut sim);
    assert_eq!(sim.server.of_kind(Kind::Reservation).count(), 0);
    assert_eq!(sim.phase(Kind::Mask, &key("a", "m")), "ErrNoProviders");
}

#[test]
fn two_operators_agree_on_the_users_of_a_slot() {
    let mut sim = Sim::new(&[table::all(), table::all()]);
    sim.account("p", 1);
    sim.mask(&key("a", "m"), json!({}));
    settle(&mut sim);
    sim.pod("one", &key("a", "m"), PodLink::SecretOnly);
    settle(&mut sim);
    let pods = crate::watch::Filter::Pods("a".into());
    let second = Move::Watch(1, pods.clone());
    sim.delete(Kind::Mask, &key("a", "m"), "Background");
    // The second operator lists the Pods only after another one was created, which is not bound to a node yet.
    settle_without(&mut sim, |chosen| *chosen == second);
    sim.server.remove(Kind::Pod, &key("a", "one"));
    sim.pod("two", &key("a", "m"), PodLink::OwnedWithoutBlocking);
    settle(&mut sim);
    let result = sim.stays_quiet();
    check(&sim, result);
}

#[test]
fn a_stale_reservation_of_the_former_consumer_evicts_nobody() {
    let mut sim = Sim::new(&[table::all(), table::all()]);
    sim.account("p", 1);
    sim.mask(&key("a", "m0"), json!({}));
    settle(&mut sim);
    sim.mask(&key("a", "m1"), json!({}));
    settle(&mut sim);
    // The watch of the second operator on reservations lags behind, and so do its writes to them.
    let late = |sim: &Sim, chosen: &Move| match chosen {
        Move::Apply(i) => {
            let request = &sim.in_flight[*i];
            let about = request.operation.target().is_some_and(|(kind, _)| kind == Kind::Reservation);
            request.process == 1 && about && request.operation.verb() != "get"
        }
        chosen => *chosen == Move::Watch(1, crate::watch::Filter::Whole(Kind::Reservation)),
    };
    sim.delete(Kind::Mask, &key("a", "m0"), "Background");
    settle_without_any(&mut sim, late);
    assert_eq!(sim.phase(Kind::Mask, &key("a", "m1")), "Active", "{}", tail(&sim.trace));
    settle_and_check(&mut sim);
}

#[test]
fn a_lower_limit_holds_before_the_process_of_the_consumers_controller_knows_it() {
    let mut sim = Sim::new(&separate_processes());
    sim.account("p", 2);
    sim.mask(&key("a", "m0"), json!({}));
    settle(&mut sim);
    sim.pod("pod0", &key("a", "m0"), PodLink::Owned);
    settle(&mut sim);
    let late = Move::Watch(1, crate::watch::Filter::Whole(Kind::Provider));
    sim.slots("p", 1);
    settle_without(&mut sim, |chosen| *chosen == late);
    sim.advance(2_000);
    settle_without(&mut sim, |chosen| *chosen == late);
    sim.mask(&key("a", "m1"), json!({}));
    settle_without(&mut sim, |chosen| *chosen == late);
    sim.pod("pod1", &key("a", "m1"), PodLink::Owned);
    settle_without(&mut sim, |chosen| *chosen == late);
    settle_and_check(&mut sim);
}
