//! Nodes: bind Pods, start and stop their containers, and remove Pods that have stopped. What really runs is kept
//! apart from what the Pods' status says.

use std::collections::BTreeMap;

use chrono::{DateTime, Duration, Utc};
use serde_json::{Value, json};
use vpn_operator::world::{Kind, ObjectKey};

use crate::server::{Server, is_deleting, owners, uid_of};

/// A session with a VPN account that some Pod has open.
#[derive(Clone, Debug)]
pub struct Session {
    pub provider: String,
    pub consumer: String,
    /// The Pod vanished while its session was open; the account counts it until then.
    pub ghost_until: Option<DateTime<Utc>>,
}

#[derive(Default)]
pub struct Nodes {
    /// By UID of the Pod.
    pub sessions: BTreeMap<String, Session>,
    /// Pods (UID) on nodes that do not answer.
    pub lost: Vec<String>,
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

fn state(pod: &Value) -> &'static str {
    let state = &pod["status"]["containerStatuses"][0]["state"];
    match () {
        () if pod["spec"].get("nodeName").is_none() => "unbound",
        () if state.get("terminated").is_some() => "terminated",
        () if state.get("running").is_some() => "running",
        () => "waiting",
    }
}

impl Nodes {
    /// Whether something can happen to that Pod. `willing`: Pods that are not deleted may be left alone.
    pub fn can_step(&self, server: &Server, pod: &Value) -> bool {
        if self.lost.iter().any(|uid| uid == uid_of(pod)) {
            return false;
        }
        match state(pod) {
            "unbound" => true,
            "waiting" => is_deleting(pod) || has_secret(server, pod),
            "running" => is_deleting(pod) || (is_verification(pod) && !self.is_refused(server, pod)),
            _ => is_deleting(pod),
        }
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

    /// The next thing that a node does with that Pod.
    pub fn step(&mut self, server: &mut Server, key: &ObjectKey) {
        let Some(pod) = server.get(Kind::Pod, key).cloned() else { return };
        if !self.can_step(server, &pod) {
            return;
        }
        match (state(&pod), is_deleting(&pod)) {
            ("unbound", _) => {
                let patch = json!({"spec": {"nodeName": "n1"}});
                server.merge(Kind::Pod, key, &patch, false).unwrap();
            }
            ("waiting", false) => {
                let secret = ObjectKey::new(key.namespace.clone(), secret_of(&pod).unwrap());
                let secret = server.get(Kind::Secret, &secret).unwrap();
                let session = Session {
                    provider: secret["metadata"]["labels"][vpn_types::OWNER_LABEL].as_str().unwrap_or("?").to_owned(),
                    consumer: owners(secret).first().map(|(uid, _)| uid.clone()).unwrap_or_default(),
                    ghost_until: None,
                };
                self.sessions.insert(uid_of(&pod).to_owned(), session);
                let now = server.now.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
                contain(server, key, json!({"running": {"startedAt": now}}));
            }
            // The probe has got its address.
            ("waiting" | "running", true) | ("running", false) => self.finish(server, key),
            ("terminated", true) => server.remove(Kind::Pod, key),
            _ => {}
        }
    }

    /// The containers end.
    pub fn finish(&mut self, server: &mut Server, key: &ObjectKey) {
        let Some(pod) = server.get(Kind::Pod, key) else { return };
        if state(pod) == "unbound" {
            return;
        }
        self.sessions.remove(uid_of(pod));
        let result = r#"{"unmasked":"192.0.2.1","address":"198.51.100.1"}"#;
        contain(server, key, json!({"terminated": {"exitCode": 0, "message": result}}));
    }

    /// The object is removed while its containers run on (force delete, node removed). Their session stays open, and
    /// counts against the account for as long as those who knew of it have to hold the slot.
    pub fn vanish(&mut self, server: &mut Server, key: &ObjectKey) {
        let Some(pod) = server.get(Kind::Pod, key) else { return };
        let uid = uid_of(pod).to_owned();
        let recorded = server.of_kind(Kind::Reservation).any(|(_, reservation)| {
            let users = reservation["status"]["users"].as_array();
            users.into_iter().flatten().any(|user| user["uid"] == json!(uid))
        });
        match self.sessions.get_mut(&uid) {
            // Written in whole seconds, so up to one second less.
            Some(session) if recorded => session.ghost_until = Some(server.now + Duration::seconds(299)),
            Some(_) => drop(self.sessions.remove(&uid)),
            None => {}
        }
        self.lost.retain(|lost| *lost != uid);
        server.remove(Kind::Pod, key);
    }

    /// Sessions of vanished Pods end some time.
    pub fn expire(&mut self, now: DateTime<Utc>) {
        self.sessions.retain(|_, session| session.ghost_until.is_none_or(|until| now < until));
    }
}

fn has_secret(server: &Server, pod: &Value) -> bool {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap();
    secret_of(pod).is_some_and(|name| server.get(Kind::Secret, &ObjectKey::new(namespace, name)).is_some())
}

fn contain(server: &mut Server, key: &ObjectKey, state: Value) {
    let status = |name: &str| json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state});
    let statuses = if server.get(Kind::Pod, key).is_some_and(|pod| is_verification(pod)) {
        json!({"containerStatuses": [status("probe")], "initContainerStatuses": [status("vpn")]})
    } else {
        json!({"containerStatuses": [status("c")]})
    };
    server.merge(Kind::Pod, key, &json!({ "status": statuses }), true).unwrap();
}
