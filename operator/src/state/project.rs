//! Projects objects of the API server to views.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use chrono::DateTime;
use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, OwnerReference},
};
use kube::core::PartialObjectMeta;
use serde::Serialize;
use serde_json::Value;
use vpn_types::{
    FINALIZER, Mask, MaskConsumer, MaskReservation, OWNER_LABEL, READY, RESERVATION_ANNOTATION, SOURCE_HASH_ANNOTATION,
    SlotPod, VERIFIES_ANNOTATION, VERIFY_LABEL, parse_reservation_name, verify_name,
};

use super::views::*;
use crate::model::{Meta, ObjectKey, Uid, intern};

/// An object that has a view.
pub trait Project: Sized {
    /// The type of the view.
    type View;
    /// Returns the view, or `None` if the object has no name, UID or resourceVersion.
    fn project(&self) -> Option<Self::View>;
}

fn slot_pod(pod: Option<&SlotPod>) -> Option<Box<SlotPodView>> {
    pod.map(|pod| Box::new(SlotPodView { name: intern(pod.name.as_str()), uid: Uid::from(pod.uid.as_str()) }))
}

/// The finalizers of the operator and of the garbage collector.
const KNOWN_FINALIZERS: [&str; 3] = [FINALIZER, "foregroundDeletion", "orphan"];

/// Projects the metadata of any kind.
pub fn meta(meta: &ObjectMeta) -> Option<Meta> {
    let finalizers = meta.finalizers.as_deref().unwrap_or_default();
    let position = finalizers.iter().position(|finalizer| finalizer == FINALIZER);
    let created = meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    Some(Meta {
        key: ObjectKey::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref()?),
        uid: Uid::from(meta.uid.as_deref()?),
        version: meta.resource_version.as_deref()?.parse().ok()?,
        generation: meta.generation.unwrap_or(0),
        created: DateTime::from_timestamp(created, 0).unwrap_or_default(),
        deleting: meta.deletion_timestamp.is_some(),
        finalizer: position.and_then(|position| u16::try_from(position).ok()),
        finalizers: u16::try_from(finalizers.len()).unwrap_or(u16::MAX),
        foreground: finalizers.iter().any(|finalizer| finalizer == "foregroundDeletion"),
        foreign: finalizers.iter().any(|finalizer| !KNOWN_FINALIZERS.contains(&&**finalizer)),
    })
}

fn labels(meta: &ObjectMeta) -> Box<[(Arc<str>, Arc<str>)]> {
    meta.labels.iter().flatten().map(|(key, value)| (intern(key), intern(value))).collect()
}

fn tags(tags: Option<&Vec<String>>) -> Option<Tags> {
    // Keep an empty list: no provider matches it, as in 1.0.1.
    tags.map(|tags| tags.iter().map(|tag| intern(tag.as_str())).collect())
}

fn owner_of(meta: &ObjectMeta, kind: &str) -> impl Iterator<Item = Uid> {
    let owners = meta.owner_references.as_deref().unwrap_or_default().iter();
    owners.filter(move |owner| is_ours(owner, kind)).map(|owner| Uid::from(owner.uid.as_str()))
}

fn is_ours(owner: &OwnerReference, kind: &str) -> bool {
    owner.kind == kind && owner.api_version.split('/').next() == Some(vpn_types::GROUP)
}

/// Fields of a status that are timestamps, or that are not written together with the rest.
const APART: [&str; 9] = [
    "lastUpdated",
    "lastVerified",
    "users",
    "holdUntil",
    "withdrawnReservation",
    "assignmentGeneration",
    "pod",
    "issued",
    "issues",
];

/// Returns the fingerprint of a status: everything that its main writer writes, except timestamps.
pub fn fingerprint(status: &impl Serialize) -> u64 {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        fields.retain(|name, value| !value.is_null() && !APART.contains(&name.as_str()));
        for condition in fields.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Value::Object(fields) = condition {
                fields.remove("lastTransitionTime");
            }
        }
    }
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    hasher.finish()
}

fn status<P: Copy, S: Serialize>(
    status: Option<&S>,
    phase: Option<P>,
    conditions: Option<&Vec<Condition>>,
    observed_generation: Option<i64>,
) -> StatusView<P> {
    let ready = conditions.into_iter().flatten().find(|condition| condition.type_ == READY);
    StatusView {
        phase,
        fingerprint: status.map_or(0, fingerprint),
        ready: ready.map(|condition| {
            let since = DateTime::from_timestamp(condition.last_transition_time.0.as_second(), 0);
            (condition.status == "True", since.unwrap_or_default())
        }),
        observed_generation,
    }
}

