//! What has to wait goes on when the reason is gone, in whatever order that becomes known.

use serde_json::json;
use vpn_operator::{
    controllers::table,
    model::{Kind, NewObject, ObjectKey, Operation},
};
use vpn_types::OWNER_LABEL;

use crate::{
    metadata::uid_of,
    node::BAD_PASSWORD,
    rollouts::{PLAIN, deployed},
    run::{Move, Sim},
    scenarios::{check, run_for, run_until, settle, settle_and_check, settle_without, settle_without_any},
    user::{FOREIGN, key},
};

/// Returns an account with a slot, and the Secret of the Mask that has the slot.
fn active(sim: &mut Sim) -> ObjectKey {
    sim.account("p", 1);
    sim.mask(&key("a", "m"), json!({}));
    settle_and_check(sim);
    let consumer = sim.server.get(Kind::Consumer, &key("a", "m")).unwrap();
    key("a", consumer["status"]["provider"]["secret"].as_str().unwrap())
}

fn consumer_of(sim: &Sim, secret: &ObjectKey) -> Option<String> {
    let owner = &sim.server.get(Kind::Secret, secret)?["metadata"]["ownerReferences"][0]["uid"];
    owner.as_str().map(str::to_owned)
}

/// Waits until the operator writes the status of a MaskConsumer, and loses the response.
fn lose_status(sim: &mut Sim, consumer: &ObjectKey) {
    let find = |sim: &Sim| {
        let is_status = |operation: &Operation| matches!(operation, Operation::PatchStatus(Kind::Consumer, target, _) if target == consumer);
        sim.in_flight.iter().position(|request| is_status(&request.operation))
    };
    run_until(sim, |sim| find(sim).is_some());
    sim.lose(find(sim).unwrap());
}

#[test]
fn lost_responses_about_statuses_cost_nobody_the_place_in_line() {
    let mut sim = Sim::new(&[table::all()]);
    sim.account("p", 1);
    for name in ["holder", "older", "younger"] {
        sim.mask(&key("a", name), json!({}));
        settle(&mut sim);
        sim.advance(2_000);
    }
    // The place in line changes twice, with much time in between.
    for name in ["urgent-1", "urgent-2"] {
        settle_and_check(&mut sim);
        sim.advance(600_000);
        sim.mask(&key("a", name), json!({"priority": 9}));
        lose_status(&mut sim, &key("a", "older"));
        sim.delete(Kind::Mask, &key("a", name), "Background");
        if name == "urgent-1" {
            settle_and_check(&mut sim);
        }
    }
    sim.delete(Kind::Mask, &key("a", "holder"), "Background");
    settle_without(&mut sim, |_| false);
    assert_eq!(sim.phase(Kind::Mask, &key("a", "older")), "Active");
}

#[test]
fn a_slot_is_taken_back_if_the_failed_account_says_so_later() {
    let mut sim = Sim::new(&[table::all()]);
    sim.verified_account("p", 2, "cGFzcw==");
    sim.mask(&key("a", "m"), json!({}));
    settle_and_check(&mut sim);
    let failed = |sim: &Sim| sim.phase(Kind::Provider, &key("vpn", "p")) == "ErrVerifyFailed";
    sim.edit(Kind::Secret, &key("vpn", "p-secret"), json!({"data": {"OPENVPN_PASSWORD": BAD_PASSWORD}}));
    run_until(&mut sim, failed);
    run_for(&mut sim, 10);
    assert_eq!(sim.phase(Kind::Mask, &key("a", "m")), "Active");
    sim.edit(Kind::Provider, &key("vpn", "p"), json!({"spec": {"verify": {"onFailure": "Release"}}}));
    run_for(&mut sim, 10);
    assert_eq!(sim.phase(Kind::Mask, &key("a", "m")), "ErrNoProviders");
}

