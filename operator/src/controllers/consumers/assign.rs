//! Assignment: W2 (the lock), W3 (the credentials), W4 (the commit). Each step follows from the objects that exist, so
//! a restart after any of them continues with the next one.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::Resource;
use serde_json::json;
use vpn_types::{
    FINALIZER, MaskConsumer, MaskConsumerPhase, MaskProvider, MaskReservation, MaskReservationSpec, OWNER_LABEL,
    RESERVATION_ANNOTATION, Reason, SOURCE_HASH_ANNOTATION, reservation_name, secret_name,
};

use super::{
    context::{ConsumerContext, event, reservations},
    waiting, withdraw,
};
use crate::{
    allocator::Grant,
    controllers::{ready::ReadyCondition, status},
    model::{Backoff, Kind, NewObject, ObjectKey, Operation, Step, Uid},
    state::{
        Assigned, ClusterState, ConsumerView, CopyView, CredentialsState, CredentialsView, ProviderView,
        ReservationView,
    },
};

/// Returns the next step for a consumer that is not committed to a slot.
pub fn decide(ctx: &mut ConsumerContext<'_>, consumer: &ConsumerView) -> Step {
    let state = ctx.state;
    if let Some(reservation) = choose_reservation(state, consumer) {
        ctx.leave_queue(consumer);
        return adopt(ctx, consumer, reservation);
    }
    if let Some(memory) = ctx.existing_memory(consumer) {
        memory.withdrawing = None;
    }
    if let Some(grant) = ctx.allocator.grant(&consumer.meta.uid) {
        return Step::send(reserve(consumer, grant)).provisional();
    }
    // Removes a copy whose lock is gone: its request arrived late.
    withdraw::remove_copy(state, consumer, |_| true).or_else(|| waiting::decide(ctx, consumer))
}

/// Chooses among several reservations, as two operators may each have created one: the one that a copied Secret already
/// names, else the first by age and name. All operators choose alike, and the commit settles it.
fn choose_reservation<'a>(state: &'a ClusterState, consumer: &'a ConsumerView) -> Option<&'a ReservationView> {
    let named = |reservation: &ReservationView| {
        let mut copies = state.copies_of(&consumer.meta.uid);
        copies.any(|copy| copy.reservation.as_ref() == Some(&reservation.meta.uid))
    };
    reservations(state, consumer).min_by_key(|reservation| {
        (reservation.meta.deleting, !named(reservation), reservation.meta.created, reservation.meta.key.clone())
    })
}

fn adopt(ctx: &mut ConsumerContext<'_>, consumer: &ConsumerView, reservation: &ReservationView) -> Step {
    let state = ctx.state;
    let uid = &reservation.meta.uid;
    // Once the status names it as withdrawn (another operator may have written that), it can no longer be committed.
    let is_fenced = consumer.withdrawn.as_ref() == Some(uid);
    let is_withdrawing =
        is_fenced || ctx.existing_memory(consumer).is_some_and(|memory| memory.withdrawing.as_ref() == Some(uid));
    let is_lock_valid = !reservation.meta.deleting && reservation.meta.finalizer.is_some();
    let Some((provider, slot)) = usable_provider(state, reservation).filter(|_| is_lock_valid && !is_withdrawing)
    else {
        return withdraw::decide(ctx, consumer, reservation);
    };
    let credentials = state.slot_credentials(provider, slot);
    let source = match &credentials {
        CredentialsState::Present(source) => source,
        CredentialsState::Unknown | CredentialsState::Unreadable(_) => return Step::Idle,
        CredentialsState::Missing => return withdraw::decide(ctx, consumer, reservation),
    };
    let key = copy_key(consumer, provider);
    let known = state.copies.get(&key).cloned();
    match known.or_else(|| ctx.conflicting_secret(consumer)) {
        None => Step::send(copy_credentials(consumer, reservation, provider, source, key)).provisional(),
        Some(copy) if copy.consumer_uid.as_ref() == Some(&consumer.meta.uid) && !copy.meta.deleting => {
            if is_current(&copy, reservation, source) {
                return commit(ctx, consumer, reservation, provider, slot, &key.name);
            }
            // Another operator made it for another lock: once that is fenced, it cannot be committed with this data.
            let other = copy.reservation.as_ref().filter(|other| *other != uid);
            let message = || "Another operator has assigned a slot too; one assignment is being undone".to_owned();
            other
                .map_or(Step::Idle, |other| withdraw::fence(ctx, consumer, other, message()))
                .or_else(|| Step::send(refresh_copy(&copy, Some(reservation), provider, source)).provisional())
        }
        Some(_) => {
            let message = format!(
                "Secret {} already exists and does not belong to this MaskConsumer; delete or rename it",
                key.name
            );
            let backoff = Backoff::after(ctx.backoff.as_ref(), Reason::SecretNameTaken, message, ctx.now);
            *ctx.backoff = Some(backoff.without_gate());
            let memory = ctx.memory(consumer);
            memory.conflicting_secret = None;
            memory.withdrawing = Some(uid.clone());
            withdraw::decide(ctx, consumer, reservation)
        }
    }
}