macro_rules! status_of {
    ($object:expr) => {{
        let found = $object.status.as_ref();
        status(
            found,
            found.and_then(|status| status.phase),
            found.and_then(|status| status.conditions.as_ref()),
            found.and_then(|status| status.observed_generation),
        )
    }};
}

impl Project for Mask {
    type View = MaskView;
    fn project(&self) -> Option<MaskView> {
        Some(MaskView {
            meta: meta(&self.metadata)?,
            tags: tags(self.spec.providers.as_ref()),
            priority: self.spec.priority.unwrap_or(0),
            verifies: verifies(&self.metadata).map(Box::new),
            secret_name: self.spec.secret_name.as_deref().map(intern),
            pod: pod_of_mask(self).map(Box::new),
            labels: labels(&self.metadata),
            status: status_of!(self),
        })
    }
}

/// Returns the Pod that controls a Mask.
fn pod_of_mask(mask: &Mask) -> Option<PodOfMask> {
    let mut owners = mask.metadata.owner_references.iter().flatten();
    let owner =
        owners.find(|owner| owner.controller == Some(true) && owner.kind == "Pod" && owner.api_version == "v1")?;
    let conditions = mask.status.as_ref().and_then(|status| status.conditions.as_ref());
    Some(PodOfMask {
        name: intern(owner.name.as_str()),
        uid: Uid::from(owner.uid.as_str()),
        ready_condition: ready_condition(conditions).filter(|condition| !condition.ready),
    })
}

fn ready_condition(conditions: Option<&Vec<Condition>>) -> Option<ConditionView> {
    let ready = conditions.into_iter().flatten().find(|condition| condition.type_ == READY)?;
    Some(ConditionView {
        ready: ready.status == "True",
        reason: ready.reason.parse().ok()?,
        message: Arc::from(ready.message.as_str()),
    })
}

/// Any user may set the label on a Mask. It counts only if the provider owns the Mask.
fn verifies(meta: &ObjectMeta) -> Option<VerificationTarget> {
    let label = meta.labels.as_ref()?.get(VERIFY_LABEL)?;
    let owners = meta.owner_references.as_deref().unwrap_or_default().iter();
    let mut controllers = owners.filter(|owner| owner.controller == Some(true) && is_ours(owner, "MaskProvider"));
    let provider = controllers.find(|owner| owner.uid == *label)?;
    if meta.name.as_deref() != Some(&*verify_name(&provider.name)) {
        return None;
    }
    let annotation = meta.annotations.as_ref().and_then(|all| all.get(VERIFIES_ANNOTATION));
    let inputs = annotation
        .and_then(|text| text.rsplit_once(' '))
        .map(|(secret, overrides)| VerifyInputs { secret_version: Arc::from(secret), overrides: Arc::from(overrides) });
    Some(VerificationTarget { provider: Uid::from(label.as_str()), inputs })
}

impl Project for MaskConsumer {
    type View = ConsumerView;
    fn project(&self) -> Option<ConsumerView> {
        let assigned = self.status.as_ref().and_then(|status| status.provider.as_ref()).and_then(|provider| {
            Some(Box::new(Assigned {
                provider: ObjectKey::new(provider.namespace.as_str(), provider.name.as_str()),
                provider_uid: Uid::from(provider.uid.as_str()),
                slot: u32::try_from(provider.slot).ok()?,
                reservation: Uid::from(provider.reservation.as_str()),
                secret: intern(provider.secret.as_str()),
            }))
        });
        let conditions = self.status.as_ref().and_then(|status| status.conditions.as_ref());
        let verify = self.metadata.labels.as_ref().and_then(|labels| labels.get(VERIFY_LABEL));
        Some(ConsumerView {
            meta: meta(&self.metadata)?,
            owner: owner_of(&self.metadata, "Mask").next(),
            mask: self.spec.mask.as_ref().map(|mask| MaskReferenceView {
                uid: Uid::from(mask.uid.as_str()),
                created: mask.creation_timestamp,
                pod: slot_pod(mask.pod.as_ref()),
            }),
            tags: tags(self.spec.providers.as_ref()),
            priority: self.spec.priority.unwrap_or(0),
            assigned,
            status: status_of!(self),
            withdrawn: self.status.as_ref().and_then(|status| status.withdrawn_reservation.as_deref()).map(Uid::from),
            ready_condition: ready_condition(conditions),
            secret_name: self.spec.secret_name.as_deref().map(intern),
            pod: slot_pod(self.status.as_ref().and_then(|status| status.pod.as_ref())),
            verifies: verify.map(|uid| Uid::from(uid.as_str())),
        })
    }
}

