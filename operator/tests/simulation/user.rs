//! Actions of users.

use serde_json::{Value, json};
use vpn_operator::model::{Kind, ObjectKey};
use vpn_types::inject::{INJECT_LABEL, INJECTED_ANNOTATION, SLOT_GATE};

use crate::{
    metadata::{finalizers, is_deleting, uid_of},
    run::Sim,
    server::{FOREGROUND, ORPHAN},
};

pub const FOREIGN: &str = "example.com/finalizer";

pub fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(namespace, name)
}

/// A Secret for individual slots.
const SLOT_SECRET: &str = "slot-secret";

/// How a Pod refers to a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodLink {
    Owned,
    OwnedWithoutBlocking,
    TwoOwners,
    SecretOnly,
}

/// When kubelet restarts a container of a Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restarts {
    Always,
    OnFailure,
    Never,
    /// Restarts a native sidecar, but not the container.
    Sidecar,
    /// Restarts after exit code 42, according to a rule of the container (KEP-5307).
    ByRule,
}

impl Restarts {
    pub const ALL: [Self; 5] = [Self::Always, Self::OnFailure, Self::Never, Self::Sidecar, Self::ByRule];
}

/// The number of actions of users.
pub const ACTIONS: usize = 37;

/// A Mask that Pods share.
pub const SHARED_MASK: &str = "shared";

/// The Masks of users, by namespace and name.
const MASKS: [(&str, &str); 4] = [("a", "m0"), ("a", "m1"), ("b", "m2"), ("a", "m3")];

impl Sim {
    /// More Masks than slots.
    pub fn create_masks(&mut self) {
        for (namespace, name) in MASKS {
            self.mask(&key(namespace, name), json!({}));
        }
    }

    pub fn create(&mut self, kind: Kind, key: &ObjectKey, body: Value) {
        self.note(format!("user creates {} {key}", kind.as_str()));
        // Fails if the name exists.
        let _ = self.server.create(kind, key, body);
    }

    pub fn delete(&mut self, kind: Kind, key: &ObjectKey, how: &str) {
        self.note(format!("user deletes {} {key} {how}", kind.as_str()));
        let _ = self.server.delete(kind, key, None, None, Some(how), None);
    }

    pub fn edit(&mut self, kind: Kind, key: &ObjectKey, patch: Value) {
        self.note(format!("user edits {} {key}: {patch}", kind.as_str()));
        let _ = self.server.merge(kind, key, &patch, false);
    }

    pub fn create_secret(&mut self, key: &ObjectKey, password: &str) {
        self.create(Kind::Secret, key, json!({"metadata": {}, "data": {"OPENVPN_PASSWORD": password}}));
    }

    pub fn provider(&mut self, key: &ObjectKey, mut spec: Value) {
        if spec.get("verify").is_none() {
            spec["verify"] = json!({"skip": true});
        }
        self.create(Kind::Provider, key, json!({"metadata": {}, "spec": spec}));
    }

    /// A provider with its Secret.
    pub fn account(&mut self, name: &str, slots: u64) {
        let secret = format!("{name}-secret");
        self.create_secret(&key("vpn", &secret), "cGFzcw==");
        self.provider(&key("vpn", name), json!({"secret": secret, "maxSlots": slots}));
    }

    /// A provider with its Secret, to be verified.
    pub fn verified_account(&mut self, name: &str, slots: u64, password: &str) {
        let secret = format!("{name}-secret");
        self.create_secret(&key("vpn", &secret), password);
        self.provider(&key("vpn", name), json!({"secret": secret, "maxSlots": slots, "verify": {}}));
    }

    pub fn mask(&mut self, key: &ObjectKey, spec: Value) {
        self.create(Kind::Mask, key, json!({"metadata": {}, "spec": spec}));
    }

    /// Creates a Pod that uses the slot of a consumer, if it has one. Kubelet always restarts its container.
    pub fn pod(&mut self, name: &str, consumer: &ObjectKey, link: PodLink) {
        self.pod_with_restarts(name, consumer, link, Restarts::Always);
    }

