//! Stories with a known end.

use serde_json::json;
use vpn_operator::{controllers::table, model::Kind};

use crate::{
    explore::tail,
    oracle,
    process::apart,
    run::{Bias, Move, Sim},
    server::{FOREGROUND, ORPHAN, uid_of},
    user::{Tie, key},
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

pub fn rest(sim: &mut Sim) {
    settle(sim);
    check(sim, oracle::at_rest(sim));
    let result = sim.stays_quiet();
    check(sim, result);
}

#[test]
fn a_mask_becomes_active_with_six_writes_and_no_read() {
    let mut sim = Sim::new(&[table::all()]);
    sim.account("p", 2);
    rest(&mut sim);
    sim.counts.clear();
    sim.mask(&key("a", "m"), json!({}));
    rest(&mut sim);
    assert_eq!(sim.phase(Kind::Mask, &key("a", "m")), "Active");
    let provider = sim.counts.remove(&("patch", Some(Kind::Provider)));
    assert_eq!(provider, Some(1));
    assert_eq!(sim.counts.values().sum::<usize>(), 6, "{:?}", sim.counts);
}

#[test]
fn the_next_waiter_is_served_when_the_last_pod_is_gone() {
    let mut sim = Sim::new(&[table::all()]);
    sim.account("p", 1);
    sim.mask(&key("a", "m0"), json!({}));
    rest(&mut sim);
    sim.mask(&key("a", "m1"), json!({}));
    sim.pod("pod", &key("a", "m0"), Tie::Owned);
    rest(&mut sim);
    assert_eq!(sim.phase(Kind::Mask, &key("a", "m1")), "Waiting");
    sim.delete(Kind::Mask, &key("a", "m0"), "Background");
    rest(&mut sim);
    assert_eq!(sim.phase(Kind::Mask, &key("a", "m1")), "Active");
    assert_eq!(sim.phase(Kind::Mask, &key("a", "m0")), "");
}

#[test]
fn a_pod_that_nobody_deletes_holds_the_slot_in_silence() {
    for tie in [Tie::SecretOnly, Tie::OwnedWithoutBlocking, Tie::Owned, Tie::TwoOwners] {
        let mut sim = Sim::new(&[table::all()]);
        sim.account("p", 1);
        sim.mask(&key("a", "m"), json!({}));
        settle(&mut sim);
        sim.pod("pod", &key("a", "m"), tie);
        settle(&mut sim);
        let uid = uid_of(&sim.server.objects[&(Kind::Pod, key("a", "pod"))]).to_owned();
        sim.nodes.lost.push(uid);
        sim.delete(Kind::Mask, &key("a", "m"), "Background");
        settle(&mut sim);
        let result = sim.stays_quiet();
        check(&sim, result);
        assert_eq!(sim.phase(Kind::Consumer, &key("a", "m")), "Terminating");
        sim.clean_up();
        rest(&mut sim);
        assert!(sim.server.get(Kind::Consumer, &key("a", "m")).is_none());
    }
}

#[test]
fn twenty_masks_on_twenty_slots_make_twenty_of_each() {
    for bias in [Bias::Even, Bias::WatchesLast, Bias::WatchesFirst] {
        let mut sim = Sim::new(&[table::all()]);
        sim.bias = bias;
        sim.account("p", 20);
        rest(&mut sim);
        sim.counts.clear();
        for i in 0..20 {
            sim.mask(&key("a", &format!("m{i}")), json!({}));
        }
        rest(&mut sim);
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
fn one_slot_goes_round_by_priority_then_age() {
    let mut sim = Sim::new(&[table::all()]);
    sim.account("p", 1);
    settle(&mut sim);
    for (name, priority) in [("z", 0), ("a", 0), ("y", 0), ("late", 7)] {
        sim.mask(&key("a", name), json!({"priority": priority}));
        settle(&mut sim);
        sim.advance(2_000);
    }
    for name in ["z", "late", "a", "y"] {
        rest(&mut sim);
        let active = sim.server.of_kind(Kind::Mask).filter(|(key, _)| sim.phase(Kind::Mask, key) == "Active");
        assert_eq!(active.map(|(key, _)| &*key.name).collect::<Vec<_>>(), [name]);
        sim.delete(Kind::Mask, &key("a", name), "Background");
    }
}

#[test]
fn a_mask_made_anew_under_its_name_gets_a_slot() {
    for how in ["Background", FOREGROUND, ORPHAN] {
        let mut sim = Sim::new(&[table::all()]);
        sim.account("p", 1);
        sim.mask(&key("a", "m"), json!({}));
        settle(&mut sim);
        sim.pod("pod", &key("a", "m"), Tie::Owned);
        settle(&mut sim);
        sim.delete(Kind::Mask, &key("a", "m"), how);
        while sim.server.get(Kind::Mask, &key("a", "m")).is_some() {
            let moves = sim.moves();
            // With as little heard by the operator as possible.
            let chosen = moves.iter().find(|chosen| !matches!(chosen, Move::Watch(..))).unwrap_or(&moves[0]);
            let result = sim.make(chosen.clone());
            check(&sim, result);
        }
        sim.mask(&key("a", "m"), json!({}));
        rest(&mut sim);
        assert_eq!(sim.phase(Kind::Mask, &key("a", "m")), "Active");
    }
}

#[test]
fn a_pod_whose_deletion_was_not_answered_is_not_asked_for_for_ever() {
    let mut sim = Sim::new(&[table::all()]);
    sim.account("p", 1);
    sim.mask(&key("a", "m"), json!({}));
    settle(&mut sim);
    sim.pod("pod", &key("a", "m"), Tie::Owned);
    settle(&mut sim);
    sim.delete(Kind::Mask, &key("a", "m"), "Background");
    let is_pod_delete = |sim: &Sim| {
        sim.flights.iter().position(|flight| flight.op.verb() == "delete" && flight.op.target().unwrap().0 == Kind::Pod)
    };
    while is_pod_delete(&sim).is_none() {
        let first = sim.moves()[0].clone();
        let result = sim.make(first);
        check(&sim, result);
    }
    let flight = is_pod_delete(&sim).unwrap();
    let result = sim.apply(flight);
    check(&sim, result);
    while sim.server.get(Kind::Pod, &key("a", "pod")).is_some() {
        sim.nodes.step(&mut sim.server, &key("a", "pod"));
    }
    sim.lose(flight);
    rest(&mut sim);
    assert!(sim.server.get(Kind::Consumer, &key("a", "m")).is_none());
}

/// Goes on until nothing is left to do but moves that `held` holds back.
pub fn settle_without(sim: &mut Sim, held: impl Fn(&Move) -> bool) {
    settle_but_for(sim, |_, chosen| held(chosen));
}

fn settle_but_for(sim: &mut Sim, held: impl Fn(&Sim, &Move) -> bool) {
    for turn in 0..1_000 {
        let moves: Vec<_> = sim.moves().into_iter().filter(|chosen| !held(sim, chosen)).collect();
        if moves.is_empty() {
            return;
        }
        let result = sim.make(moves[turn * 7919 % moves.len()].clone());
        check(sim, result);
    }
    check(sim, Err("does not come to rest".to_owned()));
}

#[test]
fn a_lock_that_the_watch_has_not_told_of_yet_holds_the_release_of_its_consumer() {
    let reservations = crate::watch::Filter::Whole(Kind::Reservation);
    let mut sim = Sim::new(&[table::all(), table::all()]);
    sim.account("p", 1);
    settle(&mut sim);
    // The second operator starts: it has listed the reservations, of which there are none, and nothing else.
    sim.crash(1);
    while !sim.processes[1].watches[&reservations].is_live() {
        let result = sim.make(Move::Watch(1, reservations.clone()));
        check(&sim, result);
    }
    let of_second = |chosen: &Move| matches!(chosen, Move::Watch(1, _));
    sim.mask(&key("a", "m"), json!({}));
    settle_without(&mut sim, of_second);
    // Not owned, so that the garbage collector does not hold the consumer as well.
    sim.pod("pod", &key("a", "m"), Tie::SecretOnly);
    settle_without(&mut sim, of_second);
    let uid = uid_of(&sim.server.objects[&(Kind::Pod, key("a", "pod"))]).to_owned();
    sim.nodes.lost.push(uid);
    sim.delete(Kind::Mask, &key("a", "m"), "Background");
    settle_without(&mut sim, of_second);
    // Now it lists the rest, and still has not heard of the lock.
    settle_without(&mut sim, |chosen| *chosen == Move::Watch(1, reservations.clone()));
    assert!(sim.server.get(Kind::Consumer, &key("a", "m")).is_some(), "{}", tail(&sim.trace));
    sim.clean_up();
    rest(&mut sim);
}

#[test]
fn a_lock_taken_before_a_restart_is_given_back_when_the_secret_turns_out_to_be_missing() {
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
    rest(&mut sim);
    assert_eq!(sim.server.of_kind(Kind::Reservation).count(), 0);
    assert_eq!(sim.phase(Kind::Mask, &key("a", "m")), "ErrNoProviders");
}

#[test]
fn two_operators_agree_on_the_users_of_a_slot() {
    let mut sim = Sim::new(&[table::all(), table::all()]);
    sim.account("p", 1);
    sim.mask(&key("a", "m"), json!({}));
    settle(&mut sim);
    sim.pod("one", &key("a", "m"), Tie::SecretOnly);
    settle(&mut sim);
    let pods = crate::watch::Filter::Pods("a".into());
    let second = Move::Watch(1, pods.clone());
    sim.delete(Kind::Mask, &key("a", "m"), "Background");
    // The second lists the Pods only when another one has come, which is not bound to a node yet.
    settle_without(&mut sim, |chosen| *chosen == second);
    sim.server.remove(Kind::Pod, &key("a", "one"));
    sim.pod("two", &key("a", "m"), Tie::OwnedWithoutBlocking);
    settle(&mut sim);
    let result = sim.stays_quiet();
    check(&sim, result);
}

#[test]
fn nobody_is_evicted_because_the_watch_still_tells_of_the_former_holder() {
    let mut sim = Sim::new(&[table::all(), table::all()]);
    sim.account("p", 1);
    sim.mask(&key("a", "m0"), json!({}));
    settle(&mut sim);
    sim.mask(&key("a", "m1"), json!({}));
    settle(&mut sim);
    // The second operator hears nothing of reservations, and its writes to them take long.
    let late = |sim: &Sim, chosen: &Move| match chosen {
        Move::Apply(i) => {
            let flight = &sim.flights[*i];
            let about = flight.op.target().is_some_and(|(kind, _)| kind == Kind::Reservation);
            flight.process == 1 && about && flight.op.verb() != "get"
        }
        chosen => *chosen == Move::Watch(1, crate::watch::Filter::Whole(Kind::Reservation)),
    };
    sim.delete(Kind::Mask, &key("a", "m0"), "Background");
    settle_but_for(&mut sim, late);
    assert_eq!(sim.phase(Kind::Mask, &key("a", "m1")), "Active", "{}", tail(&sim.trace));
    rest(&mut sim);
}

#[test]
fn a_lowered_limit_holds_though_the_consumers_process_has_not_heard_of_it() {
    let mut sim = Sim::new(&apart());
    sim.account("p", 2);
    sim.mask(&key("a", "m0"), json!({}));
    settle(&mut sim);
    sim.pod("pod0", &key("a", "m0"), Tie::Owned);
    settle(&mut sim);
    let late = Move::Watch(1, crate::watch::Filter::Whole(Kind::Provider));
    sim.slots("p", 1);
    settle_without(&mut sim, |chosen| *chosen == late);
    sim.advance(2_000);
    settle_without(&mut sim, |chosen| *chosen == late);
    sim.mask(&key("a", "m1"), json!({}));
    settle_without(&mut sim, |chosen| *chosen == late);
    sim.pod("pod1", &key("a", "m1"), Tie::Owned);
    settle_without(&mut sim, |chosen| *chosen == late);
    rest(&mut sim);
}
