use std::cmp::Reverse;

use chrono::DateTime;
use proptest::{collection::vec, prelude::*, sample::subsequence};

use super::*;
use crate::state::{Fingerprint, LoginIndex};

fn provider(name: &str) -> ObjectKey {
    ObjectKey::new("vpn", name)
}

fn spec(uid: &str, capacity: u32) -> PoolSpec {
    PoolSpec {
        uid: Uid::from(uid),
        capacity,
        withheld: Vec::new(),
        keys: DeviceKeys::default(),
        tags: Default::default(),
        namespaces: None,
        usable: true,
        verifiable: false,
        current: true,
        unusable_reason: String::new(),
    }
}

fn tags(all: &[&str]) -> crate::state::Tags {
    all.iter().map(|tag| (*tag).into()).collect()
}

fn requirements(namespace: &str, wanted: Option<&[&str]>) -> Requirements {
    Requirements { namespace: namespace.into(), tags: wanted.map(tags), verifies: None }
}

fn rank(name: &str, priority: i32, created: i64) -> Rank {
    Rank {
        priority: Reverse(priority),
        created: DateTime::from_timestamp(created, 0).unwrap_or_default(),
        name: name.into(),
        key: ObjectKey::new("ns", name),
        uid: Uid::from(name),
    }
}

fn wait(allocator: &mut Allocator, name: &str, priority: i32, created: i64) {
    allocator.wait(&Uid::from(name), requirements("ns", None), rank(name, priority, created));
}

fn names(granted: Vec<ObjectKey>) -> Vec<String> {
    granted.iter().map(|key| key.name.to_string()).collect()
}

#[test]
fn order_is_priority_then_age_then_name() {
    let mut allocator = Allocator::default();
    for (name, priority, created) in [("d", 0, 2), ("c", 0, 1), ("b", 0, 1), ("a", -1, 0), ("e", 1, 9)] {
        wait(&mut allocator, name, priority, created);
    }
    allocator.set_pool(provider("p"), spec("u", 5));
    assert_eq!(names(allocator.settle()), ["e", "b", "c", "d", "a"]);
}

#[test]
fn a_foreign_reservation_beyond_the_capacity_stops_nothing() {
    let mut allocator = Allocator::default();
    let pool =
        |allocator: &Allocator| allocator.pool(&provider("p")).map(|pool| (pool.is_draining(), pool.next_free()));
    allocator.set_pool(provider("p"), spec("u", 2));
    allocator.reserved(&provider("p"), 3, false);
    assert_eq!(pool(&allocator), Some((false, Some(0))));
    allocator.reserved(&provider("p"), 3, true);
    assert_eq!(pool(&allocator), Some((true, None)));
    allocator.unreserved(&provider("p"), 3);
    assert_eq!(pool(&allocator), Some((false, Some(0))));
    allocator.reserved(&provider("p"), 0, false);
    assert_eq!(pool(&allocator), Some((false, Some(1))));
}

#[test]
fn nothing_is_assigned_while_a_slot_beyond_the_capacity_is_held() {
    let mut allocator = Allocator::default();
    allocator.set_pool(provider("p"), spec("u", 4));
    allocator.reserved(&provider("p"), 3, true);
    allocator.set_pool(provider("p"), spec("u", 2));
    wait(&mut allocator, "a", 0, 0);
    assert!(allocator.settle().is_empty());
    allocator.unreserved(&provider("p"), 3);
    assert_eq!(names(allocator.settle()), ["a"]);
}

#[test]
fn a_committed_consumer_keeps_its_slot_without_its_reservation() {
    for known in [true, false] {
        let mut allocator = Allocator::default();
        if known {
            allocator.set_pool(provider("p"), spec("u", 1));
        }
        allocator.reserved(&provider("p"), 0, true);
        allocator.committed(&provider("p"), 0);
        allocator.unreserved(&provider("p"), 0);
        allocator.set_pool(provider("p"), spec("u", 1));
        wait(&mut allocator, "a", 0, 0);
        assert!(allocator.settle().is_empty());
        allocator.uncommitted(&provider("p"), 0);
        assert_eq!(names(allocator.settle()), ["a"]);
    }
}

