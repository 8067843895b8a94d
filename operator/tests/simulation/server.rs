//! The storage and the verbs of the API server, as far as the operator depends on them.

use std::{collections::BTreeMap, rc::Rc};

use chrono::{DateTime, SecondsFormat, Utc};
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;
use serde_json::{Value, json};
use vpn_operator::{
    issuing::Refusal,
    model::{Issue, Kind, NewObject, ObjectKey, Operation, Propagation, Uid},
    state::{Object, Outcome},
};
use vpn_types::{FIELD_MANAGER, Reason, SHARED_FIELD_MANAGER};

use crate::{
    deployments::Deployment,
    metadata::{finalizers, generation, is_deleting, set_finalizers, uid_of},
    pods::has_ended,
    views::{project, verification_pod},
};

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// A change of an object. Without `before`: created. Without `after`: deleted, and `last` is the final state.
pub struct Event {
    pub kind: Kind,
    pub before: Option<Rc<Value>>,
    pub after: Option<Rc<Value>>,
    pub last: Rc<Value>,
}

/// Why a request failed.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    NotFound,
    Exists,
    Conflict,
}

#[derive(Default)]
pub struct Server {
    pub objects: BTreeMap<(Kind, ObjectKey), Rc<Value>>,
    pub log: Vec<Event>,
    /// `maxSlots` of each provider (UID) by generation.
    pub slots_by_generation: BTreeMap<(String, i64), u64>,
    pub now: DateTime<Utc>,
    pub version: u64,
    pub uids: u64,
    pub deployments: Vec<Deployment>,
    /// Whether a PodDisruptionBudget allows no eviction.
    pub budget_refuses: bool,
}

pub type Answer = Result<Option<Rc<Value>>, Failure>;

