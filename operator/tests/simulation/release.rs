//! Release without the garbage collector, which may be far behind.

use serde_json::json;
use vpn_operator::{
    controllers::{ControllerSet, table},
    model::Kind,
};

use crate::{
    process::apart,
    run::{Move, Sim},
    scenarios::{check, rest, settle, settle_without},
    server::FOREGROUND,
    user::{Tie, key},
};

fn layouts() -> [Vec<ControllerSet>; 2] {
    [vec![table::all()], apart()]
}

#[test]
fn a_slot_changes_hands_though_the_garbage_collector_does_nothing() {
    for roles in layouts() {
        for tie in [None, Some(Tie::Owned), Some(Tie::OwnedWithoutBlocking), Some(Tie::TwoOwners)] {
            for how in ["Background", FOREGROUND] {
                let mut sim = Sim::new(&roles);
                sim.account("p", 1);
                sim.mask(&key("a", "m0"), json!({}));
                settle(&mut sim);
                if let Some(tie) = tie {
                    sim.pod("pod", &key("a", "m0"), tie);
                    settle(&mut sim);
                }
                sim.mask(&key("a", "m1"), json!({}));
                settle(&mut sim);
                sim.gc_stalled = true;
                sim.delete(Kind::Mask, &key("a", "m0"), how);
                settle(&mut sim);
                assert_eq!(sim.phase(Kind::Mask, &key("a", "m1")), "Active", "{roles:?} {tie:?} {how}");
                let result = sim.stays_quiet();
                check(&sim, result);
                sim.gc_stalled = false;
                rest(&mut sim);
            }
        }
    }
}

#[test]
fn a_release_takes_few_writes_and_no_read_but_for_its_pods() {
    for (roles, tie, limit) in [(table::all(), None, 6), (table::all(), Some(Tie::Owned), 10)] {
        let mut sim = Sim::new(&[roles]);
        sim.account("p", 1);
        sim.mask(&key("a", "m"), json!({}));
        settle(&mut sim);
        if let Some(tie) = tie {
            sim.pod("pod", &key("a", "m"), tie);
        }
        rest(&mut sim);
        sim.counts.clear();
        sim.delete(Kind::Mask, &key("a", "m"), "Background");
        rest(&mut sim);
        sim.counts.remove(&("patch", Some(Kind::Provider)));
        let (reads, writes): (Vec<_>, Vec<_>) = sim.counts.iter().partition(|((verb, _), _)| *verb == "get");
        assert!(reads.is_empty(), "{reads:?}");
        assert!(writes.iter().map(|(_, count)| **count).sum::<usize>() <= limit, "{writes:?}");
    }
}

/// The watch on Masks is late, and the consumer is there already.
#[test]
fn a_consumer_is_kept_whose_mask_the_watch_has_not_told_of_yet() {
    let mut sim = Sim::new(&[table::all(), table::all()]);
    sim.account("p", 1);
    settle(&mut sim);
    let late = Move::Watch(1, crate::watch::Filter::Whole(Kind::Mask));
    sim.mask(&key("a", "m"), json!({}));
    settle_without(&mut sim, |chosen| *chosen == late);
    assert_eq!(sim.phase(Kind::Consumer, &key("a", "m")), "Active");
    sim.delete(Kind::Mask, &key("a", "m"), "Background");
    settle_without(&mut sim, |chosen| *chosen == late);
    sim.mask(&key("a", "m"), json!({}));
    settle_without(&mut sim, |chosen| *chosen == late);
    assert_eq!(sim.phase(Kind::Consumer, &key("a", "m")), "Active");
    rest(&mut sim);
}

#[test]
fn a_release_that_an_operator_finds_after_its_start_needs_no_garbage_collector() {
    let mut sim = Sim::new(&[table::all()]);
    sim.account("p", 1);
    sim.mask(&key("a", "m"), json!({}));
    settle(&mut sim);
    sim.gc_stalled = true;
    sim.crash(0);
    sim.delete(Kind::Mask, &key("a", "m"), "Background");
    settle(&mut sim);
    assert!(sim.server.get(Kind::Consumer, &key("a", "m")).is_none());
    rest(&mut sim);
}

#[test]
fn many_releases_share_a_list_of_pods() {
    let mut sim = Sim::new(&[table::all()]);
    sim.account("p", 50);
    for number in 0..50 {
        sim.mask(&key("a", &format!("m{number}")), json!({}));
    }
    settle(&mut sim);
    sim.counts.clear();
    for number in 0..50 {
        sim.delete(Kind::Mask, &key("a", &format!("m{number}")), "Background");
    }
    rest(&mut sim);
    let lists = sim.counts.get(&("list", None)).copied().unwrap_or(0);
    assert!(lists <= 25, "{lists} lists");
    assert_eq!(sim.server.of_kind(Kind::Reservation).count(), 0);
}
