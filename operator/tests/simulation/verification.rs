//! Verifications: slots, results, and how often a failing account is retried.

use serde_json::json;
use vpn_operator::{
    controllers::{ControllerSet, providers, table},
    model::Kind,
};

use crate::{
    node::BAD_PASSWORD,
    process::separate_processes,
    run::{Move, Sim},
    scenarios::{check, settle, settle_and_check},
    user::key,
    watch::Filter,
};

fn text<'a>(sim: &'a Sim, pointer: &str) -> &'a str {
    sim.server.get(Kind::Provider, &key("vpn", "p")).and_then(|p| p.pointer(pointer)?.as_str()).unwrap_or_default()
}

fn pods_made(sim: &Sim) -> usize {
    sim.server.log.iter().filter(|event| event.kind == Kind::Pod && event.before.is_none()).count()
}

fn layouts() -> [Vec<ControllerSet>; 3] {
    [vec![table::all()], separate_processes(), vec![table::all(), table::all()]]
}

#[test]
fn a_good_account_is_verified_on_its_only_slot_and_then_assigns_it() {
    for roles in layouts() {
        let mut sim = Sim::new(&roles);
        sim.mask(&key("a", "m"), json!({}));
        settle(&mut sim);
        sim.verified_account("p", 1, "cGFzcw==");
        settle_and_check(&mut sim);
        assert_eq!(sim.phase(Kind::Mask, &key("a", "m")), "Active");
        assert_eq!(text(&sim, "/status/verification/exitAddress"), "198.51.100.1");
        assert_eq!(text(&sim, "/status/conditions/1/reason"), "Passed");
        assert!(sim.server.get(Kind::Mask, &key("vpn", "p-verify")).is_none());
        // Two operators may each request a slot, one after the other.
        let operators = roles.iter().filter(|roles| roles.has(providers::NAME)).count();
        assert!((1..=operators).contains(&pods_made(&sim)), "{}", pods_made(&sim));
    }
}

#[test]
fn a_verification_takes_few_writes_and_no_reads() {
    let mut sim = Sim::new(&[table::all()]);
    sim.verified_account("p", 1, "cGFzcw==");
    settle_and_check(&mut sim);
    let writes: usize = sim.counts.iter().filter(|((verb, _), _)| *verb != "get").map(|(_, count)| count).sum();
    assert!(writes <= 19, "{writes}: {:?}", sim.counts);
    let reads: usize = sim.counts.iter().filter(|((verb, _), _)| *verb == "get").map(|(_, count)| count).sum();
    assert_eq!(reads, 0, "{:?}", sim.counts);
}

#[test]
fn a_bad_account_is_retried_with_backoff_and_recovers_with_its_secret() {
    for roles in layouts() {
        let mut sim = Sim::new(&roles);
        sim.verified_account("p", 1, BAD_PASSWORD);
        sim.mask(&key("a", "m"), json!({}));
        // The first verification and two hours.
        while sim.clock < 7_200_000 {
            let moves = sim.moves();
            if moves.is_empty() {
                sim.advance(4_000);
                continue;
            }
            sim.advance_quietly();
            let result = sim.make(moves[sim.clock as usize * 7919 % moves.len()].clone());
            check(&sim, result);
        }
        let tries = pods_made(&sim);
        assert!((6..=9).contains(&tries), "{tries} tries");
        assert_eq!(sim.phase(Kind::Provider, &key("vpn", "p")), "ErrVerifyFailed");
        assert_eq!(text(&sim, "/status/conditions/1/reason"), "CredentialsRejected");
        assert_ne!(sim.phase(Kind::Mask, &key("a", "m")), "Active");
        sim.edit(Kind::Secret, &key("vpn", "p-secret"), json!({"data": {"OPENVPN_PASSWORD": "cGFzcw=="}}));
        settle_and_check(&mut sim);
        assert_eq!(sim.phase(Kind::Mask, &key("a", "m")), "Active");
    }
}

#[test]
fn a_changed_secret_is_verified_before_further_assignments() {
    for roles in layouts() {
        let mut sim = Sim::new(&roles);
        sim.verified_account("p", 2, "cGFzcw==");
        settle_and_check(&mut sim);
        sim.mask(&key("a", "m0"), json!({}));
        settle_and_check(&mut sim);
        sim.edit(Kind::Secret, &key("vpn", "p-secret"), json!({"data": {"OPENVPN_PASSWORD": "Yg=="}}));
        // An operator that has not seen the change yet may still assign a slot.
        let secret = Filter::Named(key("vpn", "p-secret"));
        for process in 0..sim.processes.len() {
            if sim.processes[process].watches.contains_key(&secret) {
                let result = sim.make(Move::Watch(process, secret.clone()));
                check(&sim, result);
            }
        }
        sim.mask(&key("a", "m1"), json!({}));
        settle_and_check(&mut sim);
        let operators = roles.iter().filter(|roles| roles.has(providers::NAME)).count();
        assert!((2..=2 * operators).contains(&pods_made(&sim)), "{}", pods_made(&sim));
        assert_eq!(sim.phase(Kind::Mask, &key("a", "m0")), "Active");
        assert_eq!(sim.phase(Kind::Mask, &key("a", "m1")), "Active");
    }
}

#[test]
fn a_verification_label_set_by_a_user_does_not_bypass_namespaces() {
    for roles in layouts() {
        let mut sim = Sim::new(&roles);
        sim.account("p", 1);
        sim.edit(Kind::Provider, &key("vpn", "p"), json!({"spec": {"namespaces": ["other"]}}));
        settle(&mut sim);
        let uid = crate::metadata::uid_of(sim.server.get(Kind::Provider, &key("vpn", "p")).unwrap()).to_owned();
        let body = json!({"metadata": {"labels": {vpn_types::VERIFY_LABEL: uid}}, "spec": {}});
        sim.create(Kind::Mask, &key("vpn", "p-verify"), body.clone());
        sim.create(Kind::Mask, &key("a", "p-verify"), body);
        settle_and_check(&mut sim);
        assert_eq!(sim.phase(Kind::Mask, &key("vpn", "p-verify")), "ErrNoProviders");
        assert_eq!(sim.phase(Kind::Mask, &key("a", "p-verify")), "ErrNoProviders");
    }
}

#[test]
fn a_crash_during_a_verification_does_not_change_the_result() {
    for roles in [vec![table::all()], separate_processes()] {
        for moment in 0..24 {
            let mut sim = Sim::new(&roles);
            sim.verified_account("p", 1, "cGFzcw==");
            sim.mask(&key("a", "m"), json!({}));
            sim.crash_at = Some((moment, crate::run::Crash::After));
            settle_and_check(&mut sim);
            assert_eq!(sim.phase(Kind::Mask, &key("a", "m")), "Active", "moment {moment}");
            assert!(pods_made(&sim) <= 2);
        }
    }
}