/// The one without label is not watched. The labeled one may be from a backup, and belong to a MaskConsumer that is gone.
#[test]
fn a_secret_is_restored_when_its_name_is_free_again() {
    let owner = json!([{"apiVersion": "vpn.beebs.dev/v1", "kind": "MaskConsumer", "name": "m", "uid": "gone"}]);
    let from_backup = json!({"labels": {OWNER_LABEL: "gone"}, "ownerReferences": owner});
    for foreign in [json!({}), json!({"labels": {OWNER_LABEL: "gone"}}), from_backup] {
        let mut sim = Sim::new(&[table::all()]);
        sim.gc_stalled = true;
        let secret = active(&mut sim);
        sim.delete(Kind::Secret, &secret, "Background");
        sim.create(Kind::Secret, &secret, json!({"metadata": foreign, "data": {}}));
        run_for(&mut sim, 300);
        let consumer = sim.server.get(Kind::Consumer, &key("a", "m")).map(|consumer| uid_of(consumer).to_owned());
        assert_ne!(consumer_of(&sim, &secret), consumer, "the Secret of somebody else stays");
        assert_eq!(sim.phase(Kind::Mask, &key("a", "m")), "Active");
        let reads = sim.total("get", Kind::Secret);
        assert!((1..=11).contains(&reads), "{reads} reads in five minutes");
        sim.delete(Kind::Secret, &secret, "Background");
        run_for(&mut sim, 60);
        assert_eq!(consumer_of(&sim, &secret), consumer, "{foreign}");
        settle_and_check(&mut sim);
    }
}

/// The watch does not deliver the end of a Secret that has lost its label or its owner reference.
#[test]
fn a_release_goes_on_when_a_finalizer_of_a_secret_that_is_not_watched_is_removed() {
    for is_orphan in [false, true] {
        let mut sim = Sim::new(&[table::all()]);
        let secret = active(&mut sim);
        let labels = sim.server.get(Kind::Secret, &secret).unwrap()["metadata"]["labels"].as_object().unwrap().clone();
        let no_labels: serde_json::Map<_, _> = labels.into_iter().map(|(label, _)| (label, json!(null))).collect();
        let unwatched = if is_orphan { json!({"ownerReferences": null}) } else { json!({"labels": no_labels}) };
        sim.edit(Kind::Secret, &secret, json!({"metadata": {"finalizers": [FOREIGN]}}));
        sim.edit(Kind::Secret, &secret, json!({"metadata": unwatched}));
        settle(&mut sim);
        sim.delete(Kind::Mask, &key("a", "m"), "Background");
        run_for(&mut sim, 120);
        assert!(sim.server.get(Kind::Secret, &secret).is_some());
        sim.edit(Kind::Secret, &secret, json!({"metadata": {"finalizers": null}}));
        run_for(&mut sim, 60);
        assert_eq!(sim.phase(Kind::Consumer, &key("a", "m")), "", "orphan: {is_orphan}");
        settle_and_check(&mut sim);
    }
}

#[test]
fn a_status_that_is_refused_does_not_delay_the_end_of_a_hold() {
    let mut sim = Sim::new(&[table::all()]);
    sim.account("p", 1);
    sim.edit(Kind::Provider, &key("vpn", "p"), json!({"spec": {"release": {"delay": "40s"}}}));
    sim.mask(&key("a", "m"), json!({}));
    settle_and_check(&mut sim);
    sim.delete(Kind::Mask, &key("a", "m"), "Background");
    let start = sim.clock;
    let is_report = |operation: &Operation| matches!(operation, Operation::PatchStatus(Kind::Reservation, _, patch) if !patch["status"]["message"].is_null());
    let mut refused = 0;
    while sim.server.get(Kind::Reservation, &key("vpn", "p-0")).is_some() {
        assert!(sim.clock < start + 45_000, "the slot is not free after 45 s");
        let report = (0..sim.in_flight.len())
            .find(|i| sim.in_flight[*i].outcome.is_none() && is_report(&sim.in_flight[*i].operation));
        if let Some(report) = report {
            sim.refuse(report);
            refused += 1;
        }
        let end = sim.clock + 100;
        run_until(&mut sim, |sim| {
            sim.clock >= end || sim.in_flight.iter().any(|one| one.outcome.is_none() && is_report(&one.operation))
        });
    }
    assert!(refused > 3, "{refused}");
}

/// Whether the API server would create a Mask of a Pod now.
fn creates_mask(sim: &Sim, chosen: &Move) -> bool {
    matches!(chosen, Move::Apply(i) if matches!(sim.in_flight[*i].operation, Operation::Create(_, NewObject::Mask(_))))
}

fn creates_mask_named(sim: &Sim, chosen: &Move, mask: &ObjectKey) -> bool {
    matches!(chosen, Move::Apply(i) if sim.in_flight[*i].operation.target() == Some((Kind::Mask, mask)))
}

