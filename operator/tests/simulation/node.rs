//! Nodes: bind Pods, start, restart and stop their containers, and remove Pods. The containers that really run may
//! differ from the status of the Pod, and a node observes a deletion later than the API server.

use std::collections::BTreeMap;

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use serde_json::{Value, json};
use vpn_operator::model::{Kind, ObjectKey};

use crate::{
    metadata::{generation, is_deleting, owners, uid_of},
    pods,
    server::Server,
};

/// An open session of a Pod with a VPN account.
#[derive(Clone, Debug)]
pub struct Session {
    pub provider: String,
    pub consumer: String,
    /// The Pod was removed by force during its session. The session counts against the account until this time.
    pub ghost_until: Option<DateTime<Utc>>,
}

/// An action of a node on a Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Bind,
    /// It observes that the Pod is being deleted. No container starts after that.
    ObserveDeletion,
    /// The container with this number starts or restarts.
    Start(usize),
    /// The container with this number stops, because the Pod is being deleted or the work is done.
    Stop(usize),
    /// It writes the status of the Pod.
    Report,
    /// It sets the final phase, because no container runs or will run.
    SetFinalPhase,
    Remove,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Container {
    running: bool,
    restarts: i64,
    /// The exit code and time of the last exit.
    ended: Option<(i64, DateTime<Utc>)>,
}

/// The Pod as the node knows it.
#[derive(Clone, Debug, Default)]
struct Runtime {
    /// The containers in the order of `spec`, init containers first.
    containers: Vec<Container>,
    /// The credentials of its containers, set at the first start and kept in its volume.
    credentials: Option<Session>,
    deletion_observed: bool,
    finished: bool,
    /// Whether the status differs from this.
    status_outdated: bool,
}

#[derive(Default)]
pub struct Nodes {
    /// By UID of the Pod.
    pub sessions: BTreeMap<String, Session>,
    /// The UIDs of Pods on lost nodes, which observe and report nothing, but keep running.
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

/// The image of a container that runs, and never becomes ready.
pub const IMAGE_THAT_NEVER_BECOMES_READY: &str = "broken";

/// A password that no VPN service accepts.
pub const BAD_PASSWORD: &str = "YmFk";

/// Returns the sidecars and the containers of a Pod.
fn specs(pod: &Value) -> Vec<(&Value, bool)> {
    let all = |field: &str| pod["spec"][field].as_array().into_iter().flatten();
    let sidecars = all("initContainers").filter(|one| one["restartPolicy"] == "Always").map(|one| (one, true));
    sidecars.chain(all("containers").map(|one| (one, false))).collect()
}

/// Whether kubelet restarts a container after this exit code, unless the Pod is being deleted.
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

    /// Whether kubelet starts or restarts a container, unless the Pod is being deleted.
    fn starts(&self, pod: &Value, number: usize) -> bool {
        let container = &self.containers[number];
        let again = || container.ended.is_none_or(|(code, _)| restarts(pod, specs(pod)[number].0, code));
        !container.running && !self.deletion_observed && !self.finished && !self.is_over(pod) && again()
    }

    /// Whether no container except sidecars runs or will run.
    fn is_over(&self, pod: &Value) -> bool {
        specs(pod).iter().zip(&self.containers).filter(|((_, sidecar), _)| !sidecar).all(|((spec, _), container)| {
            let for_good = |(code, _)| self.deletion_observed || !restarts(pod, spec, code);
            !container.running && container.ended.is_some_and(for_good)
        })
    }
}

impl Nodes {
    fn runtime(&self, pod: &Value) -> Runtime {
        self.runtimes.get(uid_of(pod)).cloned().unwrap_or_else(|| Runtime::of(pod))
    }

