//! Deployments and their ReplicaSets, with the controllers of both. Each step handles what is stored at that moment.

use std::{cmp::Reverse, sync::Arc};

use serde_json::{Value, json};
use vpn_operator::{
    model::{Kind, ObjectKey, Uid},
    state::ReplicaSetView,
};
use vpn_types::inject::{INJECTED_ANNOTATION, Surge};

use crate::{
    metadata::{is_deleting, owners, uid_of},
    node::IMAGE_THAT_NEVER_BECOMES_READY,
    pods,
    run::Sim,
    server::Server,
    user::{Restarts, SHARED_MASK},
};

/// The Pods of a revision.
#[derive(Clone, Copy, Debug, Default)]
pub struct Template {
    /// Whether they share a Mask.
    pub shares: bool,
    /// The annotation `vpn.beebs.dev/surge`.
    pub surge: Surge,
    /// Whether they run and never become ready.
    pub is_broken: bool,
}

pub struct ReplicaSet {
    pub uid: String,
    pub name: String,
    pub revision: u64,
    pub replicas: usize,
    pub template: Template,
}

/// A Deployment with `maxUnavailable: 0`, which is what 25 % of a few replicas amounts to.
pub struct Deployment {
    pub key: ObjectKey,
    pub uid: String,
    pub replicas: usize,
    pub max_surge: usize,
    /// The newest last.
    pub replica_sets: Vec<ReplicaSet>,
    pods: usize,
}

/// What the controllers do, by the name of the ReplicaSet or Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    Scale(String, usize),
    Create(String),
    Delete(ObjectKey),
}

fn is_ready(pod: &Value) -> bool {
    pods::condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True")
}

impl ReplicaSet {
    pub fn owns(&self, pod: &Value) -> bool {
        owners(pod).iter().any(|(uid, _)| *uid == self.uid)
    }

    fn active<'a>(&self, server: &'a Server) -> Vec<(&'a ObjectKey, &'a Value)> {
        let pods = server.of_kind(Kind::Pod).map(|(key, pod)| (key, &**pod));
        pods.filter(|(_, pod)| self.owns(pod) && !is_deleting(pod) && !pods::has_ended(pod)).collect()
    }

    fn available(&self, server: &Server) -> usize {
        self.active(server).into_iter().filter(|(_, pod)| is_ready(pod)).count()
    }

    fn act(&self, server: &Server) -> Option<Act> {
        let active = self.active(server);
        if active.len() < self.replicas {
            return Some(Act::Create(self.name.clone()));
        }
        // Pods without a node go first, then those that are not ready, and then the youngest.
        let order = |pod: &Value| {
            let created = pod["metadata"]["creationTimestamp"].as_str().unwrap().to_owned();
            (pod["spec"].get("nodeName").is_some(), is_ready(pod), Reverse(created))
        };
        let next = active.iter().filter(|_| active.len() > self.replicas).min_by_key(|(_, pod)| order(pod));
        next.map(|(key, _)| Act::Delete((*key).clone()))
    }
}

impl Deployment {
    pub fn newest(&self) -> &ReplicaSet {
        self.replica_sets.last().unwrap()
    }

    pub fn owner(&self, pod: &Value) -> Option<&ReplicaSet> {
        self.replica_sets.iter().find(|set| set.owns(pod))
    }

    /// Returns the views of its ReplicaSets.
    pub fn views(&self) -> impl Iterator<Item = ReplicaSetView> {
        self.replica_sets.iter().map(|set| ReplicaSetView {
            uid: Uid::from(set.uid.as_str()),
            name: Arc::from(set.name.as_str()),
            deployment: Some((self.key.name.clone(), Uid::from(self.uid.as_str()))),
            revision: set.revision,
        })
    }

    /// Returns the possible steps of the controllers.
    pub fn acts(&self, server: &Server) -> Vec<Act> {
        let of_sets = self.replica_sets.iter().filter_map(|set| set.act(server));
        of_sets.chain(self.scale(server)).collect()
    }

