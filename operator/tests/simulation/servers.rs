//! OpenVPN servers: no serial number is issued twice, no revocation is lost, and the certificate authority stays, wherever
//! a process crashes.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use serde::Deserialize;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use vpn_operator::{
    controllers::table,
    engine::Input,
    model::{Kind, ObjectKey, Uid},
    pki,
};
use vpn_types::{DELETION_COST_ANNOTATION, OpenVPNClient, SERVER_LABEL, SERVER_SECRET_LABEL};

use crate::{
    crashes::crash_everywhere,
    explore::{Random, tail},
    metadata::{owners, uid_of},
    process::separate_processes,
    rollover,
    run::Sim,
    user::key,
};

/// How many replicas a random walk has.
const REPLICAS: usize = 3;

pub type CheckResult = Result<(), String>;

/// The certificates in the record of the API server.
#[derive(Default)]
struct History {
    /// The certificate of each serial number.
    certificates: BTreeMap<String, String>,
    /// The serial numbers in the status of each client, by UID.
    recorded: BTreeMap<String, BTreeSet<String>>,
    /// The certificate authority, by generation.
    authorities: BTreeMap<String, String>,
    /// The revoked serial numbers beside the authority, and those that are files.
    listed: BTreeSet<String>,
    published: BTreeSet<String>,
}