/// Returns the provider and the slot of a reservation if the slot can still be assigned.
fn usable_provider<'a>(state: &'a ClusterState, reservation: &ReservationView) -> Option<(&'a ProviderView, u32)> {
    let (_, slot) = reservation.slot.as_ref()?;
    let provider = state.providers.get(&reservation.provider()?)?;
    let same = reservation.provider_uid.as_ref() == Some(&provider.meta.uid);
    (same && !provider.meta.deleting && *slot < provider.max_slots).then_some((provider, *slot))
}

/// Returns the key of the Secret with a consumer's copy of a provider's credentials.
pub fn copy_key(consumer: &ConsumerView, provider: &ProviderView) -> ObjectKey {
    let name = copy_name(consumer, &provider.meta.uid);
    ObjectKey { namespace: consumer.meta.key.namespace.clone(), name }
}

/// Returns the name of the Secret with a consumer's copy of the credentials of the provider with that UID.
pub fn copy_name(consumer: &ConsumerView, provider: &Uid) -> Arc<str> {
    match &consumer.secret_name {
        Some(name) => name.clone(),
        None => Arc::from(secret_name(&consumer.meta.key.name, provider.as_str())),
    }
}

/// Whether a copy is up to date.
pub fn is_current(copy: &CopyView, reservation: &ReservationView, source: &CredentialsView) -> bool {
    copy.labeled
        && copy.reservation.as_ref() == Some(&reservation.meta.uid)
        && copy.source_hash.as_ref() == Some(&source.hash)
}