#[test]
fn held_slots_of_an_unknown_provider_stay_held_when_it_appears() {
    let mut allocator = Allocator::default();
    allocator.reserved(&provider("p"), 0, true);
    allocator.set_pool(provider("p"), spec("u", 2));
    wait(&mut allocator, "a", 0, 0);
    wait(&mut allocator, "b", 0, 1);
    assert_eq!(names(allocator.settle()), ["a"]);
    assert_eq!(allocator.grant(&Uid::from("a")).map(|grant| grant.slot), Some(1));
}

#[test]
fn grants_of_a_provider_that_is_gone_are_void() {
    for recreated in [false, true] {
        let mut allocator = Allocator::default();
        allocator.set_pool(provider("p"), spec("old", 1));
        wait(&mut allocator, "a", 0, 0);
        assert_eq!(names(allocator.settle()), ["a"]);
        if !recreated {
            allocator.remove_pool(&provider("p"));
        }
        allocator.set_pool(provider("p"), spec("new", 1));
        assert!(allocator.grant(&Uid::from("a")).is_none());
        wait(&mut allocator, "b", 0, 1);
        assert_eq!(names(allocator.settle()), ["b"]);
        allocator.end_grant(&Uid::from("a"));
        allocator.reserved(&provider("p"), 0, true);
        assert!(allocator.grant(&Uid::from("b")).is_none());
    }
}

#[test]
fn a_grant_ends_when_another_consumer_reserves_the_slot_and_the_next_slot_is_granted() {
    let mut allocator = Allocator::default();
    allocator.set_pool(provider("p"), spec("u", 2));
    wait(&mut allocator, "a", 0, 0);
    allocator.settle();
    allocator.reserved(&provider("p"), 0, true);
    assert!(allocator.grant(&Uid::from("a")).is_none());
    wait(&mut allocator, "a", 0, 0);
    allocator.settle();
    assert_eq!(allocator.grant(&Uid::from("a")).map(|grant| grant.slot), Some(1));
}

#[test]
fn a_consumer_without_a_matching_provider_does_not_block_the_next_one() {
    let mut allocator = Allocator::default();
    allocator.set_pool(provider("p"), PoolSpec { tags: tags(&["x"]), ..spec("u", 1) });
    allocator.wait(&Uid::from("a"), requirements("ns", Some(&["y"])), rank("a", 9, 0));
    allocator.wait(&Uid::from("b"), requirements("ns", Some(&["y", "x"])), rank("b", 0, 1));
    assert_eq!(names(allocator.settle()), ["b"]);
    allocator.set_pool(provider("q"), PoolSpec { tags: tags(&["y"]), ..spec("v", 1) });
    assert_eq!(names(allocator.settle()), ["a"]);
}

#[test]
fn a_consumer_can_queue_for_a_provider_that_has_just_gone() {
    let mut allocator = Allocator::default();
    allocator.set_pool(provider("p"), spec("u", 1));
    wait(&mut allocator, "a", 0, 0);
    allocator.settle();
    allocator.remove_pool(&provider("p"));
    wait(&mut allocator, "b", 0, 0);
    assert!(allocator.settle().is_empty());
}

#[test]
fn a_withheld_slot_is_skipped() {
    let mut allocator = Allocator::default();
    for name in ["a", "b", "c"] {
        wait(&mut allocator, name, 0, 0);
    }
    allocator.set_pool(provider("p"), PoolSpec { withheld: vec![0, 2], ..spec("u", 4) });
    allocator.settle();
    let slots = ["a", "b", "c"].map(|name| allocator.grant(&Uid::from(name)).map(|grant| grant.slot));
    assert_eq!(slots, [Some(1), Some(3), None]);
    allocator.set_pool(provider("p"), PoolSpec { withheld: vec![0], ..spec("u", 4) });
    assert_eq!(names(allocator.settle()), ["c"]);
    assert_eq!(allocator.grant(&Uid::from("c")).map(|grant| grant.slot), Some(2));
}

/// Returns fingerprints of keys, which only the index can create.
fn fingerprints() -> [Fingerprint; 2] {
    ["k0", "k1"]
        .map(|key| {
            let data = [("WIREGUARD_PRIVATE_KEY".to_owned(), k8s_openapi::ByteString(key.as_bytes().to_vec()))];
            LoginIndex::default().login(&data.into_iter().collect(), &Default::default()).map(|login| login.fingerprint)
        })
        .map(|key| key.expect("a key"))
}

