//! Nodes: bind Pods, start, restart and stop their containers, and remove Pods that have stopped. What really runs is
//! kept apart from what the Pods' status says, and a node hears of a deletion later than the API server does.

use std::collections::BTreeMap;

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use serde_json::{Value, json};
use vpn_operator::model::{Kind, ObjectKey};

use crate::server::{Server, generation, is_deleting, owners, uid_of};

/// A session with a VPN account that some Pod has open.
#[derive(Clone, Debug)]
pub struct Session {
    pub provider: String,
    pub consumer: String,
    /// The Pod vanished while its session was open; the account counts it until then.
    pub ghost_until: Option<DateTime<Utc>>,
}

/// What a node may do next with a Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Bind,
    /// It learns that the Pod is being deleted: no container starts any more.
    Hear,
    /// The container of that number starts, or starts again.
    Start(usize),
    /// The container of that number stops, because the Pod is being deleted, or its work is done.
    Stop(usize),
    /// It writes what runs into the Pod's status.
    Report,
    /// No container runs or ever will: the final phase.
    Conclude,
    Remove,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Container {
    running: bool,
    restarts: i64,
    /// Exit code and time of its last end.
    ended: Option<(i64, DateTime<Utc>)>,
}

/// What a node knows of a Pod.
#[derive(Clone, Debug, Default)]
struct Runtime {
    /// As in `spec`: init containers first.
    containers: Vec<Container>,
    /// With whose credentials its containers run; set at the first start, and kept in its volume.
    credentials: Option<Session>,
    heard: bool,
    concluded: bool,
    /// The status shows something else.
    unreported: bool,
}

#[derive(Default)]
pub struct Nodes {
    /// By UID of the Pod.
    pub sessions: BTreeMap<String, Session>,
    /// Pods (UID) on nodes that are cut off: they hear and report nothing, and go on.
    pub lost: Vec<String>,
    runtimes: BTreeMap<String, Runtime>,
}

fn secret_of(pod: &Value) -> Option<&str> {
    let of_user = &pod["spec"]["containers"][0]["envFrom"][0]["secretRef"]["name"];
    let of_verification = &pod["spec"]["initContainers"][1]["env"][0]["valueFrom"]["secretKeyRef"]["name"];
    of_user.as_str().or(of_verification.as_str())
}

fn is_verification(pod: &Value) -> bool {
    pod["metadata"]["labels"].get(vpn_types::VERIFY_LABEL).is_some()
}

/// What no VPN service accepts.
pub const BAD_PASSWORD: &str = "YmFk";

/// Init containers that keep running, and containers.
fn specs(pod: &Value) -> Vec<(&Value, bool)> {
    let all = |field: &str| pod["spec"][field].as_array().into_iter().flatten();
    let sidecars = all("initContainers").filter(|one| one["restartPolicy"] == "Always").map(|one| (one, true));
    sidecars.chain(all("containers").map(|one| (one, false))).collect()
}

/// Whether kubelet starts a container again that ended with that code, unless the Pod is being deleted.
fn restarts(pod: &Value, container: &Value, code: i64) -> bool {
    let rules = container["restartPolicyRules"].as_array().into_iter().flatten();
    let matches = |rule: &Value| {
        let values = rule["exitCodes"]["values"].as_array();
        values.is_some_and(|values| values.contains(&json!(code))) == (rule["exitCodes"]["operator"] == "In")
    };
    if rules.clone().any(matches) {
        return true;
    }
    let policy = container["restartPolicy"].as_str().or(pod["spec"]["restartPolicy"].as_str()).unwrap_or("Always");
    policy == "Always" || (policy == "OnFailure" && code != 0)
}

impl Runtime {
    fn of(pod: &Value) -> Self {
        Self { containers: vec![Container::default(); specs(pod).len()], ..Self::default() }
    }

    fn runs(&self) -> bool {
        self.containers.iter().any(|container| container.running)
    }

    /// Whether that container is started (again) as long as the Pod is not deleted.
    fn starts(&self, pod: &Value, number: usize) -> bool {
        let container = &self.containers[number];
        let again = || container.ended.is_none_or(|(code, _)| restarts(pod, specs(pod)[number].0, code));
        !container.running && !self.heard && !self.concluded && !self.is_over(pod) && again()
    }

    /// Whether no container but sidecars runs or will.
    fn is_over(&self, pod: &Value) -> bool {
        specs(pod).iter().zip(&self.containers).filter(|((_, sidecar), _)| !sidecar).all(|((spec, _), container)| {
            let for_good = |(code, _)| self.heard || !restarts(pod, spec, code);
            !container.running && container.ended.is_some_and(for_good)
        })
    }
}

impl Nodes {
    fn runtime(&self, pod: &Value) -> Runtime {
        self.runtimes.get(uid_of(pod)).cloned().unwrap_or_else(|| Runtime::of(pod))
    }

