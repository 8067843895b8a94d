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
    pod["spec"]["containers"][0]["envFrom"][0]["secretRef"]["name"].as_str()
}

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
            _ => is_deleting(pod),
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
                contain(server, key, json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}));
            }
            ("waiting" | "running", true) => self.finish(server, key),
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
        contain(server, key, json!({"terminated": {"exitCode": 0}}));
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
    let status = json!({"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state});
    server.merge(Kind::Pod, key, &json!({"status": {"containerStatuses": [status]}}), true).unwrap();
}
