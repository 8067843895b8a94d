//! Changes that affect servers and their clients.

use crate::{
    controllers::{Change, Context},
    model::{ObjectKey, ReconcileRequest, Uid},
    state::{ClientView, SecretRole, StoreChange},
};

/// Observes a change.
pub fn observe(ctx: &mut Context, change: &Change<'_>) {
    let change = match change {
        Change::Store(change) => change,
        Change::Keystore(server) => return enqueue_existing(ctx, server),
        Change::ConnectedClients { server, uid, count } => return connected(ctx, server, uid, *count),
        _ => return,
    };
    match change {
        StoreChange::Server(change) => {
            let now = ctx.state.servers.get(&change.key).cloned();
            if let Some(before) = &change.before
                && now.as_ref().is_none_or(|now| now.meta.uid != before.meta.uid)
            {
                ctx.memory.servers.reported.remove(&before.meta.uid);
                ctx.memory.servers.counted.remove(&before.meta.uid);
                ctx.memory.servers.connected.remove(&before.meta.uid);
                ctx.memory.servers.applied.remove(&before.meta.uid);
                ctx.forget(ReconcileRequest::Server(change.key.clone()));
            }
            let has_changed = match (&change.before, now) {
                (Some(before), Some(now)) => {
                    before.meta.generation != now.meta.generation
                        || before.authority_generation != now.authority_generation
                        || before.endpoint != now.endpoint
                        || before.meta.deleting != now.meta.deleting
                }
                _ => true,
            };
            enqueue_server(ctx, &change.key);
            if has_changed {
                enqueue_clients(ctx, &change.key);
            }
        }
        StoreChange::Client(change) => {
            let now = ctx.state.clients.get(&change.key).cloned();
            if let Some(before) = &change.before
                && now.as_ref().is_none_or(|now| now.meta.uid != before.meta.uid)
            {
                ctx.memory.servers.recorded.remove(&before.meta.uid);
                ctx.forget(ReconcileRequest::Client(change.key.clone()));
            }
            let server = |client: &ClientView| ObjectKey::new(&*client.meta.key.namespace, &client.spec.server);
            // A client waits for an older one with its common name or its address.
            let clients = change.before.iter().chain(&now);
            let alike: Vec<_> = clients
                .flat_map(|client| ctx.state.clients_like(client).chain(ctx.state.clients_at_address_of(client)))
                .map(|client| client.meta.key.clone())
                .collect();
            for key in alike.into_iter().filter(|key| *key != change.key) {
                ctx.enqueue(ReconcileRequest::Client(key));
            }
            let server = now.as_ref().or(change.before.as_ref()).map(server);
            ctx.enqueue(ReconcileRequest::Client(change.key.clone()));
            server.into_iter().for_each(|server| enqueue_server(ctx, &server));
            if now.is_none() {
                enqueue_namespace(ctx, &change.key.namespace);
            }
        }
        StoreChange::ServerSecret(change) => {
            let now = ctx.state.server_secrets.get(&change.key);
            let is_gone = now.is_none();
            let server = now.or(change.before.as_ref()).and_then(|secret| secret.server.clone());
            let role = now.or(change.before.as_ref()).and_then(|secret| secret.role);
            if ctx.state.clients.get(&change.key).is_some() {
                ctx.enqueue(ReconcileRequest::Client(change.key.clone()));
            }
            let Some(server) = server else { return };
            let server = ObjectKey { namespace: change.key.namespace.clone(), name: server };
            enqueue_server(ctx, &server);
            if is_gone {
                enqueue_namespace(ctx, &change.key.namespace);
            }
            // The certificate authority, or the files of revoked certificates. A client may have such a name too.
            if !matches!(role, Some(SecretRole::Client)) {
                enqueue_clients(ctx, &server);
            }
        }
        StoreChange::ServerObject(change) => enqueue_namespace(ctx, &change.key.namespace),
        StoreChange::ServerPod(change) => {
            let now = ctx.state.server_pods.get(&change.key);
            let server = now.or(change.before.as_ref()).and_then(|pod| pod.server.clone());
            let Some(name) = server else { return };
            enqueue_server(ctx, &ObjectKey { namespace: change.key.namespace.clone(), name });
        }
        StoreChange::Provider(change) => enqueue_existing(ctx, &change.key),
        StoreChange::Reservation(change) => {
            let now = ctx.state.reservations.get(&change.key);
            let providers: Vec<_> = change.before.iter().chain(now).filter_map(|view| view.provider()).collect();
            providers.iter().for_each(|provider| enqueue_existing(ctx, provider));
        }
        _ => {}
    }
}

/// Enqueues the servers of a namespace, which are few: what changed may have a name that one of them needs.
fn enqueue_namespace(ctx: &mut Context, namespace: &str) {
    let keys: Vec<_> = ctx.state.servers.values().map(|server| server.meta.key.clone()).collect();
    for key in keys.iter().filter(|key| *key.namespace == *namespace) {
        enqueue_server(ctx, key);
    }
}

/// A MaskProvider has the name of its server. Most have none.
fn enqueue_existing(ctx: &mut Context, key: &ObjectKey) {
    if ctx.state.servers.get(key).is_some() {
        enqueue_server(ctx, key);
    }
}

fn enqueue_server(ctx: &mut Context, key: &ObjectKey) {
    ctx.enqueue(ReconcileRequest::Server(key.clone()));
}

fn enqueue_clients(ctx: &mut Context, server: &ObjectKey) {
    let keys: Vec<_> = ctx.state.clients_of(server).map(|client| client.meta.key.clone()).collect();
    for key in keys {
        ctx.enqueue(ReconcileRequest::Client(key));
    }
}

/// Notes how many clients are connected to a server.
fn connected(ctx: &mut Context, server: &ObjectKey, uid: &Uid, count: u64) {
    let is_current = ctx.state.servers.get(server).is_some_and(|server| server.meta.uid == *uid);
    if is_current && ctx.memory.servers.connected.insert(uid.clone(), count) != Some(count) {
        enqueue_server(ctx, server);
    }
}