impl Server {
    pub fn get(&self, kind: Kind, key: &ObjectKey) -> Option<&Rc<Value>> {
        self.objects.get(&(stored(kind), key.clone()))
    }

    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&ObjectKey, &Rc<Value>)> {
        self.objects.iter().filter(move |((k, _), _)| *k == kind).map(|((_, key), value)| (key, value))
    }

    pub fn by_uid(&self, uid: &str) -> Option<(&(Kind, ObjectKey), &Rc<Value>)> {
        self.objects.iter().find(|(_, value)| uid_of(value) == uid)
    }

    fn time(&self) -> Value {
        json!(self.now.to_rfc3339_opts(SecondsFormat::Secs, true))
    }

    fn store(&mut self, kind: Kind, key: &ObjectKey, mut value: Value, removed: bool) -> Rc<Value> {
        let kind = stored(kind);
        self.version += 1;
        value["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if kind == Kind::Provider {
            let slots = value["spec"]["maxSlots"].as_u64().unwrap_or(0);
            self.slots_by_generation.insert((uid_of(&value).to_owned(), generation(&value)), slots);
        }
        let last = Rc::new(value);
        let id = (kind, key.clone());
        let before = if removed { self.objects.remove(&id) } else { self.objects.insert(id, last.clone()) };
        let after = (!removed).then(|| last.clone());
        self.log.push(Event { kind, before, after, last: last.clone() });
        last
    }

    pub fn create(&mut self, kind: Kind, key: &ObjectKey, mut value: Value) -> Answer {
        if self.get(kind, key).is_some() {
            return Err(Failure::Exists);
        }
        self.uids += 1;
        let meta = &mut value["metadata"];
        meta["name"] = json!(&*key.name);
        meta["namespace"] = json!(&*key.namespace);
        meta["uid"] = json!(format!("u{}", self.uids));
        meta["creationTimestamp"] = self.time();
        meta["generation"] = json!(1);
        if is_custom(kind) {
            value.as_object_mut().unwrap().remove("status");
        }
        Ok(Some(self.store(kind, key, value, false)))
    }

    /// Replaces an object, or only its status, after a patch. Writes nothing if nothing changes.
    fn update(&mut self, kind: Kind, key: &ObjectKey, patched: Value, status: bool) -> Answer {
        let old = self.get(kind, key).ok_or(Failure::NotFound)?.clone();
        if patched["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"]
            || (!status && patched["metadata"]["uid"] != old["metadata"]["uid"])
        {
            return Err(Failure::Conflict);
        }
        let mut new = patched;
        if status {
            let patched = std::mem::replace(&mut new, (*old).clone());
            new["status"] = patched["status"].clone();
        } else if is_custom(kind) {
            match old.get("status") {
                Some(status) => new["status"] = status.clone(),
                None => drop(new.as_object_mut().unwrap().remove("status")),
            }
        }
        for field in ["name", "namespace", "creationTimestamp", "deletionTimestamp", "generation"] {
            match old["metadata"].get(field) {
                Some(value) => new["metadata"][field] = value.clone(),
                None => drop(new["metadata"].as_object_mut().unwrap().remove(field)),
            }
        }
        let deleting = is_deleting(&old);
        if deleting && finalizers(&new).iter().any(|added| !finalizers(&old).contains(added)) {
            return Err(Failure::Conflict);
        }
        if new == *old {
            return Ok(Some(old));
        }
        if is_custom(kind) && new["spec"] != old["spec"] {
            new["metadata"]["generation"] = json!(generation(&old) + 1);
        }
        let removed = deleting && finalizers(&new).is_empty() && stored(kind) != Kind::Pod;
        Ok(Some(self.store(kind, key, new, removed)))
    }

    pub fn merge(&mut self, kind: Kind, key: &ObjectKey, patch: &Value, status: bool) -> Answer {
        let mut patched = (**self.get(kind, key).ok_or(Failure::NotFound)?).clone();
        json_patch::merge(&mut patched, patch);
        self.update(kind, key, patched, status)
    }

    fn json_patch(&mut self, kind: Kind, key: &ObjectKey, patch: &Value) -> Answer {
        let mut patched = (**self.get(kind, key).ok_or(Failure::NotFound)?).clone();
        let patch: json_patch::Patch = serde_json::from_value(patch.clone()).unwrap();
        json_patch::patch(&mut patched, &patch).map_err(|_| Failure::Conflict)?;
        self.update(kind, key, patched, false)
    }

    /// Merges the conditions of a Pod by type, like a strategic merge patch.
    fn merge_conditions(&mut self, key: &ObjectKey, patch: &Value) -> Answer {
        let old = self.get(Kind::Pod, key).ok_or(Failure::NotFound)?;
        if patch["metadata"]["uid"] != old["metadata"]["uid"] {
            return Err(Failure::Conflict);
        }
        let mut conditions = old["status"]["conditions"].as_array().cloned().unwrap_or_default();
        for new in patch["status"]["conditions"].as_array().unwrap() {
            conditions.retain(|one| one["type"] != new["type"]);
            conditions.push(new.clone());
        }
        self.merge(Kind::Pod, key, &json!({"status": {"conditions": conditions}}), true)
    }

    /// Deletes an object. `Ok(None)`: it no longer exists.
    pub fn delete(
        &mut self,
        kind: Kind,
        key: &ObjectKey,
        uid: Option<&str>,
        version: Option<u64>,
        how: Option<&str>,
        grace_period: Option<u32>,
    ) -> Answer {
        let old = self.get(kind, key).ok_or(Failure::NotFound)?.clone();
        let same_version = version.is_none_or(|v| old["metadata"]["resourceVersion"] == json!(v.to_string()));
        if uid.is_some_and(|uid| uid != uid_of(&old)) || !same_version {
            return Err(Failure::Conflict);
        }
        let mut left: Vec<_> = finalizers(&old);
        if let Some(how) = how.filter(|_| stored(kind) != Kind::Pod) {
            left.retain(|finalizer| finalizer != FOREGROUND && finalizer != ORPHAN);
            if how != "Background" {
                left.push(how.to_owned());
            }
        }
        let grace_period = grace_period.map(u64::from).or(old["spec"]["terminationGracePeriodSeconds"].as_u64());
        let graceful = stored(kind) == Kind::Pod && old["spec"].get("nodeName").is_some() && grace_period != Some(0);
        if left.is_empty() && !graceful {
            let mut last = (*old).clone();
            set_finalizers(&mut last, &left);
            self.store(kind, key, last, true);
            return Ok(None);
        }
        let mut new = (*old).clone();
        set_finalizers(&mut new, &left);
        if !is_deleting(&old) {
            new["metadata"]["deletionTimestamp"] = self.time();
            new["metadata"]["generation"] = json!(generation(&old) + 1);
        }
        if new == *old { Ok(Some(old)) } else { Ok(Some(self.store(kind, key, new, false))) }
    }

    /// Removes an object in spite of finalizers.
    pub fn remove(&mut self, kind: Kind, key: &ObjectKey) {
        if let Some(old) = self.get(kind, key).cloned() {
            self.store(kind, key, (*old).clone(), true);
        }
    }

    /// Server-side apply for a single manager that owns everything it applies, and never removes fields.
    fn apply(&mut self, kind: Kind, key: &ObjectKey, uid: Option<&Uid>, object: &Value) -> Answer {
        let Some(present) = self.get(kind, key).cloned() else {
            return match uid {
                Some(_) => Err(Failure::Conflict),
                None => {
                    let object = manage_replicas(kind, &json!({}), object, FIELD_MANAGER);
                    self.create(kind, key, with_address(kind, object))
                }
            };
        };
        let is_ours = present["metadata"]["labels"].get(vpn_types::SERVER_LABEL).is_some();
        if uid.map_or(!is_ours, |uid| uid.as_str() != uid_of(&present)) {
            return Err(Failure::Conflict);
        }
        self.merge(kind, key, &manage_replicas(kind, &present, object, FIELD_MANAGER), false)
    }

    /// Server-side apply of a part by another manager, without force.
    fn share(&mut self, kind: Kind, key: &ObjectKey, part: &Value) -> Answer {
        let present = self.get(kind, key).ok_or(Failure::NotFound)?.clone();
        let is_other = uid_of(&present) != uid_of(part);
        if is_other || present["spec"]["replicas"] != part["spec"]["replicas"] {
            return Err(Failure::Conflict);
        }
        self.merge(kind, key, &manage_replicas(kind, &present, part, SHARED_FIELD_MANAGER), false)
    }

    /// Creates a Secret with keys.
    fn issue(&mut self, request: &Issue) -> Result<Answer, Refusal> {
        let key = &request.key;
        let present = self.get(Kind::Secret, key).cloned();
        let version = |secret: &Value| secret["metadata"]["resourceVersion"].as_str().and_then(|it| it.parse().ok());
        match (&request.replaces, &present) {
            (None, Some(_)) => return Ok(Err(Failure::Exists)),
            (Some(_), None) => return Ok(Err(Failure::NotFound)),
            (Some((_, wanted)), Some(present)) if version(present) != Some(*wanted) => {
                return Ok(Err(Failure::Conflict));
            }
            _ => {}
        }
        let typed = present.as_deref().map(|secret| Secret::deserialize(secret).unwrap());
        let known = match request.content.source() {
            Some(name) => {
                let own = self.get(Kind::Secret, &ObjectKey::new(&*key.namespace, name));
                own.and_then(|secret| Secret::deserialize(&**secret).unwrap().data)
            }
            None => typed.as_ref().and_then(|secret| secret.data.clone()),
        };
        let now = time::OffsetDateTime::from_unix_timestamp(self.now.timestamp()).unwrap();
        let data = request.content.data(known.as_ref(), now)?;
        Ok(match typed {
            None => self.create(Kind::Secret, key, json!(request.secret(data))),
            Some(present) => self.json_patch(Kind::Secret, key, &request.replacement(&present, data)),
        })
    }

    /// The subresource `eviction`. A budget protects no Pod that has ended, or is being deleted.
    fn evict(&mut self, key: &ObjectKey, uid: &Uid) -> Outcome {
        let is_protected = |pod: &Rc<Value>| uid_of(pod) == uid.as_str() && !is_deleting(pod) && !has_ended(pod);
        if self.budget_refuses && self.get(Kind::Pod, key).is_some_and(is_protected) {
            let message = "Cannot evict pod as it would violate the pod's disruption budget.".to_owned();
            return Outcome::Refused { reason: Reason::EvictionRefused, message };
        }
        match self.delete(Kind::Pod, key, Some(uid.as_str()), None, None, None) {
            Ok(_) => Outcome::Evicted,
            Err(Failure::NotFound) => Outcome::NotFound,
            Err(_) => Outcome::Conflict,
        }
    }

    /// Handles a request of the operator.
    pub fn handle(&mut self, operation: &Operation) -> Outcome {
        let answer = match operation {
            Operation::Create(key, new) => match new {
                NewObject::Consumer(object) => self.create(Kind::Consumer, key, json!(object)),
                NewObject::Reservation(object) => self.create(Kind::Reservation, key, json!(object)),
                NewObject::Secret(object) => self.create(Kind::Secret, key, json!(object)),
                NewObject::Mask(object) => self.create(Kind::Mask, key, json!(object)),
                NewObject::Pod(object) => self.create(Kind::Pod, key, json!(object)),
            },
            Operation::Apply(kind, key, uid, object) => self.apply(*kind, key, uid.as_ref(), object),
            Operation::Share(kind, key, part) => self.share(*kind, key, part),
            Operation::Issue(request) => match self.issue(request) {
                Ok(answer) => answer,
                Err(Refusal { reason, message }) => return Outcome::Refused { reason, message },
            },
            Operation::PatchStatus(kind, key, patch) => self.merge(*kind, key, patch, true),
            Operation::Patch(kind, key, patch) => self.merge(*kind, key, patch, false),
            Operation::JsonPatch(kind, key, patch) => self.json_patch(*kind, key, patch),
            Operation::Delete { kind, key, uid, version, propagation, grace_period } => {
                let how = propagation.map(|how| match how {
                    Propagation::Background => "Background",
                    Propagation::Foreground => FOREGROUND,
                });
                self.delete(*kind, key, Some(uid.as_str()), *version, how, *grace_period)
            }
            Operation::PatchPodStatus(key, patch) => self.merge_conditions(key, patch),
            Operation::Evict(key, uid) => {
                return self.evict(key, uid);
            }
            Operation::CountClients(_, replicas) => {
                // Each has another number, and some do not answer.
                let answers = replicas.iter().enumerate().filter(|(number, _)| number % 3 < 2);
                return Outcome::Clients(answers.map(|(number, one)| (one.uid.clone(), number as u64)).collect());
            }
            Operation::ListReplicaSets(namespace) => {
                let deployments = self.deployments.iter().filter(|one| one.key.namespace == *namespace);
                return Outcome::ReplicaSets(deployments.flat_map(Deployment::views).collect());
            }
            Operation::Get(kind, key) => self.get(*kind, key).cloned().map(Some).ok_or(Failure::NotFound),
            Operation::ListPods(namespace) => {
                let pods = self.of_kind(Kind::Pod).filter(|(key, _)| key.namespace == *namespace);
                let pods = pods.filter_map(|(_, pod)| match project(Kind::Pod, pod) {
                    Object::Pod(view) => Some(view),
                    _ => None,
                });
                return Outcome::Pods(pods.collect());
            }
        };
        match answer {
            Ok(Some(object)) => {
                let kind = operation.target().unwrap().0;
                let view = if matches!(operation, Operation::Create(_, NewObject::Pod(_))) {
                    verification_pod(&object)
                } else {
                    project(kind, &object)
                };
                Outcome::Object(Box::new(view))
            }
            Ok(None) => Outcome::Gone,
            Err(Failure::NotFound) => Outcome::NotFound,
            Err(Failure::Exists) => Outcome::AlreadyExists,
            Err(Failure::Conflict) => Outcome::Conflict,
        }
    }
}

