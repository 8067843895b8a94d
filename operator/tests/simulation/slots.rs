//! Snapshots of slots and Masks agree with the cache and the allocator, and at rest with the stored objects.

use std::collections::BTreeMap;

use serde_json::Value;
use vpn_operator::{
    allocator::Requirements,
    controllers::consumers,
    controllers::verification::verified_by,
    engine::Engine,
    metrics::Snapshot,
    model::{Kind, ObjectKey},
    state::ConsumerView,
};

use crate::{gated, run::Sim};

type CheckResult = Result<(), String>;

fn same<T: PartialEq + std::fmt::Debug>(what: impl FnOnce() -> String, is: T, should: T) -> CheckResult {
    if is == should { Ok(()) } else { Err(format!("{}: is {is:?}, should be {should:?}", what())) }
}

/// The engines that can take snapshots.
fn engines(sim: &Sim) -> impl Iterator<Item = &Engine> {
    let all = sim.processes.iter().map(|process| &process.engine);
    all.filter(|engine| engine.controllers().has(consumers::NAME) && engine.unsynced().is_empty())
}

/// Holds after every step.
pub fn always(sim: &Sim) -> CheckResult {
    engines(sim).try_for_each(consistent)
}

fn consistent(engine: &Engine) -> CheckResult {
    let (state, allocator, snapshot) = (engine.state(), engine.allocator(), Snapshot::of(engine));
    same(|| "providers shown".to_owned(), snapshot.providers.len(), state.providers.len())?;
    for (key, slots) in &snapshot.providers {
        let pool = allocator.pool(key).ok_or_else(|| format!("no pool of {key}"))?;
        let describe = || format!("{key}: {slots:?}");
        same(describe, slots.used + slots.held, pool.slots.len() as u64)?;
        same(describe, slots.draining, pool.is_draining())?;
        // Slots whose own Secret is missing are not free.
        let withheld = state.providers.get(key).map_or(0, |provider| {
            state
                .withheld(provider)
                .filter(|(slot, ..)| state.reservations_on(key).all(|(other, _)| other != *slot))
                .count()
        });
        let free = if slots.draining { 0 } else { slots.slots - slots.used - slots.held };
        if slots.free > free || slots.free < free.saturating_sub(withheld as u64) {
            return Err(format!("{free} free, {withheld} of them withheld: {}", describe()));
        }
        same(describe, slots.open && slots.free > 0, pool.spec.usable && pool.next_free().is_some())?;
        if slots.demanded < slots.used {
            return Err(format!("less is demanded than used: {}", describe()));
        }
    }
    // Each waiting Mask that matches a provider is demanded once.
    let waiting: Vec<_> = state.consumers.values().filter(|consumer| waits(engine, consumer)).collect();
    let class = |consumer: &ConsumerView| Requirements {
        namespace: consumer.meta.key.namespace.clone(),
        tags: consumer.tags.clone(),
        verifies: verified_by(state, consumer).map(|provider| provider.meta.uid.clone()),
    };
    let fits = |consumer: &&&ConsumerView| {
        state.providers.values().any(|provider| {
            let pool = allocator.pool(&provider.meta.key);
            pool.is_some_and(|pool| pool.fits(&class(consumer)))
        })
    };
    let demanded: u64 = snapshot.providers.values().map(|slots| slots.demanded - slots.used).sum();
    same(|| format!("waiters demanded, {snapshot:?}"), demanded, waiting.iter().filter(fits).count() as u64)?;
    let waiters = snapshot.namespaces.values().map(|masks| masks.waiting).sum::<u64>();
    same(|| format!("waiters, {snapshot:?}"), waiters, waiting.len() as u64)?;
    for (tag, slots) in &snapshot.tags {
        let ask = waiting.iter().filter(|consumer| consumer.tags.as_ref().is_some_and(|tags| tags.contains(tag)));
        same(|| format!("waiters for {tag}"), slots.waiting, ask.count() as u64)?;
        let offer = snapshot.providers.values().filter(|provider| provider.open && provider.tags.contains(tag));
        same(|| format!("free for {tag}"), slots.free, offer.map(|provider| provider.free).sum())?;
    }
    gated::consistent(engine, &snapshot)
}

/// Whether a consumer has no slot, no grant, and no reservation that it could adopt.
fn waits(engine: &Engine, consumer: &ConsumerView) -> bool {
    let uid = &consumer.meta.uid;
    let has_lock = |reservation: &vpn_operator::state::ReservationView| {
        !reservation.meta.deleting && reservation.provider_uid.is_some()
    };
    !consumer.meta.deleting
        && consumer.assigned.is_none()
        && engine.allocator().grant(uid).is_none()
        && !engine.state().reservations_of(uid).any(has_lock)
}

/// Holds at rest.
pub fn at_rest(sim: &Sim) -> CheckResult {
    let server = &sim.server;
    let text = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
    let mut used: BTreeMap<ObjectKey, u64> = BTreeMap::new();
    let mut phases: BTreeMap<(String, String), u64> = BTreeMap::new();
    for (key, consumer) in server.of_kind(Kind::Consumer) {
        let provider = text(consumer, "/status/provider/name");
        if !provider.is_empty() {
            *used.entry(ObjectKey::new(text(consumer, "/status/provider/namespace"), provider)).or_default() += 1;
        }
        *phases.entry((key.namespace.to_string(), text(consumer, "/status/phase"))).or_default() += 1;
    }
    for engine in engines(sim) {
        let snapshot = Snapshot::of(engine);
        gated::at_rest(sim, &snapshot)?;
        same(|| "providers".to_owned(), snapshot.providers.len(), server.of_kind(Kind::Provider).count())?;
        for (key, slots) in &snapshot.providers {
            let describe = || format!("{key}: {slots:?}");
            same(describe, slots.used, used.get(key).copied().unwrap_or(0))?;
            same(describe, slots.held, 0)?;
        }
        for (namespace, masks) in &snapshot.namespaces {
            for phase in vpn_types::MaskConsumerPhase::ALL {
                let stored = phases.get(&(namespace.to_string(), phase.to_string())).copied().unwrap_or(0);
                same(|| format!("{phase} in {namespace}"), masks.in_phase(*phase), stored)?;
            }
        }
    }
    Ok(())
}