    /// The same with this restart behavior.
    pub fn pod_with_restarts(&mut self, name: &str, consumer: &ObjectKey, link: PodLink, restarts: Restarts) {
        let Some(found) = self.server.get(Kind::Consumer, consumer) else { return };
        let Some(secret) = found.pointer("/status/provider/secret").cloned() else { return };
        let owner = |uid: &str, blocks| json!({"apiVersion": "vpn.beebs.dev/v1", "kind": "MaskConsumer", "name": &*consumer.name, "uid": uid, "blockOwnerDeletion": blocks});
        let mut owners = match link {
            PodLink::Owned | PodLink::TwoOwners => vec![owner(uid_of(found), true)],
            PodLink::OwnedWithoutBlocking => vec![owner(uid_of(found), false)],
            PodLink::SecretOnly => vec![],
        };
        if link == PodLink::TwoOwners
            && let Some((_, other)) = self.server.of_kind(Kind::Provider).next()
        {
            owners.push(json!({"apiVersion": "example.com/v1", "kind": "Other", "name": "x", "uid": uid_of(other)}));
        }
        let container = json!({"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": secret}}]});
        let mut spec = json!({"containers": [container]});
        match restarts {
            Restarts::Always => spec["restartPolicy"] = json!("Always"),
            Restarts::OnFailure => spec["restartPolicy"] = json!("OnFailure"),
            Restarts::Never => spec["restartPolicy"] = json!("Never"),
            Restarts::Sidecar => {
                spec["restartPolicy"] = json!("Never");
                spec["initContainers"] = json!([{"name": "s", "image": "i", "restartPolicy": "Always"}]);
            }
            Restarts::ByRule => {
                let rule = json!({"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}});
                spec["restartPolicy"] = json!("Never");
                spec["containers"][0]["restartPolicy"] = json!("Never");
                spec["containers"][0]["restartPolicyRules"] = json!([rule]);
            }
        }
        let body = json!({"metadata": {"ownerReferences": owners}, "spec": spec});
        self.create(Kind::Pod, &ObjectKey::new(consumer.namespace.clone(), name), body);
    }

    /// Creates a Pod as the webhook admits it: with a Mask of its own, or one that it shares.
    pub fn injected_pod(&mut self, key: &ObjectKey, shares: Option<&str>, restarts: Restarts) {
        let body = self.injected(key, shares, restarts);
        self.create(Kind::Pod, key, body);
    }

    /// Returns such a Pod.
    pub fn injected(&self, key: &ObjectKey, shares: Option<&str>, restarts: Restarts) -> Value {
        let secret = match shares {
            Some(mask) => format!("{mask}-secret"),
            None => format!("{}-{}", key.name, self.server.uids),
        };
        let injected = json!({"version": "2.0.0", "secret": secret, "mask": shares});
        let container = json!({"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": secret}}]});
        let mut spec = json!({
            "containers": [container], "restartPolicy": "Always", "schedulingGates": [{"name": SLOT_GATE}],
        });
        if restarts != Restarts::Always {
            spec["restartPolicy"] = json!("Never");
        }
        let metadata = json!({
            "labels": {INJECT_LABEL: "true"}, "annotations": {INJECTED_ANNOTATION: injected.to_string()},
        });
        json!({"metadata": metadata, "spec": spec})
    }

    pub fn slots(&mut self, name: &str, slots: u64) {
        self.edit(Kind::Provider, &key("vpn", name), json!({"spec": {"maxSlots": slots}}));
    }

    pub fn phase(&self, kind: Kind, key: &ObjectKey) -> &str {
        let found = self.server.get(kind, key).and_then(|object| object.pointer("/status/phase"));
        found.and_then(Value::as_str).unwrap_or("")
    }

    fn strip_foreign(&mut self) {
        for (kind, key) in self.server.objects.keys().cloned().collect::<Vec<_>>() {
            let all = finalizers(&self.server.objects[&(kind, key.clone())]);
            if all.iter().any(|name| name == FOREIGN) {
                let left: Vec<_> = all.into_iter().filter(|name| name != FOREIGN).collect();
                self.edit(kind, &key, json!({"metadata": {"finalizers": left}}));
            }
        }
    }

    /// Removes everything that blocks a deletion: foreign finalizers, lost nodes, and Pods that only users delete.
    pub fn clean_up(&mut self) {
        self.strip_foreign();
        self.nodes.lost.clear();
        for key in self.server.of_kind(Kind::Pod).map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.delete(Kind::Pod, &key, "Background");
        }
    }

    /// Performs one of many actions of users.
    pub fn random_user_action(&mut self, choice: usize) {
        const HOW: [&str; 4] = ["Background", "Background", FOREGROUND, ORPHAN];
        let (action, n) = (choice % ACTIONS, choice / ACTIONS);
        let mask = key(MASKS[n % 4].0, MASKS[n % 4].1);
        let account = if n % 3 == 0 { "q" } else { "p" };
        let how = HOW[(n / 4) % 4];
        match action {
            0..=5 => {
                let spec = match (n / 4) % 4 {
                    0 => json!({"priority": 1}),
                    1 => json!({"providers": ["t"]}),
                    _ => json!({}),
                };
                self.mask(&mask, spec);
            }
            6..=8 => self.delete(Kind::Mask, &mask, how),
            9..=13 => {
                let link = [
                    PodLink::Owned,
                    PodLink::Owned,
                    PodLink::TwoOwners,
                    PodLink::SecretOnly,
                    PodLink::OwnedWithoutBlocking,
                ];
                let restarts = Restarts::ALL[(n / 12) % 5];
                self.pod_with_restarts(&format!("{}-{}", mask.name, (n / 4) % 3), &mask, link[action - 9], restarts);
            }
            14 | 15 => {
                let slots = [0, 1, 2, 3][(n / 3) % 4];
                self.slots(account, slots);
            }
            16 => self.delete(Kind::Consumer, &mask, if how == ORPHAN { "Background" } else { how }),
            17 => {
                if let Some(found) = self.nth(Kind::Reservation, n) {
                    self.delete(Kind::Reservation, &found, "Background");
                }
            }
            18 => {
                let copies = self.server.of_kind(Kind::Secret);
                let copies: Vec<_> =
                    copies.filter(|(key, _)| &*key.namespace != "vpn").map(|(key, _)| key.clone()).collect();
                if let Some(found) = copies.get(n % copies.len().max(1)) {
                    self.delete(Kind::Secret, &found.clone(), "Background");
                }
            }
            19 => self.delete(Kind::Provider, &key("vpn", account), if how == ORPHAN { "Background" } else { how }),
            20 if account == "q" => self.verified_account(account, 1 + (n as u64 / 3) % 2, "cGFzcw=="),
            20 | 21 => self.account(account, 1 + (n as u64 / 3) % 2),
            // The Secret of a slot.
            22 if n % 2 == 0 => match n % 8 {
                0 => self.delete(Kind::Secret, &key("vpn", SLOT_SECRET), "Background"),
                _ => self.create_secret(&key("vpn", SLOT_SECRET), ["YQ==", "Yg=="][(n / 3) % 2]),
            },
            22 => self.delete(Kind::Secret, &key("vpn", &format!("{account}-secret")), "Background"),
            23 if n % 4 == 0 => {
                let user = ["YQ==", "Yg==", "Yw=="][(n / 3) % 3];
                let patch = json!({"data": {"OPENVPN_USER": user}});
                self.edit(Kind::Secret, &key("vpn", SLOT_SECRET), patch);
            }
            23 => {
                let password = ["YQ==", "Yg==", "Yw=="][(n / 3) % 3];
                let patch = json!({"data": {"OPENVPN_PASSWORD": password}});
                self.edit(Kind::Secret, &key("vpn", &format!("{account}-secret")), patch);
            }
            24 => {
                let spec = [
                    json!({"tags": ["t"]}),
                    json!({"tags": null}),
                    json!({"namespaces": ["a"]}),
                    json!({"namespaces": null}),
                    json!({"slots": [{"secret": SLOT_SECRET}]}),
                    json!({"slots": [{}, {"secret": SLOT_SECRET}]}),
                    json!({"slots": null}),
                ];
                self.edit(Kind::Provider, &key("vpn", account), json!({"spec": spec[(n / 3) % 7]}));
            }
            25 => {
                let spec = [json!({"priority": 5}), json!({"priority": null}), json!({"providers": ["t"]})];
                self.edit(Kind::Mask, &mask, json!({"spec": spec[(n / 4) % 3]}));
            }
            26..=29 => {
                let Some(pod) = self.nth(Kind::Pod, n) else { return };
                match action {
                    26 => self.delete(Kind::Pod, &pod, "Background"),
                    27 => {
                        self.note(format!("user force deletes Pod {pod}"));
                        self.nodes.remove_by_force(&mut self.server, &pod);
                    }
                    28 => {
                        self.note(format!("node of {pod} is lost"));
                        let uid = uid_of(&self.server.objects[&(Kind::Pod, pod)]).to_owned();
                        self.nodes.lost.push(uid);
                    }
                    _ => self.crash_container(n),
                }
            }
            30 => {
                let kind = [Kind::Mask, Kind::Consumer, Kind::Secret][(n / 4) % 3];
                let Some(object) = self.server.get(kind, &mask) else { return };
                let mut all = finalizers(object);
                if !is_deleting(object) && !all.iter().any(|name| name == FOREIGN) {
                    all.insert(0, FOREIGN.to_owned());
                    let patch = json!({"metadata": {"finalizers": all, "labels": {"x": "y"}}});
                    self.edit(kind, &mask, patch);
                }
            }
            32 | 33 => self.injected_pod(&key("a", &format!("own-{}", n % 3)), None, Restarts::ALL[(n / 3) % 5]),
            34 | 35 => {
                let pod = key("a", &format!("shared-{}", n % 3));
                self.injected_pod(&pod, Some(SHARED_MASK), Restarts::ALL[(n / 3) % 5]);
            }
            36 => match n % 3 {
                0 => self.delete(Kind::Mask, &key("a", SHARED_MASK), how),
                _ => self.mask(&key("a", SHARED_MASK), json!({"secretName": format!("{SHARED_MASK}-secret")})),
            },
            _ if n % 2 == 0 => self.strip_foreign(),
            _ => self.create(Kind::Consumer, &mask, json!({"metadata": {}, "spec": {}})),
        }
    }

    /// A container of a Pod of a user exits with one of several exit codes.
    pub fn crash_container(&mut self, n: usize) {
        let Some(pod) = self.nth(Kind::Pod, n).filter(|pod| !pod.name.ends_with("-verify")) else { return };
        let code = [1, 42, 0][(n / 4) % 3];
        self.note(format!("a container of Pod {pod} exits with {code}"));
        self.nodes.exit(&mut self.server, &pod, n / 12, code);
    }

    fn nth(&self, kind: Kind, n: usize) -> Option<ObjectKey> {
        let all: Vec<_> = self.server.of_kind(kind).map(|(key, _)| key).collect();
        all.get(n % all.len().max(1)).map(|key| (*key).clone())
    }
}
