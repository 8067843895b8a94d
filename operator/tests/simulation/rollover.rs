//! Rollover of the certificate authority: every replica accepts every client with a certificate, and the client accepts
//! the replica, wherever a process crashes. That includes devices whose profiles never change.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;
use serde_json::{Value, json};
use vpn_operator::{controllers::table, model::Kind, pki};
use vpn_types::{RESTART_ANNOTATION, SERVER_SECRET_LABEL};

use crate::{
    crashes::crash_everywhere,
    run::Sim,
    servers::{CheckResult, check, home, replicas},
    user::key,
};

/// A certificate, and the certificate authorities that its owner trusts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Peer {
    certificate: String,
    trusted: String,
}

impl Peer {
    fn of(secret: &Secret) -> Option<Self> {
        let text = |key: &str| Some(String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).unwrap());
        Some(Self { certificate: text("tls.crt")?, trusted: text("ca.crt")? })
    }

    fn accepts(&self, other: &Self) -> bool {
        pki::trusted(&self.trusted).unwrap().iter().any(|ca| pki::is_signed_by(&other.certificate, ca))
    }
}

/// Which clients may connect to which replicas.
#[derive(Default)]
struct Trust {
    /// The files that the next replica reads.
    server: Option<Peer>,
    /// The files that replicas read, by the hash in their annotation.
    templates: BTreeMap<String, Peer>,
    /// The replicas that run.
    replicas: BTreeMap<String, Peer>,
    /// The profiles that anybody may have.
    profiles: BTreeSet<Peer>,
    compared: BTreeSet<(Peer, Peer)>,
}

impl Trust {
    fn check(&mut self) -> CheckResult {
        let now = self.profiles.iter().flat_map(|profile| self.replicas.values().map(move |it| (profile, it)));
        for (profile, replica) in now {
            let pair = (profile.clone(), replica.clone());
            if self.compared.contains(&pair) {
                continue;
            }
            let serial = pki::inspect(&profile.certificate).unwrap().serial;
            if !replica.accepts(profile) {
                return Err(format!("a replica refuses the certificate {serial}"));
            }
            if !profile.accepts(replica) {
                return Err(format!("the profile with the certificate {serial} refuses a replica"));
            }
            self.compared.insert(pair);
        }
        Ok(())
    }
}

/// Checks the whole record, while no certificate ends.
pub fn nobody_is_cut_off(sim: &Sim) -> CheckResult {
    let mut trust = Trust::default();
    for event in sim.server.log.iter().filter(|event| event.after.is_some()) {
        let annotation = |metadata: &Value| metadata["annotations"][RESTART_ANNOTATION].as_str().map(str::to_owned);
        match event.kind {
            Kind::Secret => {
                let secret = Secret::deserialize(&*event.last).unwrap();
                match event.last["metadata"]["labels"][SERVER_SECRET_LABEL].as_str() {
                    Some("server") => trust.server = Peer::of(&secret),
                    Some("client") => trust.profiles.extend(Peer::of(&secret)),
                    _ => {}
                }
            }
            Kind::Deployment => {
                let hash = annotation(&event.last["spec"]["template"]["metadata"]).unwrap();
                trust.templates.entry(hash).or_insert_with(|| trust.server.clone().unwrap());
            }
            Kind::Pod => {
                let hash = annotation(&event.last["metadata"]);
                if let Some(read) = hash.and_then(|hash| trust.templates.get(&hash)) {
                    trust.replicas.insert(event.last["metadata"]["name"].to_string(), read.clone());
                }
            }
            _ => {}
        }
        trust.check()?;
    }
    Ok(())
}

/// Starts a replica again.
pub fn restart(sim: &mut Sim, number: usize) {
    let Some(deployment) = sim.server.get(Kind::Deployment, &home()) else { return };
    let hash = deployment["spec"]["template"]["metadata"]["annotations"][RESTART_ANNOTATION].clone();
    let patch = json!({"metadata": {"annotations": {RESTART_ANNOTATION: hash}}});
    sim.edit(Kind::Pod, &key("a", &format!("replica-{number}")), patch);
}

