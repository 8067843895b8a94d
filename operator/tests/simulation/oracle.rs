//! Checks the invariants against running containers and stored objects.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use vpn_operator::model::{Kind, ObjectKey, Operation};
use vpn_types::{FINALIZER, OWNER_LABEL, SERVER_LABEL, SERVER_SECRET_LABEL, VERIFY_LABEL};

use crate::{
    metadata::{finalizers, generation, is_deleting, owners, uid_of},
    pods,
    run::Sim,
    server::{Event, FOREGROUND, Server},
    slots,
};

type CheckResult = Result<(), String>;

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Holds after every step.
pub fn always(sim: &Sim) -> CheckResult {
    capacity(sim)?;
    slots::always(sim)?;
    pods::always(sim)?;
    for (key, consumer) in sim.server.of_kind(Kind::Consumer) {
        let lock = text(consumer, "/status/provider/reservation");
        if !lock.is_empty() && sim.server.by_uid(lock).is_none() && !sim.forced.iter().any(|uid| uid == lock) {
            return Err(format!("I3: consumer {key} is committed to reservation {lock}, which does not exist"));
        }
    }
    Ok(())
}

/// I1.
fn capacity(sim: &Sim) -> CheckResult {
    for (key, provider) in sim.server.of_kind(Kind::Provider) {
        let uid = uid_of(provider);
        let sessions = sim.nodes.sessions.values().filter(|session| session.provider == uid);
        let users: BTreeSet<_> = sessions.map(|session| &session.consumer).collect();
        let observed = provider.pointer("/status/observedGeneration").and_then(Value::as_i64);
        let limit = observed.and_then(|generation| sim.server.slots_by_generation.get(&(uid.to_owned(), generation)));
        let limit = limit.copied().unwrap_or(0);
        if users.len() as u64 > limit {
            return Err(format!("I1: {} consumers use {key} which allows {limit}: {users:?}", users.len()));
        }
    }
    Ok(())
}

/// Whether the operator may delete the object (I6, I8), checked before the request takes effect.
pub fn allowed(sim: &Sim, operation: &Operation, before: Option<&Value>) -> CheckResult {
    let (Operation::Delete { kind, key, .. }, Some(before)) = (operation, before) else { return Ok(()) };
    let fine = match kind {
        Kind::Consumer => is_deleting(before) || may_evict(sim, before),
        Kind::Reservation => true,
        // A user may have removed the label.
        Kind::Secret => {
            before["metadata"]["labels"].get(OWNER_LABEL).is_some()
                || before["metadata"]["ownerReferences"][0]["kind"] == "MaskConsumer"
        }
        // Since the decision, the garbage collector may have removed the reference, and another operator may have
        // completed the release.
        Kind::Pod | Kind::InjectedPod if pods::lost_slot(sim, before) => true,
        Kind::Pod | Kind::InjectedPod => {
            sim.server.log.iter().filter(|event| uid_of(&event.last) == uid_of(before)).any(|event| {
                let is_consumer =
                    |uid: &str| sim.server.log.iter().any(|one| one.kind == Kind::Consumer && uid_of(&one.last) == uid);
                owners(&event.last).into_iter().any(|(uid, _)| {
                    is_consumer(&uid) && sim.server.by_uid(&uid).is_none_or(|(_, consumer)| is_deleting(consumer))
                })
            })
        }
        Kind::Mask => before["metadata"]["labels"].get(VERIFY_LABEL).is_some() || pods::may_go(sim, before),
        // Of an OpenVPNServer.
        Kind::Provider | Kind::Client => before["metadata"]["labels"].get(SERVER_LABEL).is_some(),
        Kind::ServerSecret => before["metadata"]["labels"].get(SERVER_SECRET_LABEL).is_some(),
        _ => false,
    };
    if fine { Ok(()) } else { Err(format!("I6/I8: no reason to delete {} {key}", kind.as_str())) }
}