#[test]
fn slots_with_the_same_key_are_assigned_one_at_a_time() {
    let [shared, other] = fingerprints();
    let mut allocator = Allocator::default();
    for (age, name) in ["a", "b", "c", "d"].iter().enumerate() {
        wait(&mut allocator, name, 0, age as i64);
    }
    // Slots 0 and 3 have the same key as all slots without their own Secret, of which there are very many.
    let own = [(0, Some(shared)), (1, Some(other)), (3, Some(shared))].into_iter().collect();
    let keys = DeviceKeys { common: Some(shared), own };
    allocator.set_pool(provider("p"), PoolSpec { keys, ..spec("u", u32::MAX >> 1) });
    assert_eq!(names(allocator.settle()), ["a", "b"]);
    let slot = |allocator: &Allocator, name: &str| allocator.grant(&Uid::from(name)).map(|grant| grant.slot);
    assert_eq!((slot(&allocator, "a"), slot(&allocator, "b")), (Some(0), Some(1)));
    assert!(allocator.pool(&provider("p")).is_some_and(Pool::is_short_of_keys));
    allocator.end_grant(&Uid::from("a"));
    assert_eq!(names(allocator.settle()), ["c"]);
    assert_eq!(slot(&allocator, "c"), Some(0));
    // A key that is changed while it is in use is another device.
    let own = [(0, Some(shared)), (1, Some(other)), (3, None)].into_iter().collect();
    let keys = DeviceKeys { common: Some(shared), own };
    allocator.set_pool(provider("p"), PoolSpec { keys, ..spec("u", u32::MAX >> 1) });
    assert_eq!(names(allocator.settle()), ["d"]);
    assert_eq!(slot(&allocator, "d"), Some(3));
}

proptest! {
    #[test]
    fn the_free_count_equals_the_slots_that_can_be_assigned(
        capacity in 0..6u32,
        common in prop::option::of(0..2usize),
        own in prop::collection::btree_map(0..8u32, prop::option::of(0..2usize), 0..6),
        withheld in subsequence(vec![0, 1, 2, 3, 4, 5], 0..4),
        held in subsequence(vec![0, 1, 2, 3, 4, 5], 0..4),
    ) {
        let all = fingerprints();
        let keys = DeviceKeys {
            common: common.map(|key| all[key]),
            own: own.into_iter().map(|(slot, key)| (slot, key.map(|key| all[key]))).collect(),
        };
        let withheld: Vec<_> = withheld.into_iter().filter(|slot| *slot < capacity).collect();
        let mut pool = Pool::new(PoolSpec { withheld, keys, ..spec("u", capacity) }, Slots::default());
        for slot in held.into_iter().filter(|slot| *slot < capacity) {
            pool.hold(slot, Holder::Reservation);
        }
        let taken: std::collections::BTreeMap<_, _> =
            (0..capacity).filter(|slot| pool.slots.is_held(*slot)).map(|slot| (slot, ())).collect();
        let free = pool.spec.count_free(&taken);
        let mut assigned = 0;
        while let Some(slot) = pool.next_free() {
            prop_assert!(!pool.slots.is_held(slot));
            pool.hold(slot, Holder::Grant);
            assigned += 1;
        }
        prop_assert_eq!(free, assigned);
        for slot in 0..capacity {
            pool.release(slot, Holder::Grant);
        }
        prop_assert_eq!(pool.spec.count_free(&taken), free);
        prop_assert_eq!(free > 0, pool.next_free().is_some());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Pool { which: usize, capacity: u32, withheld: Vec<u32>, tag: usize, usable: bool, namespaced: bool },
    NoPool(usize),
    Reserved(usize, u32),
    Unreserved(usize, u32),
    Wait { who: usize, namespace: usize, tag: usize, priority: i32 },
    Leave(usize),
    EndGrant(usize),
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..2usize, 0..4u32, subsequence(vec![0, 1, 2, 3], 0..3), 0..3usize, prop::bool::weighted(0.8), any::<bool>())
            .prop_map(|(which, capacity, withheld, tag, usable, namespaced)| Step::Pool {
                which,
                capacity,
                withheld,
                tag,
                usable,
                namespaced
            }),
        (0..2usize).prop_map(Step::NoPool),
        (0..2usize, 0..4u32).prop_map(|(which, slot)| Step::Reserved(which, slot)),
        (0..2usize, 0..4u32).prop_map(|(which, slot)| Step::Unreserved(which, slot)),
        (0..5usize, 0..2usize, 0..3usize, 0..3i32).prop_map(|(who, namespace, tag, priority)| Step::Wait {
            who,
            namespace,
            tag,
            priority
        }),
        (0..5usize).prop_map(Step::Leave),
        (0..5usize).prop_map(Step::EndGrant),
        Just(Step::Settle),
    ]
}

