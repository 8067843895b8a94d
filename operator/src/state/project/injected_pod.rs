//! Projects a Pod that the webhook injected to its view, and ReplicaSets.

use std::hash::{DefaultHasher, Hash, Hasher};

use chrono::DateTime;
use k8s_openapi::{
    api::{apps::v1::ReplicaSet, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::core::PartialObjectMeta;
use vpn_types::{
    SLOT_ASSIGNED,
    inject::{INJECT_LABEL, INJECTED_ANNOTATION, Injected, SLOT_GATE},
};

use super::{meta, pod::stage, tags};
use crate::{
    model::{Uid, intern},
    state::views::{InjectedPod, PodConditionView, ReplicaSetView, Workload},
};

/// The annotation of a ReplicaSet with the revision of its Deployment.
const REVISION: &str = "deployment.kubernetes.io/revision";

impl InjectedPod {
    /// Returns the view of a Pod, or `None` if the webhook did not inject it.
    pub fn of(pod: &Pod) -> Option<Self> {
        Self::with(pod, injected(pod)?)
    }

    /// Returns the view of a Pod that may have lost its annotation. Like a Pod that has lost its label, it is not watched
    /// any more.
    pub fn read(pod: &Pod) -> Option<Self> {
        Self::of(pod).or_else(|| Some(Self { labeled: false, ..Self::with(pod, Injected::default())? }))
    }

    fn with(pod: &Pod, injected: Injected) -> Option<Self> {
        let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_deref()).unwrap_or_default();
        let controller = controller(&pod.metadata);
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let find = |name| conditions.and_then(|all| all.iter().find(|condition| condition.type_ == name));
        let condition = find(SLOT_ASSIGNED);
        Some(Self {
            meta: meta(&pod.metadata)?,
            secret: intern(&injected.secret),
            shares: injected.mask.as_deref().map(intern),
            tags: tags(injected.providers.as_ref()),
            priority: injected.priority.unwrap_or(0),
            surge: injected.surge,
            labeled: pod.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(INJECT_LABEL)),
            is_ready: find("Ready").is_some_and(|ready| ready.status == "True"),
            other_gate: gates.iter().find(|gate| gate.name != SLOT_GATE).map(|gate| intern(&gate.name)),
            gate: gates.iter().position(|gate| gate.name == SLOT_GATE).and_then(|at| u16::try_from(at).ok()),
            is_controlled: controller.is_some(),
            replica_set: controller
                .filter(|owner| owner.kind == "ReplicaSet" && owner.api_version.starts_with("apps/"))
                .map(|owner| Uid::from(owner.uid.as_str())),
            workload: controller.map(|owner| workload(&pod.metadata, owner)),
            stage: stage(pod),
            condition: condition.map(|condition| {
                let since = condition.last_transition_time.as_ref().map_or(0, |time| time.0.as_second());
                PodConditionView {
                    assigned: condition.status == "True",
                    reason: condition.reason.as_deref().and_then(|reason| reason.parse().ok()),
                    message: message_fingerprint(condition.message.as_deref().unwrap_or_default()),
                    since: DateTime::from_timestamp(since, 0).unwrap_or_default(),
                }
            }),
        })
    }
}

fn injected(pod: &Pod) -> Option<Injected> {
    let text = pod.metadata.annotations.as_ref()?.get(INJECTED_ANNOTATION)?;
    serde_json::from_str(text).ok()
}

fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The labels with the hash that the names of a workload's ReplicaSets end with, and the resource of that workload.
const REVISIONS: [(&str, &str); 2] =
    [("pod-template-hash", "deployments.apps"), ("rollouts-pod-template-hash", "rollouts.argoproj.io")];

/// Returns the workload of a Pod with this controller. A ReplicaSet with the hash of a Deployment in its name stands for
/// that Deployment, so that no ReplicaSet needs to be read.
fn workload(pod: &ObjectMeta, owner: &OwnerReference) -> Workload {
    let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
    if owner.kind == "ReplicaSet" && group == "apps" {
        for (label, resource) in REVISIONS {
            let hash = pod.labels.as_ref().and_then(|labels| labels.get(label));
            let name = hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
            if let Some(name) = name {
                return Workload { resource: intern(resource), name: intern(name) };
            }
        }
    }
    let plural = format!("{}s", owner.kind.to_lowercase());
    let resource = if group.is_empty() { plural } else { format!("{plural}.{group}") };
    Workload { resource: intern(&resource), name: intern(&owner.name) }
}

/// Returns the fingerprint of the message of a condition.
pub fn message_fingerprint(message: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    message.hash(&mut hasher);
    hasher.finish()
}

impl ReplicaSetView {
    /// Returns the view of a ReplicaSet.
    pub fn of(replica_set: &PartialObjectMeta<ReplicaSet>) -> Option<Self> {
        let meta = &replica_set.metadata;
        let deployment = controller(meta).filter(|owner| owner.kind == "Deployment");
        let revision = meta.annotations.as_ref().and_then(|all| all.get(REVISION));
        Some(Self {
            uid: Uid::from(meta.uid.as_deref()?),
            name: intern(meta.name.as_deref()?),
            deployment: deployment.map(|owner| (intern(owner.name.as_str()), Uid::from(owner.uid.as_str()))),
            revision: revision.and_then(|text| text.parse().ok()).unwrap_or(0),
        })
    }
}