fn may_evict(sim: &Sim, consumer: &Value) -> bool {
    let orphaned = owners(consumer).is_empty() && consumer["spec"].get("mask").is_some();
    // A change of the propagation policy of a foreground deletion may come too late.
    let in_foreground = |uid: &str| {
        let mut log = sim.server.log.iter().filter(|event| uid_of(&event.last) == uid);
        log.any(|event| is_deleting(&event.last) && finalizers(&event.last).iter().any(|name| name == FOREGROUND))
    };
    let mask_gone = owners(consumer).iter().any(|(uid, _)| sim.server.by_uid(uid).is_none() || in_foreground(uid));
    let name = ObjectKey::new(text(consumer, "/status/provider/namespace"), text(consumer, "/status/provider/name"));
    let slot = consumer.pointer("/status/provider/slot").and_then(Value::as_u64);
    let uid = text(consumer, "/status/provider/uid");
    let lowered = sim.server.slots_by_generation.iter().any(|((u, _), slots)| *u == uid && slot >= Some(*slots));
    let provider_gone = match sim.server.get(Kind::Provider, &name) {
        None => true,
        Some(provider) => is_deleting(provider) || uid_of(provider) != uid,
    };
    let forced = sim.forced.iter().any(|uid| *uid == text(consumer, "/status/provider/reservation"));
    // The decision may be older than the present state, but not older than the slot of the consumer.
    let log = &sim.server.log;
    let is_assigned =
        |event: &Event| uid_of(&event.last) == uid_of(consumer) && text(&event.last, "/status/phase") == "Active";
    let assigned = log.iter().position(is_assigned).unwrap_or(log.len());
    let is_of_provider = |event: &&Event| uid_of(&event.last) == uid;
    let at_assignment = log[..assigned].iter().rfind(is_of_provider);
    let failed = at_assignment.into_iter().chain(log[assigned..].iter().filter(is_of_provider)).any(|event| {
        let is_failed = text(&event.last, "/status/phase") == "ErrVerifyFailed";
        is_failed && text(&event.last, "/spec/verify/onFailure") == "Release"
    });
    orphaned || mask_gone || (slot.is_some() && (lowered || provider_gone || forced || failed))
}

/// I6: finalizers, owner references and labels of others stay unchanged.
pub fn preserves_foreign_fields(server: &Server, operation: &Operation, before: Option<&Value>) -> CheckResult {
    let (Some((kind, key)), Some(before)) = (operation.target(), before) else { return Ok(()) };
    let last = server.log.last().map(|event| &event.last).filter(|last| uid_of(last) == uid_of(before));
    let Some(after) = server.get(kind, key).or(last) else { return Ok(()) };
    if matches!(operation, Operation::Get(..) | Operation::Delete { .. } | Operation::Create(..)) {
        return Ok(());
    }
    let foreign = |value: &Value| finalizers(value).into_iter().filter(|name| name != FINALIZER).collect::<Vec<_>>();
    let labels = |value: &Value| {
        let mut labels = value["metadata"]["labels"].as_object().cloned().unwrap_or_default();
        labels.remove(OWNER_LABEL);
        labels
    };
    if foreign(before) != foreign(after) || owners(before) != owners(after) || labels(before) != labels(after) {
        return Err(format!("I6: {} {key}: {before} became {after}", kind.as_str()));
    }
    Ok(())
}

/// Holds at rest, when nothing blocks a deletion.
pub fn at_rest(sim: &Sim) -> CheckResult {
    slots::at_rest(sim)?;
    pods::at_rest(sim)?;
    let server = &sim.server;
    let mut taken = Taken::new();
    for (key, reservation) in server.of_kind(Kind::Reservation) {
        let holder = server.by_uid(text(reservation, "/spec/uid"));
        let lock = holder.map(|(_, consumer)| text(consumer, "/status/provider/reservation"));
        if lock != Some(uid_of(reservation)) {
            return Err(format!("I4: reservation {key} has no consumer: {reservation}"));
        }
        if text(reservation, "/status/phase") != "Active" {
            return Err(format!("reservation {key} is not shown as Active: {reservation}"));
        }
        let (name, slot) = vpn_types::parse_reservation_name(&key.name).unwrap();
        taken.entry(ObjectKey::new(key.namespace.clone(), name)).or_default().insert(slot);
    }
    for (key, secret) in server.of_kind(Kind::Secret) {
        if secret["metadata"]["labels"].get(OWNER_LABEL).is_some() {
            let holder = owners(secret).into_iter().find_map(|(uid, _)| server.by_uid(&uid));
            if holder.map(|(_, consumer)| text(consumer, "/status/provider/secret")) != Some(&*key.name) {
                return Err(format!("I4: Secret {key} is leaked: {secret}"));
            }
        }
    }
    for (key, provider) in server.of_kind(Kind::Provider) {
        let used = taken.get(key).map_or(0, BTreeSet::len) as u64;
        if provider.pointer("/status/activeSlots").and_then(Value::as_u64).unwrap_or(0) != used {
            return Err(format!("provider {key} does not show {used} slots in use: {provider}"));
        }
        if is_deleting(provider) {
            return Err(format!("I4: provider {key} is still there: {provider}"));
        }
        let source = ObjectKey::new(key.namespace.clone(), text(provider, "/spec/secret"));
        if server.get(Kind::Secret, &source).is_some()
            && provider.pointer("/status/observedGeneration").and_then(Value::as_i64) != Some(generation(provider))
        {
            return Err(format!("provider {key} is not current: {provider}"));
        }
    }
    for (key, mask) in server.of_kind(Kind::Mask) {
        follows(sim, key, mask)?;
    }
    for (key, consumer) in server.of_kind(Kind::Consumer) {
        if is_deleting(consumer) {
            return Err(format!("I4: consumer {key} is still there: {consumer}"));
        }
        served(sim, key, consumer, &taken)?;
    }
    Ok(())
}