/// Returns the Masks that the operator has requested, by name.
fn requested_masks(sim: &Sim) -> Vec<ObjectKey> {
    let creates = sim.in_flight.iter().filter(|one| matches!(one.operation, Operation::Create(_, NewObject::Mask(_))));
    let mut keys: Vec<_> = creates.filter_map(|one| Some(one.operation.target()?.1.clone())).collect();
    keys.sort();
    keys
}

/// The queue for slots goes by the age of the Masks, which have not been created in the order of their Pods.
#[test]
fn a_rollout_completes_if_the_masks_are_in_another_order_than_their_pods() {
    let mut sim = deployed(2, 2, 2, PLAIN);
    sim.roll_out(PLAIN);
    settle_without_any(&mut sim, creates_mask);
    let masks = requested_masks(&sim);
    assert_eq!(masks.len(), 2);
    for mask in masks.iter().rev() {
        let at = sim.in_flight.iter().position(|one| one.operation.target() == Some((Kind::Mask, mask))).unwrap();
        let result = sim.apply(at);
        check(&sim, result);
        sim.advance(1_000);
    }
    settle_and_check(&mut sim);
    check(&sim, sim.is_rolled_out());
    assert_eq!(sim.evictions.len(), 2);
}

/// A Mask of another namespace is ahead in line for the account that the old Pod uses. The new Pod could use another account
/// too, whose slot a Pod of another Deployment has.
#[test]
fn a_rollout_goes_on_when_nobody_is_ahead_in_line_any_more() {
    let mut sim = Sim::new(&[table::all()]);
    for account in ["p", "q"] {
        sim.account(account, 1);
        sim.edit(Kind::Provider, &key("vpn", account), json!({"spec": {"tags": [account]}}));
    }
    settle(&mut sim);
    for deployment in ["other", "web"] {
        sim.deploy(&key("a", deployment), 1, 1, PLAIN);
        settle_and_check(&mut sim);
    }
    let consumer = sim.server.of_kind(Kind::Consumer).find(|(key, _)| key.name.starts_with("web")).unwrap().1;
    let account = consumer["status"]["provider"]["name"].clone();
    sim.mask(&key("b", "ahead"), json!({"providers": [account], "priority": 9}));
    settle(&mut sim);
    sim.roll_out(PLAIN);
    run_for(&mut sim, 600);
    assert_eq!(sim.evictions.len(), 0);
    let lists = sim.counts[&(Operation::ListReplicaSets("a".into()).verb(), None)];
    assert!(lists <= 3, "{lists} lists in ten minutes");
    sim.delete(Kind::Mask, &key("b", "ahead"), "Background");
    run_for(&mut sim, 60);
    check(&sim, sim.is_rolled_out());
}

/// The ReplicaSets were listed for the revision before.
#[test]
fn a_rollout_that_replaces_another_one_completes() {
    let mut sim = deployed(2, 2, 1, PLAIN);
    sim.server.budget_refuses = true;
    sim.roll_out(PLAIN);
    run_until(&mut sim, |sim| sim.counts.contains_key(&("create", Some(Kind::InjectedPod))));
    sim.roll_out(PLAIN);
    settle_without(&mut sim, |_| false);
    sim.server.budget_refuses = false;
    settle_and_check(&mut sim);
    check(&sim, sim.is_rolled_out());
    assert_eq!(sim.evictions.len(), 2);
}

#[test]
fn a_refused_eviction_does_not_delay_a_pod_that_has_a_slot() {
    let mut sim = deployed(2, 2, 1, PLAIN);
    sim.server.budget_refuses = true;
    sim.roll_out(PLAIN);
    run_for(&mut sim, 120);
    sim.slots("p", 3);
    run_for(&mut sim, 3);
    check(&sim, sim.is_rolled_out());
}

/// The oldest Pod of the new revision cannot get a Mask, and so waits in no queue.
#[test]
fn a_pod_without_a_mask_does_not_hold_up_the_others_of_a_rollout() {
    let mut sim = deployed(3, 3, 2, PLAIN);
    sim.roll_out(PLAIN);
    settle_without_any(&mut sim, creates_mask);
    let masks = requested_masks(&sim);
    settle_without_any(&mut sim, |sim, chosen| creates_mask_named(sim, chosen, &masks[0]));
    sim.advance(1_000);
    sim.server.create(Kind::Mask, &masks[0], json!({"spec": {}})).unwrap();
    let evicted = |sim: &Sim| sim.evictions.iter().any(|one| one.pod.name.starts_with("web-1"));
    run_until(&mut sim, evicted);
}
