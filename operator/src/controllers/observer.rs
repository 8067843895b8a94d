//! An observer: keeps the slots up to date for snapshots, and writes nothing. It reads no Secrets, so it relies on the
//! status of a MaskProvider for their state.

use super::{
    Change, Context, Controller, ControllerSet, Scope, consumers,
    controller::{keep_backoff, nothing_to_settle},
};
use crate::{
    allocator::{DeviceKeys, PoolSpec},
    model::{Kind, ObjectKey, Step},
    state::StoreChange,
};

/// Name of the observer.
pub const NAME: &str = "observer";

/// The observer. It is not in the table of controllers, because it reconciles nothing.
static OBSERVER: Controller = Controller {
    name: NAME,
    watches: &[
        (Kind::Consumer, Scope::All),
        (Kind::Reservation, Scope::All),
        (Kind::Provider, Scope::All),
        (Kind::InjectedPod, Scope::All),
    ],
    status_of: &[Kind::Consumer],
    needs_credentials: false,
    reads: &[],
    writes: &[],
    handles: |_| false,
    reconcile: |_, _| Step::Idle,
    observe,
    answered: |_, _| {},
    failed: keep_backoff,
    settle: nothing_to_settle,
};

/// Returns a set with only the observer.
pub fn only() -> ControllerSet {
    [&OBSERVER].into_iter().collect()
}

fn observe(ctx: &mut Context, change: &Change<'_>) {
    match change {
        Change::Store(StoreChange::Provider(change)) => refresh_pool(ctx, &change.key),
        change => consumers::observe(ctx, change),
    }
}

fn refresh_pool(ctx: &mut Context, key: &ObjectKey) {
    let Some(provider) = ctx.state.providers.get(key) else {
        ctx.allocator.remove_pool(key);
        return;
    };
    let spec = PoolSpec {
        uid: provider.meta.uid.clone(),
        capacity: provider.max_slots,
        withheld: Vec::new(),
        keys: DeviceKeys::default(),
        tags: provider.tags.clone(),
        namespaces: provider.namespaces.clone(),
        usable: provider.is_usable(),
        verifiable: false,
        current: provider.is_current(),
        unusable_reason: String::new(),
    };
    ctx.allocator.set_pool(key.clone(), spec);
}