    /// All that a node may do next with that Pod.
    pub fn acts(&self, server: &Server, pod: &Value) -> Vec<Act> {
        if pod["spec"].get("nodeName").is_none() {
            return vec![Act::Bind];
        }
        let runtime = self.runtime(pod);
        let started = runtime.credentials.is_some();
        let may_start = |number: &usize| runtime.starts(pod, *number) && (started || has_secret(server, pod));
        let mut acts: Vec<_> = (0..runtime.containers.len()).filter(may_start).map(Act::Start).collect();
        if self.lost.iter().any(|uid| uid == uid_of(pod)) {
            // Nothing is new on a node that is cut off, but what was started goes on.
            acts.retain(|_| started);
            return acts;
        }
        if is_deleting(pod) && !runtime.heard {
            acts.push(Act::Hear);
        }
        let is_done = is_verification(pod) && !self.is_refused(server, pod);
        let specs = specs(pod);
        let stops = |number: &usize| {
            let is_sidecar = specs[*number].1;
            runtime.containers[*number].running && (runtime.heard || (is_done && !is_sidecar))
        };
        acts.extend((0..runtime.containers.len()).filter(stops).map(Act::Stop));
        if runtime.unreported {
            acts.push(Act::Report);
        }
        let is_over = runtime.is_over(pod) || runtime.heard;
        if is_over && !runtime.concluded && !(runtime.heard && runtime.runs()) {
            acts.push(Act::Conclude);
        }
        if runtime.concluded && is_deleting(pod) && !runtime.unreported {
            acts.push(Act::Remove);
        }
        acts
    }

    fn is_refused(&self, server: &Server, pod: &Value) -> bool {
        let namespace = pod["metadata"]["namespace"].as_str().unwrap();
        let secret = secret_of(pod).and_then(|name| server.get(Kind::Secret, &ObjectKey::new(namespace, name)));
        secret.is_some_and(|secret| secret["data"]["OPENVPN_PASSWORD"] == json!(BAD_PASSWORD))
    }

    /// What gluetun writes in that Pod.
    pub fn log(&self, server: &Server, key: &ObjectKey) -> Vec<&'static str> {
        match server.get(Kind::Pod, key) {
            Some(pod) if self.is_refused(server, pod) => {
                vec!["ERROR [openvpn] AUTH: Received control message: AUTH_FAILED"; 2]
            }
            _ => Vec::new(),
        }
    }

    /// The first of the things that a node may do with that Pod.
    pub fn step(&mut self, server: &mut Server, key: &ObjectKey) {
        let Some(pod) = server.get(Kind::Pod, key).cloned() else { return };
        if let Some(act) = self.acts(server, &pod).first() {
            self.act(server, key, *act);
        }
    }

    /// Does one of them.
    pub fn act(&mut self, server: &mut Server, key: &ObjectKey, act: Act) {
        let Some(pod) = server.get(Kind::Pod, key).cloned() else { return };
        if !self.acts(server, &pod).contains(&act) {
            return;
        }
        let uid = uid_of(&pod).to_owned();
        let mut runtime = self.runtime(&pod);
        match act {
            Act::Bind => {
                server.merge(Kind::Pod, key, &json!({"spec": {"nodeName": "n1"}}), false).unwrap();
                return;
            }
            Act::Hear => (runtime.heard, runtime.unreported) = (true, true),
            Act::Start(number) => {
                let credentials = runtime.credentials.get_or_insert_with(|| credentials(server, &pod));
                self.sessions.insert(uid.clone(), credentials.clone());
                let container = &mut runtime.containers[number];
                container.restarts += i64::from(container.ended.is_some());
                container.running = true;
                runtime.unreported = true;
            }
            Act::Stop(number) => runtime.end(number, if runtime.heard { 137 } else { 0 }, server.now),
            Act::Report => {
                runtime.unreported = false;
                report(server, key, &runtime);
            }
            Act::Conclude => {
                for number in 0..runtime.containers.len() {
                    if runtime.containers[number].running {
                        runtime.end(number, 137, server.now);
                    }
                }
                (runtime.concluded, runtime.unreported) = (true, true);
            }
            Act::Remove => {
                server.remove(Kind::Pod, key);
                self.runtimes.remove(&uid);
                return;
            }
        }
        self.keep(uid, runtime);
    }

    fn keep(&mut self, uid: String, runtime: Runtime) {
        if !runtime.runs() {
            self.sessions.remove(&uid);
        }
        self.runtimes.insert(uid, runtime);
    }

    /// A container ends by itself.
    pub fn exit(&mut self, server: &mut Server, key: &ObjectKey, number: usize, code: i64) {
        let Some(pod) = server.get(Kind::Pod, key).cloned() else { return };
        let mut runtime = self.runtime(&pod);
        let number = number % runtime.containers.len();
        if runtime.containers[number].running {
            runtime.end(number, code, server.now);
            self.keep(uid_of(&pod).to_owned(), runtime);
        }
    }

    /// The object is removed while its containers run on (force delete, node removed). Their session stays open, and
    /// counts against the account for as long as those who knew of it have to hold the slot.
    pub fn vanish(&mut self, server: &mut Server, key: &ObjectKey) {
        let Some(pod) = server.get(Kind::Pod, key).cloned() else { return };
        let uid = uid_of(&pod).to_owned();
        let recorded = server.of_kind(Kind::Reservation).any(|(_, reservation)| {
            let users = reservation["status"]["users"].as_array();
            users.into_iter().flatten().any(|user| user["uid"] == json!(uid))
        });
        let runtime = self.runtimes.remove(&uid).unwrap_or_default();
        let again = (0..runtime.containers.len()).any(|number| runtime.starts(&pod, number));
        match runtime.credentials.filter(|_| recorded && (again || self.sessions.contains_key(&uid))) {
            Some(credentials) => {
                // Written in whole seconds, so up to one second less.
                let ghost_until = Some(server.now + Duration::seconds(299));
                self.sessions.insert(uid.clone(), Session { ghost_until, ..credentials });
            }
            None => drop(self.sessions.remove(&uid)),
        }
        self.lost.retain(|lost| *lost != uid);
        server.remove(Kind::Pod, key);
    }

    /// Sessions of vanished Pods end some time.
    pub fn expire(&mut self, now: DateTime<Utc>) {
        self.sessions.retain(|_, session| session.ghost_until.is_none_or(|until| now < until));
    }
}