    /// Returns the possible actions on a Pod.
    pub fn acts(&self, server: &Server, pod: &Value) -> Vec<Act> {
        if pod["spec"].get("nodeName").is_none() {
            let is_gated = pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty());
            return if is_gated { Vec::new() } else { vec![Act::Bind] };
        }
        let runtime = self.runtime(pod);
        let started = runtime.credentials.is_some();
        let may_start = |number: &usize| runtime.starts(pod, *number) && (started || has_secret(server, pod));
        let mut acts: Vec<_> = (0..runtime.containers.len()).filter(may_start).map(Act::Start).collect();
        if self.lost.iter().any(|uid| uid == uid_of(pod)) {
            // A lost node starts no new Pods, but restarts containers.
            acts.retain(|_| started);
            return acts;
        }
        if is_deleting(pod) && !runtime.deletion_observed {
            acts.push(Act::ObserveDeletion);
        }
        let is_done = is_verification(pod) && !self.is_refused(server, pod);
        let specs = specs(pod);
        let stops = |number: &usize| {
            let is_sidecar = specs[*number].1;
            runtime.containers[*number].running && (runtime.deletion_observed || (is_done && !is_sidecar))
        };
        acts.extend((0..runtime.containers.len()).filter(stops).map(Act::Stop));
        if runtime.status_outdated {
            acts.push(Act::Report);
        }
        let is_over = runtime.is_over(pod) || runtime.deletion_observed;
        if is_over && !runtime.finished && !(runtime.deletion_observed && runtime.runs()) {
            acts.push(Act::SetFinalPhase);
        }
        if runtime.finished && is_deleting(pod) && !runtime.status_outdated {
            acts.push(Act::Remove);
        }
        acts
    }

    fn is_refused(&self, server: &Server, pod: &Value) -> bool {
        let namespace = pod["metadata"]["namespace"].as_str().unwrap();
        let secret = secret_of(pod).and_then(|name| server.get(Kind::Secret, &ObjectKey::new(namespace, name)));
        secret.is_some_and(|secret| secret["data"]["OPENVPN_PASSWORD"] == json!(BAD_PASSWORD))
    }

    /// Returns the log of gluetun.
    pub fn log(&self, server: &Server, key: &ObjectKey) -> Vec<&'static str> {
        match server.get(Kind::Pod, key) {
            Some(pod) if self.is_refused(server, pod) => {
                vec!["ERROR [openvpn] AUTH: Received control message: AUTH_FAILED"; 2]
            }
            _ => Vec::new(),
        }
    }

    /// Performs the first possible action on a Pod.
    pub fn step(&mut self, server: &mut Server, key: &ObjectKey) {
        let Some(pod) = server.get(Kind::Pod, key).cloned() else { return };
        if let Some(act) = self.acts(server, &pod).first() {
            self.act(server, key, *act);
        }
    }

    /// Performs an action.
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
            Act::ObserveDeletion => (runtime.deletion_observed, runtime.status_outdated) = (true, true),
            Act::Start(number) => {
                let credentials = runtime.credentials.get_or_insert_with(|| credentials(server, &pod));
                self.sessions.insert(uid.clone(), credentials.clone());
                let container = &mut runtime.containers[number];
                container.restarts += i64::from(container.ended.is_some());
                container.running = true;
                runtime.status_outdated = true;
            }
            Act::Stop(number) => runtime.end(number, if runtime.deletion_observed { 137 } else { 0 }, server.now),
            Act::Report => {
                runtime.status_outdated = false;
                report(server, key, &runtime);
            }
            Act::SetFinalPhase => {
                for number in 0..runtime.containers.len() {
                    if runtime.containers[number].running {
                        runtime.end(number, 137, server.now);
                    }
                }
                (runtime.finished, runtime.status_outdated) = (true, true);
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

    /// A container exits by itself.
    pub fn exit(&mut self, server: &mut Server, key: &ObjectKey, number: usize, code: i64) {
        let Some(pod) = server.get(Kind::Pod, key).cloned() else { return };
        let mut runtime = self.runtime(&pod);
        let number = number % runtime.containers.len();
        if runtime.containers[number].running {
            runtime.end(number, code, server.now);
            self.keep(uid_of(&pod).to_owned(), runtime);
        }
    }

    /// Removes a Pod whose containers keep running, as after a force deletion or the removal of a Node. The session
    /// stays open, and counts against the account as long as the operator has to hold the slot.
    pub fn remove_by_force(&mut self, server: &mut Server, key: &ObjectKey) {
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
                // The operator stores whole seconds, so the hold may be up to one second shorter.
                let ghost_until = Some(server.now + Duration::seconds(299));
                self.sessions.insert(uid.clone(), Session { ghost_until, ..credentials });
            }
            None => drop(self.sessions.remove(&uid)),
        }
        self.lost.retain(|lost| *lost != uid);
        server.remove(Kind::Pod, key);
    }

    /// Ends the sessions of Pods that were removed by force.
    pub fn expire(&mut self, now: DateTime<Utc>) {
        self.sessions.retain(|_, session| session.ghost_until.is_none_or(|until| now < until));
    }
}

impl Runtime {
    fn end(&mut self, number: usize, code: i64, now: DateTime<Utc>) {
        let container = &mut self.containers[number];
        (container.running, container.ended) = (false, Some((code, now)));
        self.status_outdated = true;
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

/// Writes the status like kubelet: it may be based on an earlier generation of the Pod.
fn report(server: &mut Server, key: &ObjectKey, runtime: &Runtime) {
    let Some(pod) = server.get(Kind::Pod, key).cloned() else { return };
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let result = r#"{"unmasked":"192.0.2.1","address":"198.51.100.1"}"#;
    let status = |(spec, container): (&Value, &Container)| {
        let ended = container
            .ended
            .map(|(code, at)| json!({"terminated": {"exitCode": code, "finishedAt": time(at), "message": result}}));
        let waits = container.restarts % 2 == 1 && !runtime.deletion_observed && !runtime.finished;
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
    let known =
        if runtime.deletion_observed { generation(&pod) } else { generation(&pod) - i64::from(is_deleting(&pod)) };
    let failed = |(spec, one): (&(&Value, bool), &Container)| !spec.1 && one.ended.is_some_and(|(code, _)| code != 0);
    let phase = match (runtime.finished, specs.iter().zip(&runtime.containers).any(failed)) {
        (true, false) => "Succeeded",
        (true, true) => "Failed",
        (false, _) if runtime.credentials.is_some() => "Running",
        (false, _) => "Pending",
    };
    let mut status = json!({
        "phase": phase, "observedGeneration": known,
        "initContainerStatuses": statuses(sidecars), "containerStatuses": statuses(containers),
    });
    if pods::injected(&pod).is_some() {
        let works = specs.iter().all(|(spec, _)| spec["image"] != IMAGE_THAT_NEVER_BECOMES_READY);
        let is_ready = works && !runtime.finished && runtime.containers.iter().all(|container| container.running);
        let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|condition| condition["type"] != "Ready");
        conditions.push(json!({"type": "Ready", "status": if is_ready { "True" } else { "False" }}));
        status["conditions"] = json!(conditions);
    }
    server.merge(Kind::Pod, key, &json!({ "status": status }), true).unwrap();
}
