//! Releases without the garbage collector, which may lag far behind.

use std::collections::BTreeSet;

use serde_json::json;
use vpn_operator::{
    controllers::{ControllerSet, table},
    model::Kind,
};

use crate::{
    metadata::uid_of,
    process::separate_processes,
    run::{Move, Sim},
    scenarios::{check, settle, settle_and_check, settle_without},
    server::FOREGROUND,
    user::{PodLink, key},
};

fn layouts() -> [Vec<ControllerSet>; 2] {
    [vec![table::all()], separate_processes()]
}

#[test]
fn a_slot_is_released_and_assigned_without_the_garbage_collector() {
    for roles in layouts() {
        for link in [None, Some(PodLink::Owned), Some(PodLink::OwnedWithoutBlocking), Some(PodLink::TwoOwners)] {
            for how in ["Background", FOREGROUND] {
                let mut sim = Sim::new(&roles);
                sim.account("p", 1);
                sim.mask(&key("a", "m0"), json!({}));
                settle(&mut sim);
                if let Some(link) = link {
                    sim.pod("pod", &key("a", "m0"), link);
                    settle(&mut sim);
                }
                sim.mask(&key("a", "m1"), json!({}));
                settle(&mut sim);
                sim.gc_stalled = true;
                sim.delete(Kind::Mask, &key("a", "m0"), how);
                settle(&mut sim);
                assert_eq!(sim.phase(Kind::Mask, &key("a", "m1")), "Active", "{roles:?} {link:?} {how}");
                let result = sim.stays_quiet();
                check(&sim, result);
                sim.gc_stalled = false;
                settle_and_check(&mut sim);
            }
        }
    }
}

#[test]
fn a_release_takes_few_writes_and_no_reads_except_of_its_pods() {
    for (roles, link, limit) in [(table::all(), None, 6), (table::all(), Some(PodLink::Owned), 10)] {
        let mut sim = Sim::new(&[roles]);
        sim.account("p", 1);
        sim.mask(&key("a", "m"), json!({}));
        settle(&mut sim);
        if let Some(link) = link {
            sim.pod("pod", &key("a", "m"), link);
        }
        settle_and_check(&mut sim);
        sim.counts.clear();
        sim.delete(Kind::Mask, &key("a", "m"), "Background");
        settle_and_check(&mut sim);
        sim.counts.remove(&("patch", Some(Kind::Provider)));
        let (reads, writes): (Vec<_>, Vec<_>) = sim.counts.iter().partition(|((verb, _), _)| *verb == "get");
        assert!(reads.is_empty(), "{reads:?}");
        assert!(writes.iter().map(|(_, count)| **count).sum::<usize>() <= limit, "{writes:?}");
    }
}

/// The watch on Masks lags behind the watch on consumers.
#[test]
fn a_consumer_is_kept_if_the_watch_has_not_delivered_its_mask() {
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
    settle_and_check(&mut sim);
}

#[test]
fn a_release_that_started_before_the_operator_needs_no_garbage_collector() {
    let mut sim = Sim::new(&[table::all()]);
    sim.account("p", 1);
    sim.mask(&key("a", "m"), json!({}));
    settle(&mut sim);
    sim.gc_stalled = true;
    sim.crash(0);
    sim.delete(Kind::Mask, &key("a", "m"), "Background");
    settle(&mut sim);
    assert!(sim.server.get(Kind::Consumer, &key("a", "m")).is_none());
    settle_and_check(&mut sim);
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
    settle_and_check(&mut sim);
    let lists = sim.counts.get(&("list", None)).copied().unwrap_or(0);
    assert!(lists <= 30, "{lists} lists");
    assert_eq!(sim.server.of_kind(Kind::Reservation).count(), 0);
}

/// The copy may have lost what it is found by: its owner, as after a deletion with `--cascade=orphan`, or its label.
#[test]
fn no_slot_is_released_while_a_copy_of_the_credentials_exists() {
    for lost in [json!({"ownerReferences": null}), json!({"labels": null})] {
        for is_running in [true, false] {
            let mut sim = Sim::new(&[table::all()]);
            sim.account("p", 1);
            sim.mask(&key("a", "m"), json!({}));
            settle(&mut sim);
            sim.gc_stalled = true;
            sim.delete(Kind::Secret, &key("vpn", "p-secret"), "Background");
            settle(&mut sim);
            if !is_running {
                sim.crash(0);
            }
            let (copy, _) = sim.server.of_kind(Kind::Secret).find(|(key, _)| &*key.namespace == "a").unwrap();
            let copy = copy.clone();
            sim.edit(Kind::Secret, &copy, json!({ "metadata": lost }));
            settle(&mut sim);
            sim.delete(Kind::Mask, &key("a", "m"), "Background");
            settle(&mut sim);
            assert!(sim.server.get(Kind::Consumer, &key("a", "m")).is_none());
            assert!(sim.server.get(Kind::Secret, &copy).is_none(), "{lost} {is_running}");
        }
    }
}