pub fn refused() -> Outcome {
    Outcome::Refused { reason: Reason::QuotaExceeded, message: "exceeded quota".to_owned() }
}

/// Returns the kind under which an object is stored.
pub fn stored(kind: Kind) -> Kind {
    match kind {
        Kind::InjectedPod | Kind::ServerPod => Kind::Pod,
        Kind::ServerSecret => Kind::Secret,
        other => other,
    }
}

/// Adds to an object that a manager applies who has applied the number of replicas. If nobody has any more, it gets its
/// default.
fn manage_replicas(kind: Kind, present: &Value, object: &Value, manager: &str) -> Value {
    let mut object = object.clone();
    if kind != Kind::Deployment {
        return object;
    }
    let mut entries = present["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let had_owner = !entries.is_empty();
    entries.retain(|entry| entry["manager"] != manager);
    if object["spec"].get("replicas").is_some() {
        // With force, a manager is the only one of a value that it changes.
        if present["spec"]["replicas"] != object["spec"]["replicas"] {
            entries.clear();
        }
        let fields = json!({"f:spec": {"f:replicas": {}}});
        entries.push(json!({"manager": manager, "operation": "Apply", "fieldsV1": fields}));
    } else if entries.is_empty() && (had_owner || present.get("spec").is_none()) {
        object["spec"]["replicas"] = json!(1);
    }
    object["metadata"]["managedFields"] = json!(entries);
    object
}

/// A Service gets an address when it is created.
fn with_address(kind: Kind, mut object: Value) -> Value {
    if kind == Kind::Service {
        object["spec"]["clusterIP"] = json!("10.96.0.7");
    }
    object
}

fn is_custom(kind: Kind) -> bool {
    use Kind::{Client, Consumer, Mask, Provider, Reservation, Server};
    matches!(kind, Mask | Consumer | Reservation | Provider | Server | Client)
}