/// W2: creates the lock. Its name is unique, so the slot is taken only once.
pub fn reserve(consumer: &ConsumerView, grant: &Grant) -> Operation {
    let name = reservation_name(&grant.provider.name, grant.slot as usize);
    let mut reservation = MaskReservation::new(
        &name,
        MaskReservationSpec {
            name: consumer.meta.key.name.to_string(),
            namespace: consumer.meta.key.namespace.to_string(),
            uid: consumer.meta.uid.to_string(),
        },
    );
    reservation.metadata.namespace = Some(grant.provider.namespace.to_string());
    reservation.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    reservation.metadata.labels = Some([(OWNER_LABEL.to_owned(), grant.provider_uid.to_string())].into());
    reservation.metadata.owner_references = Some(vec![OwnerReference {
        api_version: MaskProvider::api_version(&()).into_owned(),
        kind: MaskProvider::kind(&()).into_owned(),
        name: grant.provider.name.to_string(),
        uid: grant.provider_uid.to_string(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }]);
    let key = ObjectKey { namespace: grant.provider.namespace.clone(), name: Arc::from(name) };
    Operation::Create(key, NewObject::Reservation(Box::new(reservation)))
}

/// W3: creates the copy of the credentials, owned by the consumer. The annotations name the lock and the hash of the
/// source data.
pub fn copy_credentials(
    consumer: &ConsumerView,
    reservation: &ReservationView,
    provider: &ProviderView,
    source: &CredentialsView,
    key: ObjectKey,
) -> Operation {
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(key.name.to_string()),
            namespace: Some(key.namespace.to_string()),
            labels: Some([(OWNER_LABEL.to_owned(), provider.meta.uid.to_string())].into()),
            annotations: Some(
                [
                    (RESERVATION_ANNOTATION.to_owned(), reservation.meta.uid.to_string()),
                    (SOURCE_HASH_ANNOTATION.to_owned(), source.hash.to_string()),
                ]
                .into(),
            ),
            owner_references: Some(vec![OwnerReference {
                api_version: MaskConsumer::api_version(&()).into_owned(),
                kind: MaskConsumer::kind(&()).into_owned(),
                name: consumer.meta.key.name.to_string(),
                uid: consumer.meta.uid.to_string(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        data: Some((*source.data).clone()),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    };
    Operation::Create(key, NewObject::Secret(Box::new(secret)))
}

/// Updates a copy: data, label and, if it names another lock, the annotation.
pub fn refresh_copy(
    copy: &CopyView,
    reservation: Option<&ReservationView>,
    provider: &ProviderView,
    source: &CredentialsView,
) -> Operation {
    let mut annotations = vec![(SOURCE_HASH_ANNOTATION, &*source.hash)];
    if let Some(reservation) = reservation {
        annotations.push((RESERVATION_ANNOTATION, reservation.meta.uid.as_str()));
    }
    let mut patch = vec![
        json!({"op": "test", "path": "/metadata/uid", "value": copy.meta.uid.as_str()}),
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": copy.meta.version.to_string()}),
        // `add` replaces `data` as a whole: keys that the source no longer has must go.
        json!({"op": "add", "path": "/data", "value": &*source.data}),
    ];
    let annotated = copy.reservation.is_some() || copy.source_hash.is_some();
    patch.extend(set_entries("/metadata/annotations", annotated, &annotations));
    patch.extend(set_entries("/metadata/labels", copy.labeled, &[(OWNER_LABEL, provider.meta.uid.as_str())]));
    let patch = serde_json::Value::Array(patch);
    Operation::JsonPatch(Kind::Secret, copy.meta.key.clone(), patch)
}

/// Returns the JSON patch operations that set entries of a map of strings, which exists or is created.
fn set_entries(path: &str, exists: bool, entries: &[(&str, &str)]) -> Vec<serde_json::Value> {
    if !exists {
        let map: serde_json::Map<_, _> = entries.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        return vec![json!({"op": "add", "path": path, "value": map})];
    }
    let pointer = |key: &str| format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
    entries.iter().map(|(key, value)| json!({"op": "add", "path": pointer(key), "value": value})).collect()
}

/// W4: commits the assignment, guarded by the consumer's resourceVersion.
fn commit(
    ctx: &ConsumerContext<'_>,
    consumer: &ConsumerView,
    reservation: &ReservationView,
    provider: &ProviderView,
    slot: u32,
    secret: &Arc<str>,
) -> Step {
    let assigned = Assigned {
        provider: provider.meta.key.clone(),
        provider_uid: provider.meta.uid.clone(),
        slot,
        reservation: reservation.meta.uid.clone(),
        secret: secret.clone(),
    };
    let condition = active_condition(&assigned);
    let patch = status::consumer(&consumer.meta, &consumer.status, &condition, Some(&assigned), ctx.now.wall);
    let Some(patch) = patch else { return Step::Idle };
    let message = format!("{}, with the credentials in Secret {secret}", condition.message);
    Step::send(Operation::PatchStatus(Kind::Consumer, consumer.meta.key.clone(), patch)).with_event(Some(event(
        consumer,
        false,
        Reason::Assigned,
        "Assign",
        message,
    )))
}

/// Returns the condition of an assigned consumer.
pub fn active_condition(assigned: &Assigned) -> ReadyCondition<MaskConsumerPhase> {
    let message = format!("Assigned slot {} of MaskProvider {}", assigned.slot, assigned.provider);
    ReadyCondition::ready(MaskConsumerPhase::Active, Reason::Assigned, message)
}