impl Runtime {
    fn end(&mut self, number: usize, code: i64, now: DateTime<Utc>) {
        let container = &mut self.containers[number];
        (container.running, container.ended) = (false, Some((code, now)));
        self.unreported = true;
    }
}

fn has_secret(server: &Server, pod: &Value) -> bool {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap();
    secret_of(pod).is_some_and(|name| server.get(Kind::Secret, &ObjectKey::new(namespace, name)).is_some())
}

fn credentials(server: &Server, pod: &Value) -> Session {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap();
    let secret = server.get(Kind::Secret, &ObjectKey::new(namespace, secret_of(pod).unwrap())).unwrap();
    Session {
        provider: secret["metadata"]["labels"][vpn_types::OWNER_LABEL].as_str().unwrap_or("?").to_owned(),
        consumer: owners(secret).first().map(|(uid, _)| uid.clone()).unwrap_or_default(),
        ghost_until: None,
    }
}

/// Writes the status as kubelet does: from what it knows of the Pod, which may be an earlier generation.
fn report(server: &mut Server, key: &ObjectKey, runtime: &Runtime) {
    let Some(pod) = server.get(Kind::Pod, key).cloned() else { return };
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let result = r#"{"unmasked":"192.0.2.1","address":"198.51.100.1"}"#;
    let status = |(spec, container): (&Value, &Container)| {
        let ended = container
            .ended
            .map(|(code, at)| json!({"terminated": {"exitCode": code, "finishedAt": time(at), "message": result}}));
        let waits = container.restarts % 2 == 1 && !runtime.heard && !runtime.concluded;
        let state = match (container.running, &ended) {
            (true, _) => json!({"running": {"startedAt": time(server.now)}}),
            (false, None) => json!({"waiting": {"reason": "ContainerCreating"}}),
            (false, Some(_)) if waits => json!({"waiting": {"reason": "CrashLoopBackOff"}}),
            (false, Some(ended)) => ended.clone(),
        };
        let mut status = json!({
            "name": spec["name"], "image": "i", "imageID": "", "ready": container.running,
            "restartCount": container.restarts, "state": state,
        });
        if (container.running || waits)
            && let Some(ended) = ended
        {
            status["lastState"] = ended;
        }
        status
    };
    let specs = specs(&pod);
    let all = specs.iter().zip(&runtime.containers);
    let (sidecars, containers): (Vec<_>, Vec<_>) = all.partition(|((_, sidecar), _)| *sidecar);
    let statuses = |some: Vec<(&(&Value, bool), &Container)>| {
        some.into_iter().map(|((spec, _), container)| status((spec, container))).collect::<Vec<_>>()
    };
    let known = if runtime.heard { generation(&pod) } else { generation(&pod) - i64::from(is_deleting(&pod)) };
    let failed = |(spec, one): (&(&Value, bool), &Container)| !spec.1 && one.ended.is_some_and(|(code, _)| code != 0);
    let phase = match (runtime.concluded, specs.iter().zip(&runtime.containers).any(failed)) {
        (true, false) => "Succeeded",
        (true, true) => "Failed",
        (false, _) if runtime.credentials.is_some() => "Running",
        (false, _) => "Pending",
    };
    let status = json!({
        "phase": phase, "observedGeneration": known,
        "initContainerStatuses": statuses(sidecars), "containerStatuses": statuses(containers),
    });
    server.merge(Kind::Pod, key, &json!({ "status": status }), true).unwrap();
}