impl History {
    fn secret(&mut self, value: &Value) -> CheckResult {
        let secret = Secret::deserialize(value).unwrap();
        let data = secret.data.unwrap_or_default();
        let text = |key: &str| data.get(key).map(|value| String::from_utf8_lossy(&value.0).into_owned());
        let role = value["metadata"]["labels"].get(SERVER_SECRET_LABEL).and_then(Value::as_str);
        match role {
            Some("authority") => {
                let certificate = text("tls.crt").unwrap_or_default();
                let generation = text("generation").unwrap_or_default();
                let first = self.authorities.entry(generation).or_insert_with(|| certificate.clone());
                if *first != certificate {
                    return Err("the certificate authority was replaced".to_owned());
                }
                let list = text("revoked").unwrap_or_default();
                let listed = list.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
                lost(&self.listed, &listed)?;
                self.listed = listed;
            }
            Some("revoked") => {
                let files: BTreeSet<_> =
                    data.keys().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).cloned().collect();
                lost(&self.published, &files)?;
                self.published = files;
            }
            Some("client" | "server") => {
                let certificate = text("tls.crt").unwrap_or_default();
                let serial = pki::inspect(&certificate).map_err(|error| error.to_string())?.serial.to_string();
                let first = self.certificates.entry(serial.clone()).or_insert_with(|| certificate.clone());
                if *first != certificate {
                    return Err(format!("two certificates have the serial number {serial}"));
                }
                let owner = owners(value).first().map(|(uid, _)| uid.clone()).unwrap_or_default();
                let recorded = self.recorded.get(&owner);
                if role == Some("client") && !recorded.is_some_and(|recorded| recorded.contains(&serial)) {
                    return Err(format!("{serial} was issued before it was recorded"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn client(&mut self, value: &Value, is_gone: bool) -> CheckResult {
        let client = OpenVPNClient::deserialize(value).unwrap();
        let issued = client.status.and_then(|status| status.issued).unwrap_or_default();
        let recorded: BTreeSet<_> = issued.into_iter().map(|issued| issued.serial).collect();
        if is_gone {
            lost(&recorded, &self.listed)?;
            lost(&recorded, &self.published)?;
        }
        let before = self.recorded.entry(uid_of(value).to_owned()).or_default();
        lost(before, &recorded)?;
        *before = recorded;
        Ok(())
    }
}

fn lost(before: &BTreeSet<String>, now: &BTreeSet<String>) -> CheckResult {
    match before.difference(now).next() {
        Some(serial) => Err(format!("the serial number {serial} is forgotten")),
        None => Ok(()),
    }
}

/// Checks the whole record. Time does not pass so far that certificates end.
pub fn check(sim: &Sim) -> CheckResult {
    let mut history = History::default();
    for event in &sim.server.log {
        match event.kind {
            Kind::Secret if event.after.is_some() => history.secret(&event.last)?,
            Kind::Client => history.client(&event.last, event.after.is_none())?,
            _ => {}
        }
    }
    Ok(())
}

pub fn home() -> ObjectKey {
    key("a", "home")
}

/// Replicas that accept clients.
pub fn replicas(sim: &mut Sim, count: usize) {
    for number in 0..count {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let status = json!({"podIP": format!("10.244.0.{number}"), "conditions": ready});
        let spec = json!({"restartPolicy": "Always", "containers": [{"name": "openvpn"}]});
        let pod = json!({"metadata": {"labels": {SERVER_LABEL: "home"}}, "spec": spec, "status": status});
        sim.create(Kind::Pod, &key("a", &format!("replica-{number}")), pod);
    }
}

/// A server with two slots and two devices. A device and a slot go, then everything.
fn scenario(sim: &mut Sim) -> CheckResult {
    sim.create(Kind::Server, &home(), json!({"spec": {"provider": {"maxSlots": 2, "verify": {"skip": true}}}}));
    replicas(sim, 1);
    for name in ["laptop", "phone"] {
        sim.create(Kind::Client, &key("a", name), json!({"spec": {"server": "home"}}));
    }
    sim.settle()?;
    sim.mask(&key("a", "m0"), json!({}));
    sim.settle()?;
    if sim.phase(Kind::Mask, &key("a", "m0")) != "Active" || sim.phase(Kind::Client, &key("a", "phone")) != "Ready" {
        return Err("not everything is issued".to_owned());
    }
    sim.delete(Kind::Client, &key("a", "laptop"), "Background");
    sim.edit(Kind::Server, &home(), json!({"spec": {"provider": {"maxSlots": 1}}}));
    sim.settle()?;
    sim.edit(Kind::Client, &key("a", "phone"), json!({"spec": {"revoked": true}}));
    sim.settle()?;
    if sim.server.of_kind(Kind::Client).count() != 2 || sim.phase(Kind::Client, &key("a", "phone")) != "Revoked" {
        return Err("a client is still there".to_owned());
    }
    sim.delete(Kind::Mask, &key("a", "m0"), "Background");
    sim.delete(Kind::Server, &home(), "Background");
    sim.settle()?;
    sim.delete(Kind::Client, &key("a", "phone"), "Background");
    sim.settle()?;
    let left: Vec<_> =
        sim.server.objects.keys().filter(|(kind, _)| ![Kind::Secret, Kind::Pod].contains(kind)).collect();
    if !left.is_empty() {
        return Err(format!("there is still {left:?}"));
    }
    check(sim)?;
    sim.stays_quiet()
}

#[test]
fn nothing_is_issued_twice_or_forgotten_wherever_the_process_crashes() {
    crash_everywhere(&[table::all()], scenario);
}

#[test]
fn nothing_is_issued_twice_or_forgotten_wherever_one_of_the_processes_crashes() {
    crash_everywhere(&separate_processes(), scenario);
}

/// A server with the files of the user, and an operator that starts again: it does not know the files at first.
fn keystore(sim: &mut Sim) -> CheckResult {
    let now = OffsetDateTime::from_unix_timestamp(sim.server.now.timestamp()).unwrap();
    let authority = pki::Authority::new("mine", now, Duration::days(1000)).unwrap();
    let request = pki::Request {
        common_name: "home".into(),
        usage: pki::Usage::Server(Vec::new()),
        serial: pki::Serial::derive(&["home"]),
        lifetime: Duration::days(100),
    };
    let issued = pki::issue(&authority, &request, now).unwrap();
    let files = [("ca.crt", authority.certificate()), ("server.crt", &issued.certificate), ("server.key", &issued.key)];
    let files: BTreeMap<_, _> = files.map(|(name, text)| (name, ByteString(text.as_bytes().to_vec()))).into();
    sim.create(Kind::Secret, &key("a", "mine"), json!({"data": files}));
    sim.create(Kind::Server, &home(), json!({"spec": {"replicas": 1, "pki": {"keystoreSecret": "mine"}}}));
    sim.settle()?;
    if sim.server.get(Kind::Deployment, &home()).is_none() {
        return Err("it does not run".to_owned());
    }
    (0..sim.processes.len()).for_each(|process| sim.crash(process));
    sim.settle()?;
    let configs = sim.server.log.iter().filter(|event| event.kind == Kind::ConfigMap);
    if let Some(wrong) = configs.map(|event| event.last.to_string()).find(|config| config.contains("tls-crypt")) {
        return Err(format!("a configuration without the files of the user: {wrong}"));
    }
    sim.stays_quiet()
}

#[test]
fn a_server_with_the_files_of_the_user_keeps_its_configuration_wherever_a_process_crashes() {
    crash_everywhere(&[table::all()], keystore);
}

/// A server is scaled down. Two of its three replicas report how many clients they have.
fn fewer_replicas(sim: &mut Sim) -> CheckResult {
    sim.create(Kind::Server, &home(), json!({"spec": {"replicas": 3}}));
    replicas(sim, 3);
    sim.settle()?;
    sim.edit(Kind::Server, &home(), json!({"spec": {"replicas": 1}}));
    sim.settle()?;
    let mut costs = BTreeMap::new();
    for event in &sim.server.log {
        let name = event.last["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match event.kind {
            Kind::Pod => {
                let cost = event.last["metadata"]["annotations"].get(DELETION_COST_ANNOTATION);
                costs.extend(cost.and_then(Value::as_str).map(|cost| (name, cost.to_owned())));
            }
            Kind::Deployment if event.last["spec"]["replicas"] == 1 => {
                let expected = [("replica-0", "0"), ("replica-1", "1")];
                let expected = expected.map(|(name, cost)| (name.to_owned(), cost.to_owned())).into();
                return if costs == expected { sim.stays_quiet() } else { Err(format!("the costs were {costs:?}")) };
            }
            _ => {}
        }
    }
    Err("the Deployment has no fewer replicas".to_owned())
}

#[test]
fn the_replica_with_the_fewest_clients_goes_first_wherever_a_process_crashes() {
    crash_everywhere(&[table::all()], fewer_replicas);
}

/// The replicas of a server tell how many clients they have.
fn connected_clients(sim: &mut Sim) -> CheckResult {
    sim.create(Kind::Server, &home(), json!({"spec": {"replicas": 1}}));
    replicas(sim, 1);
    sim.settle()?;
    for (count, shown) in [(2, 2), (2, 2), (0, 0), (3, 3)] {
        tell_clients(sim, count);
        sim.settle()?;
        let status = &sim.server.get(Kind::Server, &home()).unwrap()["status"];
        if status["connectedClients"] != shown {
            return Err(format!("{count} clients: {status}"));
        }
        sim.stays_quiet()?;
    }
    // The next process does not know the number at first, and keeps it.
    sim.crash(0);
    sim.edit(Kind::Server, &home(), json!({"spec": {"maxClients": 7}}));
    sim.settle()?;
    let status = &sim.server.get(Kind::Server, &home()).unwrap()["status"];
    if status["connectedClients"] != 3 {
        return Err(format!("after a restart: {status}"));
    }
    sim.stays_quiet()
}

/// The leading process learns the number of clients, which may be of an earlier server of that name.
fn tell_clients(sim: &mut Sim, count: u64) {
    let uid = sim.server.get(Kind::Server, &home()).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let of_earlier = Input::ConnectedClients(home(), Uid::from("earlier"), 99);
    sim.feed(0, vec![of_earlier, Input::ConnectedClients(home(), Uid::from(&*uid), count)]);
}

#[test]
fn the_status_tells_how_many_clients_are_connected() {
    connected_clients(&mut Sim::new(&[table::all()])).unwrap();
}

#[test]
fn a_lost_authority_is_told_once_and_not_replaced() {
    let mut sim = Sim::new(&[table::all()]);
    sim.create(Kind::Server, &home(), json!({"spec": {}}));
    sim.create(Kind::Client, &key("a", "laptop"), json!({"spec": {"server": "home"}}));
    sim.settle().unwrap();
    sim.delete(Kind::Secret, &key("a", "home-ca"), "Background");
    sim.settle().unwrap();
    let server = sim.server.get(Kind::Server, &home()).unwrap();
    assert_eq!(server["status"]["conditions"][0]["reason"], "CertificateAuthorityMissing", "{server}");
    assert!(sim.server.get(Kind::Secret, &key("a", "home-ca")).is_none());
    sim.stays_quiet().unwrap();
}

/// A step of a random walk: mostly what may happen next, and now and then a fault or a user.
fn disturb(sim: &mut Sim, what: u64, which: usize) {
    let clients = ["laptop", "phone"].map(|name| key("a", name));
    match what {
        0 => sim.crash(which % sim.processes.len()),
        1..=2 if !sim.in_flight.is_empty() => sim.lose(which % sim.in_flight.len()),
        3 => sim.create(Kind::Client, &clients[which % 2], json!({"spec": {"server": "home"}})),
        4 => sim.delete(Kind::Client, &clients[which % 2], "Background"),
        5 => sim.edit(Kind::Server, &home(), json!({"spec": {"provider": {"maxSlots": which % 3}}})),
        // The profile has the host in it.
        6 => sim.edit(Kind::Server, &home(), json!({"spec": {"endpoint": {"host": format!("h{which}.example.org")}}})),
        7 => {
            let secrets = [&clients[0], &clients[1], &key("a", "home-server"), &key("a", "home-revoked")];
            sim.delete(Kind::Secret, secrets[which % secrets.len()], "Background");
        }
        8 => {
            let p = which % sim.processes.len();
            sim.processes[p].watches.values_mut().for_each(crate::watch::Watch::restart);
        }
        9 => sim.edit(Kind::Server, &home(), json!({"spec": {"replicas": which % 4}})),
        10 => {
            let generation = sim.server.get(Kind::Server, &home()).unwrap()["spec"]["pki"]["generation"].as_i64();
            let next = generation.unwrap_or(1) + 1;
            sim.edit(Kind::Server, &home(), json!({"spec": {"pki": {"generation": next}}}));
        }
        11..=12 => rollover::restart(sim, which % REPLICAS),
        _ => sim.advance([1, 400, 4_000, 61_000][which % 4]),
    }
}

fn walk(sim: &mut Sim, random: &mut Random) -> CheckResult {
    sim.create(Kind::Server, &home(), json!({"spec": {"provider": {"maxSlots": 1, "verify": {"skip": true}}}}));
    replicas(sim, REPLICAS);
    for _ in 0..300 {
        let (what, which) = (random.next() % 60, (random.next() >> 40) as usize);
        sim.advance_quietly();
        if what < 14 {
            disturb(sim, what, which);
        } else {
            let moves = sim.moves();
            if !moves.is_empty() {
                sim.make(moves[which % moves.len()].clone())?;
            }
        }
    }
    for _ in 0..3 {
        sim.settle()?;
        (0..REPLICAS).for_each(|replica| rollover::restart(sim, replica));
    }
    sim.settle()?;
    for (key, client) in sim.server.of_kind(Kind::Client) {
        if client["status"]["phase"] != "Ready" {
            return Err(format!("client {key} has no certificate: {client}"));
        }
    }
    check(sim)?;
    rollover::nobody_is_cut_off(sim)?;
    sim.stays_quiet()
}

#[test]
fn random_walks_of_two_operators_issue_nothing_twice_and_forget_nothing() {
    let runs = std::env::var("SIMULATION_RUNS").ok().and_then(|runs| runs.parse::<u64>().ok()).unwrap_or(1);
    for seed in 0..40 * runs {
        let mut sim = Sim::new(&[table::all(), table::all()]);
        if let Err(what) = walk(&mut sim, &mut Random(seed)) {
            panic!("seed {seed}: {what}\n{}\n{what}", tail(&sim.trace));
        }
    }
}