    fn scale(&self, server: &Server) -> Option<Act> {
        let (newest, older) = self.replica_sets.split_last()?;
        let all: usize = self.replica_sets.iter().map(|set| set.replicas).sum();
        let more = (self.replicas + self.max_surge).saturating_sub(all).min(self.replicas - newest.replicas);
        if more > 0 {
            return Some(Act::Scale(newest.name.clone(), newest.replicas + more));
        }
        let starting = newest.replicas.saturating_sub(newest.available(server));
        let dispensable = all.saturating_sub(self.replicas + starting);
        let unavailable = |set: &ReplicaSet| set.replicas.saturating_sub(set.available(server)).min(dispensable);
        if let Some(set) = older.iter().find(|set| unavailable(set) > 0) {
            return Some(Act::Scale(set.name.clone(), set.replicas - unavailable(set)));
        }
        let available: usize = self.replica_sets.iter().map(|set| set.available(server)).sum();
        let spare = available.saturating_sub(self.replicas).min(dispensable);
        let set = older.iter().find(|set| set.replicas > 0 && spare > 0)?;
        Some(Act::Scale(set.name.clone(), set.replicas.saturating_sub(spare)))
    }
}

impl Sim {
    /// Creates a Deployment with the default strategy, and its first revision.
    pub fn deploy(&mut self, key: &ObjectKey, replicas: usize, max_surge: usize, template: Template) {
        let uid = self.new_uid();
        let (key, replica_sets) = (key.clone(), Vec::new());
        self.server.deployments.push(Deployment { key, uid, replicas, max_surge, replica_sets, pods: 0 });
        self.roll_out(template);
    }

    /// Gives the last Deployment a new revision.
    pub fn roll_out(&mut self, template: Template) {
        self.note(format!("user rolls out {template:?}"));
        let uid = self.new_uid();
        let deployment = self.server.deployments.last_mut().unwrap();
        let revision = deployment.replica_sets.last().map_or(0, |set| set.revision) + 1;
        let name = format!("{}-{revision}", deployment.key.name);
        deployment.replica_sets.push(ReplicaSet { uid, name, revision, replicas: 0, template });
    }

    /// Makes the revision before the newest one of the last Deployment the newest again.
    pub fn roll_back(&mut self) {
        self.note("user rolls back");
        let deployment = self.server.deployments.last_mut().unwrap();
        let revision = deployment.newest().revision + 1;
        let before = deployment.replica_sets.len() - 2;
        let mut set = deployment.replica_sets.remove(before);
        set.revision = revision;
        deployment.replica_sets.push(set);
    }

    fn new_uid(&mut self) -> String {
        self.server.uids += 1;
        format!("u{}", self.server.uids)
    }

    /// Performs a step of the controllers.
    pub fn act_on_deployment(&mut self, key: &ObjectKey, act: Act) {
        match act {
            Act::Scale(name, replicas) => {
                let sets = self.server.deployments.iter_mut().flat_map(|one| &mut one.replica_sets);
                sets.filter(|set| set.name == name).for_each(|set| set.replicas = replicas);
            }
            Act::Create(name) => self.create_replica(key, &name),
            Act::Delete(pod) => drop(self.server.delete(Kind::Pod, &pod, None, None, Some("Background"), None)),
        }
    }

    fn create_replica(&mut self, key: &ObjectKey, name: &str) {
        let deployment = self.server.deployments.iter_mut().find(|one| one.key == *key).unwrap();
        deployment.pods += 1;
        let pod = ObjectKey::new(&*key.namespace, format!("{name}-{}", deployment.pods));
        let set = deployment.replica_sets.iter().find(|set| set.name == name).unwrap();
        let (uid, Template { shares, surge, is_broken }) = (set.uid.clone(), set.template);
        let mut body = self.injected(&pod, shares.then_some(SHARED_MASK), Restarts::Always);
        body["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": uid, "controller": true,
            "blockOwnerDeletion": true,
        }]);
        let annotation = &mut body["metadata"]["annotations"][INJECTED_ANNOTATION];
        let mut injected: Value = serde_json::from_str(annotation.as_str().unwrap()).unwrap();
        injected["surge"] = json!(surge);
        *annotation = json!(injected.to_string());
        if is_broken {
            body["spec"]["containers"][0]["image"] = json!(IMAGE_THAT_NEVER_BECOMES_READY);
        }
        self.server.create(Kind::Pod, &pod, body).unwrap();
    }

    /// Checks that all replicas of the last Deployment run, and belong to the newest revision.
    pub fn is_rolled_out(&self) -> Result<(), String> {
        let deployment = self.server.deployments.last().unwrap();
        let pods = self.server.of_kind(Kind::Pod).filter(|(_, pod)| deployment.owner(pod).is_some());
        let mut running = 0;
        for (key, pod) in pods {
            if !deployment.newest().owns(pod) || !self.nodes.sessions.contains_key(uid_of(pod)) {
                return Err(format!("the rollout is not complete: {key} is of an older revision, or does not run"));
            }
            running += 1;
        }
        if running == deployment.replicas { Ok(()) } else { Err(format!("{running} Pods run after the rollout")) }
    }
}