/// A backup restores objects without their owners, and gives Masks and MaskConsumers new UIDs.
#[test]
fn a_reservation_from_a_backup_does_not_block_its_slot() {
    let mut sim = Sim::new(&[table::all()]);
    sim.account("p", 1);
    sim.mask(&key("a", "m"), json!({}));
    settle(&mut sim);
    let (lock, saved) = sim.server.of_kind(Kind::Reservation).next().unwrap();
    let (lock, mut saved) = (lock.clone(), (**saved).clone());
    saved["metadata"] = json!({"labels": saved["metadata"]["labels"], "finalizers": saved["metadata"]["finalizers"]});
    saved["status"] = json!({});
    sim.delete(Kind::Mask, &key("a", "m"), "Background");
    settle(&mut sim);
    sim.create(Kind::Reservation, &lock, saved);
    settle(&mut sim);
    sim.mask(&key("a", "m"), json!({}));
    settle(&mut sim);
    assert_eq!(sim.phase(Kind::Mask, &key("a", "m")), "Active");
    settle_and_check(&mut sim);
}

/// The API server removes such a Pod as soon as it is deleted, unless the request has a grace period. Then nobody would
/// know when its containers have stopped, and the slot would be held for `uncleanDelay`.
#[test]
fn the_end_of_a_pod_without_grace_period_is_seen() {
    for link in [PodLink::Owned, PodLink::OwnedWithoutBlocking, PodLink::TwoOwners] {
        let mut sim = Sim::new(&[table::all()]);
        sim.gc_stalled = true;
        sim.account("p", 1);
        sim.mask(&key("a", "m"), json!({}));
        settle(&mut sim);
        sim.pod("pod", &key("a", "m"), link);
        let no_grace_period = json!({"spec": {"terminationGracePeriodSeconds": 0}});
        sim.server.merge(Kind::Pod, &key("a", "pod"), &no_grace_period, false).unwrap();
        settle(&mut sim);
        sim.delete(Kind::Mask, &key("a", "m"), "Background");
        settle_and_check(&mut sim);
        let mut reservations = sim.server.log.iter().filter(|event| event.kind == Kind::Reservation);
        assert!(!reservations.any(|event| event.last.pointer("/status/holdUntil").is_some()), "{link:?}: held");
    }
}

/// Their writes would take the API server's time from the releases.
#[test]
fn many_releases_that_wait_for_pods_are_reported_at_a_limited_rate() {
    const COUNT: u64 = 20;
    let mut sim = Sim::new(&[table::all()]);
    sim.account("p", COUNT);
    let masks: Vec<_> = (0..COUNT).map(|number| key("a", &format!("m{number}"))).collect();
    for mask in &masks {
        sim.mask(mask, json!({}));
    }
    settle(&mut sim);
    for mask in &masks {
        sim.pod(&mask.name, mask, PodLink::Owned);
    }
    settle(&mut sim);
    sim.nodes.lost = sim.server.of_kind(Kind::Pod).map(|(_, pod)| uid_of(pod).to_owned()).collect();
    for mask in &masks {
        sim.delete(Kind::Mask, mask, "Background");
    }
    settle_without(&mut sim, |_| false);
    sim.counts.clear();
    let mut reported = Vec::new();
    for _ in 0..40 {
        sim.advance(500);
        settle_without(&mut sim, |_| false);
        reported.push(sim.total("patch", Kind::Consumer));
    }
    assert_eq!(reported[4], 0, "before three seconds have passed: {reported:?}");
    let most = reported.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(most <= Some(3), "more than five a second: {reported:?}");
    assert_eq!(reported.last(), Some(&masks.len()), "{reported:?}");
    let phases: BTreeSet<_> = masks.iter().map(|mask| sim.phase(Kind::Consumer, mask)).collect();
    assert_eq!(phases, ["Terminating"].into());
}
