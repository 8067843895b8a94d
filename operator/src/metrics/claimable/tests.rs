use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::Claim;
use crate::{
    allocator::Requirements,
    metrics::{ProviderSlots, Snapshot, Waiting, WorkloadKey},
    model::ObjectKey,
    state::{Tags, Workload},
};

fn tags(tags: &[&str]) -> Tags {
    tags.iter().map(|tag| Arc::from(*tag)).collect()
}

fn workload(name: &str) -> WorkloadKey {
    WorkloadKey {
        namespace: "media".into(),
        workload: Workload { resource: "deployments.apps".into(), name: name.into() },
    }
}

fn provider(slots: u64, users: &[(Option<&str>, u64)]) -> ProviderSlots {
    let users: BTreeMap<_, _> = users.iter().map(|(name, count)| (name.map(workload), *count)).collect();
    let used = users.values().sum();
    ProviderSlots {
        slots,
        used,
        held: 0,
        free: slots - used,
        demanded: used,
        usable: true,
        open: true,
        draining: false,
        tags: tags(&["eu"]),
        namespaces: None,
        labels: BTreeMap::new(),
        assignable: slots,
        users,
    }
}

fn waiting(priority: i32, workload: Option<WorkloadKey>, tag: Option<&str>) -> Waiting {
    let requirements = Requirements { namespace: "other".into(), tags: tag.map(|tag| tags(&[tag])), verifies: None };
    Waiting { requirements, priority, workload }
}

fn snapshot(provider: ProviderSlots, waiting: impl IntoIterator<Item = (Waiting, u64)>) -> Snapshot {
    Snapshot {
        providers: [(ObjectKey::new("vpn", "one"), provider)].into(),
        waiting: waiting.into_iter().collect(),
        ..Snapshot::default()
    }
}

fn claim(name: &str) -> Claim {
    Claim { workload: workload(name), tag: None, reserve: 0, priority: None }
}

#[test]
fn others_and_the_reserve_are_subtracted() {
    let all = snapshot(provider(10, &[(Some("app"), 3), (None, 2), (Some("rival"), 1)]), []);
    assert_eq!(all.claimable(&claim("app")), Some(7));
    assert_eq!(all.claimable(&Claim { reserve: 2, ..claim("app") }), Some(5));
    assert_eq!(all.claimable(&Claim { reserve: 20, ..claim("app") }), Some(0));
    assert_eq!(all.claimable(&Claim { tag: Some("eu".into()), ..claim("app") }), Some(7));
    assert_eq!(all.claimable(&Claim { tag: Some("us".into()), ..claim("app") }), None, "no MaskProvider has this tag");
}

#[test]
fn a_provider_counts_only_for_its_namespaces() {
    let restricted = ProviderSlots { namespaces: Some(tags(&["elsewhere"])), ..provider(10, &[]) };
    assert_eq!(snapshot(restricted, []).claimable(&claim("app")), None);
}

#[test]
fn what_a_workload_has_on_an_unusable_provider_stays() {
    let unusable = ProviderSlots { usable: false, ..provider(10, &[(Some("app"), 4)]) };
    assert_eq!(snapshot(unusable, []).claimable(&claim("app")), Some(4));
}

#[test]
fn masks_that_wait_with_the_same_or_a_higher_priority_go_first() {
    let with = |waiting: Vec<(Waiting, u64)>| snapshot(provider(10, &[(Some("app"), 10)]), waiting);
    let count = |waiting| with(waiting).claimable(&claim("app"));
    assert_eq!(count(vec![(waiting(0, None, None), 2)]), Some(8));
    assert_eq!(count(vec![(waiting(7, None, Some("eu")), 1)]), Some(9));
    assert_eq!(count(vec![(waiting(-1, None, None), 2)]), Some(10), "a lower priority");
    assert_eq!(count(vec![(waiting(0, None, Some("us")), 2)]), Some(10), "another tag");
    assert_eq!(count(vec![(waiting(0, Some(workload("app")), None), 2)]), Some(10), "its own");
    let own = Snapshot { priorities: [(workload("app"), 5)].into(), ..with(vec![(waiting(3, None, None), 2)]) };
    assert_eq!(own.claimable(&claim("app")), Some(10), "the workload's Masks have priority 5");
    assert_eq!(own.claimable(&Claim { priority: Some(3), ..claim("app") }), Some(8));
}

proptest! {
    /// A HorizontalPodAutoscaler changes the number of own replicas and of own Masks that wait, but not what is claimable.
    #[test]
    fn it_does_not_depend_on_own_replicas(
        slots in 0u64..300, others in 0u64..300, own in 0u64..300, own_waiting in 0u64..300, ahead in 0u64..5,
    ) {
        let others = others.min(slots);
        let of = |own: u64, own_waiting: u64| {
            let users = [(None, others), (Some("app"), own.min(slots - others))];
            let all = [(waiting(0, None, None), ahead), (waiting(0, Some(workload("app")), None), own_waiting)];
            snapshot(provider(slots, &users), all).claimable(&claim("app"))
        };
        prop_assert_eq!(of(own, own_waiting), of(0, 0));
        prop_assert_eq!(of(0, 0), Some((slots - others).saturating_sub(ahead)));
    }
}