fn data(sim: &Sim, name: &str, field: &str) -> String {
    let secret = Secret::deserialize(&**sim.server.get(Kind::Secret, &key("a", name)).unwrap()).unwrap();
    secret.data.and_then(|mut data| data.remove(field)).map(|it| String::from_utf8(it.0).unwrap()).unwrap_or_default()
}

fn expect(what: &str, is_so: bool) -> CheckResult {
    if is_so { Ok(()) } else { Err(format!("not so: {what}")) }
}

const DAY: u64 = 24 * 3600 * 1000;

/// The user asks for the next authority. The certificates of clients follow when both replicas have started again, and
/// that of the server when the last profile with the old authority has ended.
fn asked_for(sim: &mut Sim) -> CheckResult {
    sim.create(Kind::Server, &home(), json!({"spec": {"provider": {"maxSlots": 1, "verify": {"skip": true}}}}));
    replicas(sim, 2);
    sim.create(Kind::Client, &key("a", "laptop"), json!({"spec": {"server": "home"}}));
    sim.settle()?;
    (0..2).for_each(|number| restart(sim, number));
    sim.settle()?;
    let old = data(sim, "home-ca", "tls.crt");

    sim.edit(Kind::Server, &home(), json!({"spec": {"pki": {"generation": 2}}}));
    sim.settle()?;
    let new = data(sim, "home-ca", "tls.crt");
    let issued_by = |sim: &Sim, name: &str, ca: &str| pki::is_signed_by(&data(sim, name, "tls.crt"), ca);
    expect("there is a new authority", new != old)?;
    for count in 0..2 {
        expect("a replica does not know it", issued_by(sim, "laptop", &old) && issued_by(sim, "home-slot-0", &old))?;
        restart(sim, count);
        sim.settle()?;
    }
    expect("all replicas know it", issued_by(sim, "laptop", &new) && issued_by(sim, "home-slot-0", &new))?;
    expect("profiles know the old one only", issued_by(sim, "home-server", &old))?;
    sim.create(Kind::Client, &key("a", "phone"), json!({"spec": {"server": "home"}}));
    sim.settle()?;
    expect("a new client", issued_by(sim, "phone", &new) && data(sim, "phone", "ca.crt").contains(&old))?;
    nobody_is_cut_off(sim)?;
    check(sim)?;
    sim.stays_quiet()?;

    for _ in 0..2 {
        sim.advance(200 * DAY);
        sim.settle()?;
        (0..2).for_each(|number| restart(sim, number));
        sim.settle()?;
    }
    expect(
        "the old one has gone",
        issued_by(sim, "home-server", &new) && data(sim, "home-ca", "previous.json").is_empty(),
    )?;
    expect(
        "nobody trusts it",
        !data(sim, "phone", "ca.crt").contains(&old) && !data(sim, "home-server", "ca.crt").contains(&old),
    )?;
    sim.stays_quiet()
}

#[test]
fn the_next_authority_cuts_nobody_off_wherever_a_process_crashes() {
    crash_everywhere(&[table::all()], asked_for);
}

#[test]
fn an_authority_is_followed_by_the_next_one_two_years_before_its_end() {
    let mut sim = Sim::new(&[table::all()]);
    sim.create(Kind::Server, &home(), json!({"spec": {}}));
    replicas(&mut sim, 1);
    sim.create(Kind::Client, &key("a", "laptop"), json!({"spec": {"server": "home"}}));
    sim.settle().unwrap();
    let old = data(&sim, "home-ca", "tls.crt");
    let mut days = 0;
    while data(&sim, "home-ca", "tls.crt") == old {
        sim.advance(50 * DAY);
        sim.settle().unwrap();
        restart(&mut sim, 0);
        sim.settle().unwrap();
        days += 50;
    }
    assert!((2_900..=3_000).contains(&days), "after {days} days");
    assert!(data(&sim, "home-ca", "previous.json").contains("retires"));
    let new = data(&sim, "home-ca", "tls.crt");
    assert!(pki::is_signed_by(&data(&sim, "laptop", "tls.crt"), &new));
    nobody_is_cut_off(&sim).unwrap();
    let server = sim.server.get(Kind::Server, &home()).unwrap();
    assert_eq!(server["status"]["certificates"]["generation"], 1, "{server}");
}