/// Checks that the status of a Mask follows that of its consumer.
fn follows(sim: &Sim, key: &ObjectKey, mask: &Value) -> CheckResult {
    if is_deleting(mask) {
        return Err(format!("Mask {key} is still there: {mask}"));
    }
    let Some(consumer) = sim.server.get(Kind::Consumer, key) else {
        return Err(format!("I5: Mask {key} has no consumer: {mask}"));
    };
    if !owners(consumer).iter().any(|(uid, _)| uid == uid_of(mask)) {
        // A user created it with the same name. The operator reports it, and does not change it.
        let is_reported = consumer["spec"].get("mask").is_none() && text(mask, "/status/phase") == "Waiting";
        return if is_reported { Ok(()) } else { Err(format!("Mask {key} has another's consumer: {mask} {consumer}")) };
    }
    for field in ["phase", "provider"] {
        if mask["status"][field] != consumer["status"][field] {
            return Err(format!("Mask {key} does not follow its consumer: {mask} {consumer}"));
        }
    }
    Ok(())
}

/// The slots that are taken, by provider.
type Taken = BTreeMap<ObjectKey, BTreeSet<usize>>;

/// Returns the expected credentials of a slot.
fn credentials(server: &Server, namespace: &str, provider: &Value, slot: usize) -> Option<Value> {
    let secret = |name: &str| server.get(Kind::Secret, &ObjectKey::new(namespace, name));
    let mut data = secret(text(provider, "/spec/secret"))?["data"].clone();
    let own = text(provider, &format!("/spec/slots/{slot}/secret"));
    if !own.is_empty() {
        for (name, value) in secret(own)?["data"].as_object()? {
            data[name] = value.clone();
        }
    }
    Some(data)
}

/// Checks I5, and the Secret of an assigned consumer.
fn served(sim: &Sim, key: &ObjectKey, consumer: &Value, taken: &Taken) -> CheckResult {
    let server = &sim.server;
    let phase = text(consumer, "/status/phase");
    if phase == "Active" {
        let secret = ObjectKey::new(key.namespace.clone(), text(consumer, "/status/provider/secret"));
        let name =
            ObjectKey::new(text(consumer, "/status/provider/namespace"), text(consumer, "/status/provider/name"));
        let slot = consumer.pointer("/status/provider/slot").and_then(Value::as_u64).unwrap_or(0);
        let provider = server.get(Kind::Provider, &name);
        let data = provider.and_then(|provider| credentials(server, &name.namespace, provider, slot as usize));
        return match (server.get(Kind::Secret, &secret), data) {
            (None, Some(_)) => Err(format!("consumer {key} has no Secret")),
            (Some(copy), Some(data)) if copy["data"] != data => {
                Err(format!("the copy of consumer {key} is out of date"))
            }
            _ => Ok(()),
        };
    }
    let wanted = consumer["spec"]["providers"].as_array();
    let mut usable = false;
    for (name, provider) in server.of_kind(Kind::Provider) {
        let contains = |pointer: &str, value: &Value| {
            provider.pointer(pointer).and_then(Value::as_array).is_some_and(|all| all.contains(value))
        };
        let fits = wanted.is_none_or(|tags| tags.iter().any(|tag| contains("/spec/tags", tag)))
            && (provider["spec"].get("namespaces").is_none()
                || contains("/spec/namespaces", &Value::from(&*key.namespace)));
        let verifies = consumer["metadata"]["labels"].get(VERIFY_LABEL);
        let fits = verifies.map_or(fits, |uid| uid == uid_of(provider));
        // Masks of users wait for the verification, which waits for a slot.
        if verifies.is_none() && text(provider, "/status/phase") == "Verifying" {
            continue;
        }
        let slots = provider["spec"]["maxSlots"].as_u64().unwrap_or(0) as usize;
        let mut good =
            (0..slots).filter(|slot| credentials(server, &name.namespace, provider, *slot).is_some()).peekable();
        if fits && good.peek().is_some() {
            usable = true;
            let is_taken = |slot: &usize| taken.get(name).is_some_and(|taken| taken.contains(slot));
            if !good.all(|slot| is_taken(&slot)) {
                return Err(format!("I5: consumer {key} waits while {name} has a free slot: {consumer}"));
            }
        }
    }
    let expected = if usable { "Waiting" } else { "ErrNoProviders" };
    // It is not always known here whether a provider was ever usable.
    if phase != expected && (usable || phase != "Waiting") {
        return Err(format!("consumer {key} should be {expected}: {consumer}"));
    }
    Ok(())
}