const POOLS: [&str; 2] = ["p", "q"];
const TAGS: [&str; 3] = ["x", "y", ""];

fn who(number: usize) -> Uid {
    Uid::from(format!("w{number}"))
}

fn take(allocator: &mut Allocator, step: &Step) {
    match *step {
        Step::Pool { which, capacity, ref withheld, tag, usable, namespaced } => {
            let spec = PoolSpec {
                withheld: withheld.clone(),
                tags: tags(&[TAGS[tag]]),
                usable,
                namespaces: namespaced.then(|| tags(&["n0"])),
                ..spec(POOLS[which], capacity)
            };
            allocator.set_pool(provider(POOLS[which]), spec);
        }
        Step::NoPool(which) => allocator.remove_pool(&provider(POOLS[which])),
        Step::Reserved(which, slot) => allocator.reserved(&provider(POOLS[which]), slot, true),
        Step::Unreserved(which, slot) => allocator.unreserved(&provider(POOLS[which]), slot),
        Step::Wait { who: number, namespace, tag, priority } => {
            let wanted = [TAGS[tag]];
            let requirements = requirements(&format!("n{namespace}"), (tag < 2).then_some(&wanted));
            allocator.wait(&who(number), requirements, rank(&format!("w{number}"), priority, 0));
        }
        Step::Leave(number) => allocator.leave(&who(number)),
        Step::EndGrant(number) => allocator.end_grant(&who(number)),
        Step::Settle => drop(allocator.settle()),
    }
}

proptest! {
    #[test]
    fn after_settle_no_queued_consumer_matches_a_free_slot(steps in vec(step(), 0..60)) {
        let mut allocator = Allocator::default();
        for step in &steps {
            take(&mut allocator, step);
        }
        allocator.settle();
        for name in POOLS {
            let Some(pool) = allocator.pool(&provider(name)) else { continue };
            let fits = |waiter: &Waiter| pool.fits(&waiter.requirements);
            prop_assert!(pool.next_free().is_none() || !allocator.waiters.values().any(fits));
            if let Some(slot) = pool.next_free() {
                prop_assert!(slot < pool.spec.capacity && !pool.spec.withheld.contains(&slot));
            }
        }
        let mut slots = std::collections::HashSet::new();
        for (uid, grant) in &allocator.grants {
            prop_assert!(slots.insert((grant.provider.clone(), grant.slot)), "{uid} shares a slot");
            prop_assert_eq!(allocator.granted.get(&(grant.provider.clone(), grant.slot)), Some(uid));
            let taken = allocator.pool(&grant.provider).is_some_and(|pool| !pool.slots.is_empty());
            prop_assert!(taken);
            prop_assert!(!allocator.waiters.contains_key(uid));
        }
    }

    #[test]
    fn a_slot_goes_to_the_first_matching_consumer(priorities in vec(0..3i32, 1..8), capacity in 1..8u32) {
        let mut allocator = Allocator::default();
        for (number, priority) in priorities.iter().enumerate() {
            wait(&mut allocator, &format!("w{number}"), *priority, number as i64);
        }
        allocator.set_pool(provider("p"), spec("u", capacity));
        let mut expected: Vec<_> = priorities.iter().enumerate().map(|(number, priority)| (-priority, number)).collect();
        expected.sort_unstable();
        expected.truncate(capacity as usize);
        let expected: Vec<_> = expected.into_iter().map(|(_, number)| format!("w{number}")).collect();
        prop_assert_eq!(names(allocator.settle()), expected);
    }
}