impl Project for MaskReservation {
    type View = ReservationView;
    fn project(&self) -> Option<ReservationView> {
        let meta = meta(&self.metadata)?;
        let users = self.status.as_ref().and_then(|status| status.users.as_ref()).into_iter().flatten();
        Some(ReservationView {
            slot: parse_reservation_name(&meta.key.name)
                .and_then(|(provider, slot)| Some((intern(provider), u32::try_from(slot).ok()?))),
            // A backup restores the label and the finalizer, but not the owner.
            provider_uid: owner_of(&self.metadata, "MaskProvider").next().or_else(|| {
                let label = self.metadata.labels.as_ref().and_then(|labels| labels.get(OWNER_LABEL));
                label.filter(|_| meta.finalizer.is_some()).map(|uid| Uid::from(uid.as_str()))
            }),
            consumer: ObjectKey::new(self.spec.namespace.as_str(), self.spec.name.as_str()),
            consumer_uid: Uid::from(self.spec.uid.as_str()),
            users: users
                .map(|user| SlotUserView {
                    name: intern(user.name.as_str()),
                    uid: Uid::from(user.uid.as_str()),
                    node: user.node.as_deref().map(intern),
                })
                .collect(),
            hold_until: self.status.as_ref().and_then(|status| status.hold_until),
            status: status_of!(self),
            meta,
        })
    }
}

/// Returns the view of a reservation that cannot be decoded: it locks its slot, but has no consumer.
pub fn unreadable_reservation(metadata: &ObjectMeta) -> Option<ReservationView> {
    let mut unreadable = MaskReservation::new("", Default::default());
    unreadable.metadata = metadata.clone();
    unreadable.metadata.owner_references = None;
    unreadable.metadata.labels = None;
    unreadable.project()
}

fn copy(metadata: &ObjectMeta) -> Option<CopyView> {
    let annotation = |name: &str| metadata.annotations.as_ref().and_then(|all| all.get(name));
    Some(CopyView {
        meta: meta(metadata)?,
        consumer_uid: owner_of(metadata, "MaskConsumer").next(),
        reservation: annotation(RESERVATION_ANNOTATION).map(|uid| Uid::from(uid.as_str())),
        source_hash: annotation(SOURCE_HASH_ANNOTATION).map(|hash| intern(hash.as_str())),
        labeled: metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(OWNER_LABEL)),
    })
}

impl Project for PartialObjectMeta<Secret> {
    type View = CopyView;
    fn project(&self) -> Option<CopyView> {
        copy(&self.metadata)
    }
}

impl Project for Secret {
    type View = CopyView;
    fn project(&self) -> Option<CopyView> {
        copy(&self.metadata)
    }
}

/// Returns the fingerprint of credentials, which is the same in every process and version: FNV-1a, 64 bits, over keys
/// and values with their lengths. It detects changes, and is not a cryptographic hash.
pub fn source_hash(data: &BTreeMap<String, ByteString>) -> Arc<str> {
    let parts = data.iter().flat_map(|(key, value)| [key.as_bytes(), &value.0]);
    intern(&format!("{:016x}", fnv(parts)))
}

/// Returns the fingerprint of several fingerprints.
pub fn combined<'a>(parts: impl IntoIterator<Item = &'a str>) -> Arc<str> {
    intern(&format!("{:016x}", fnv(parts)))
}

fn fnv(parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        let bytes = part.as_ref();
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

/// Projects a credentials Secret.
pub fn credentials_view(secret: Secret) -> CredentialsView {
    let ObjectMeta { uid, resource_version, .. } = secret.metadata;
    let version: Arc<str> = Arc::from(format!("{}/{}", uid.unwrap_or_default(), resource_version.unwrap_or_default()));
    let data = Arc::new(secret.data.unwrap_or_default());
    CredentialsView { hash: source_hash(&data), data, data_since: version.clone(), version }
}

mod injected_pod;
pub use injected_pod::message_fingerprint;
pub mod overrides;
mod pod;
mod provider;
mod server;
#[cfg(test)]
mod tests;
pub mod verification_pod;
