//! Revocation while the certificate authority is lost.

use std::collections::{BTreeSet, HashSet};

use serde_json::json;
use vpn_operator::{
    controllers::table,
    model::{Kind, ObjectKey, Operation},
    state::Outcome,
};
use vpn_types::Reason;

use crate::{
    crashes::crash_everywhere,
    run::Sim,
    scenarios::run_until,
    servers::{CheckResult, check, home},
    user::key,
};

/// The certificate authority is lost, a device is revoked, and another one deleted. Then the authority is restored.
fn revocation_without_an_authority(sim: &mut Sim) -> CheckResult {
    let (laptop, phone, authority) = (key("a", "laptop"), key("a", "phone"), key("a", "home-ca"));
    sim.create(Kind::Server, &home(), json!({"spec": {}}));
    for device in [&laptop, &phone] {
        sim.create(Kind::Client, device, json!({"spec": {"server": "home"}}));
    }
    sim.settle()?;
    let copy = sim.server.get(Kind::Secret, &authority).cloned().ok_or("there is no certificate authority")?;
    sim.delete(Kind::Secret, &authority, "Background");
    sim.settle()?;
    let issued: BTreeSet<_> = [&laptop, &phone].into_iter().flat_map(|device| issued(sim, device)).collect();
    sim.edit(Kind::Client, &phone, json!({"spec": {"revoked": true}}));
    sim.delete(Kind::Client, &laptop, "Background");
    sim.settle()?;
    if sim.phase(Kind::Client, &phone) != "Revoked" || files(sim) != issued {
        return Err(format!("not everything is revoked: {:?}", files(sim)));
    }
    let told = sim.server.get(Kind::Client, &laptop).ok_or("the client is gone before the list is complete")?;
    if told["status"]["conditions"][0]["reason"] != "CertificateAuthorityMissing" {
        return Err(format!("it does not say what it waits for: {told}"));
    }
    sim.stays_quiet()?;
    sim.create(Kind::Secret, &authority, (*copy).clone());
    sim.settle()?;
    if sim.server.get(Kind::Client, &laptop).is_some() || files(sim) != issued {
        return Err("the restored authority does not have the list".to_owned());
    }
    check(sim)?;
    sim.stays_quiet()
}

/// The serial numbers of a client.
fn issued(sim: &Sim, client: &ObjectKey) -> Vec<String> {
    let status = &sim.server.get(Kind::Client, client).unwrap()["status"];
    let all = status["issued"].as_array().into_iter().flatten();
    all.map(|issued| issued["serial"].as_str().unwrap().to_owned()).collect()
}

/// The serial numbers that the replicas refuse.
fn files(sim: &Sim) -> BTreeSet<String> {
    let secret = sim.server.get(Kind::Secret, &key("a", "home-revoked"));
    let data = secret.and_then(|secret| secret["data"].as_object().cloned()).unwrap_or_default();
    data.keys().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).cloned().collect()
}

#[test]
fn certificates_are_revoked_without_the_authority_wherever_a_process_crashes() {
    crash_everywhere(&[table::all()], revocation_without_an_authority);
}

#[test]
fn a_revocation_that_is_blocked_says_so() {
    let mut sim = Sim::new(&[table::all()]);
    let laptop = key("a", "laptop");
    sim.create(Kind::Server, &home(), json!({"spec": {}}));
    sim.create(Kind::Client, &laptop, json!({"spec": {"server": "home"}}));
    sim.settle().unwrap();
    for secret in ["home-ca", "home-revoked"] {
        sim.delete(Kind::Secret, &key("a", secret), "Background");
        // The files can be made again while there is an authority.
        if secret == "home-ca" {
            sim.settle().unwrap();
        }
    }
    sim.edit(Kind::Client, &laptop, json!({"spec": {"revoked": true}}));
    sim.settle().unwrap();
    assert!(files(&sim).is_empty(), "an incomplete list admits clients again");
    let told = &sim.server.get(Kind::Client, &laptop).unwrap()["status"]["conditions"][0];
    assert_eq!(told["reason"], "CertificateAuthorityMissing", "{told}");
    assert!(told["message"].as_str().unwrap().contains("home-revoked"), "{told}");
    sim.stays_quiet().unwrap();
}

/// The name of the client is that of a Secret of the server.
#[test]
fn a_client_with_an_unfortunate_name_holds_up_no_other() {
    for name in ["home-revoked", "home-ca"] {
        let mut sim = Sim::new(&[table::all()]);
        sim.create(Kind::Server, &home(), json!({"spec": {}}));
        sim.settle().unwrap();
        for client in [name, "laptop"] {
            sim.create(Kind::Client, &key("a", client), json!({"spec": {"server": "home"}}));
        }
        sim.settle().unwrap();
        sim.delete(Kind::Client, &key("a", "laptop"), "Background");
        sim.settle().unwrap();
        assert!(sim.server.get(Kind::Client, &key("a", "laptop")).is_none(), "{name}");
    }
}

/// Such as 429 of API Priority and Fairness: it is not worth a report, and there is nothing to read back.
#[test]
fn a_revocation_that_is_refused_once_is_repeated() {
    let mut sim = Sim::new(&[table::all()]);
    sim.create(Kind::Server, &home(), json!({"spec": {}}));
    sim.create(Kind::Client, &key("a", "laptop"), json!({"spec": {"server": "home"}}));
    sim.settle().unwrap();
    let lists = [key("a", "home-ca"), key("a", "home-revoked")];
    let mut refused = HashSet::new();
    sim.delete(Kind::Client, &key("a", "laptop"), "Background");
    for _ in 0..lists.len() {
        let write = |sim: &Sim| {
            let is_new = |operation: &Operation| {
                let target = operation.written().map(|(_, key)| key);
                target.is_some_and(|target| lists.contains(target) && !refused.contains(target))
            };
            sim.in_flight.iter().position(|one| one.outcome.is_none() && is_new(&one.operation))
        };
        run_until(&mut sim, |sim| write(sim).is_some());
        let at = write(&sim).unwrap();
        let (_, target) = sim.in_flight[at].operation.written().unwrap();
        let target = target.clone();
        let message = "too many requests".to_owned();
        sim.in_flight[at].outcome = Some(Outcome::Refused { reason: Reason::RequestFailed, message });
        refused.insert(target);
    }
    sim.settle().unwrap();
    assert!(sim.server.get(Kind::Client, &key("a", "laptop")).is_none());
}
