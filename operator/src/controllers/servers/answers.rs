//! Answers to requests of the servers controller that the stores do not handle.

use vpn_types::Reason;

use super::{memory::Applied, obstacles::taken};
use crate::{
    controllers::{Answer, Context},
    model::{Backoff, Kind, Operation, ReconcileRequest, RequestPriority},
    state::{Object, Outcome},
};

/// Handles the outcome of a request of this controller.
pub fn answered(ctx: &mut Context, answer: &Answer<'_>) {
    match (answer.request, answer.operation, answer.outcome) {
        (ReconcileRequest::Server(key), Operation::PatchStatus(Kind::Server, ..), _) => {
            if let Some(server) = ctx.state.servers.get(key) {
                ctx.memory.servers.reported.insert(server.meta.uid.clone(), ctx.now.monotonic);
            }
        }
        (ReconcileRequest::Server(key), Operation::CountClients(..), Outcome::Clients(counts)) => {
            if let Some(server) = ctx.state.servers.get(key) {
                let counted = (server.meta.generation, counts.clone());
                ctx.memory.servers.counted.insert(server.meta.uid.clone(), counted);
            }
        }
        (ReconcileRequest::Server(server), Operation::Apply(kind, key, ..), Outcome::Object(object)) => {
            if let (Object::ServerObject(object), Some(server)) = (&**object, ctx.state.servers.get(server)) {
                let applied = Applied { content: object.content.clone(), at: ctx.now.monotonic };
                let of_server = ctx.memory.servers.applied.entry(server.meta.uid.clone()).or_default();
                of_server.insert((*kind, key.clone()), applied);
            }
        }
        // A serial number was recorded: this process issues the certificate.
        (ReconcileRequest::Client(_), Operation::PatchStatus(_, _, patch), Outcome::Object(object))
            if patch["status"].get("issues").is_some() =>
        {
            if let Object::Client(client) = &**object
                && let Some(last) = client.issued.last()
            {
                ctx.memory.servers.recorded.insert(client.meta.uid.clone(), last.serial);
            }
        }
        // A certificate may exist now, whether or not the response says so.
        (
            ReconcileRequest::Client(key),
            Operation::Issue(_),
            Outcome::Object(_) | Outcome::Undecodable { .. } | Outcome::Unknown { .. },
        ) => {
            if let Some(client) = ctx.state.clients.get(key) {
                ctx.memory.servers.recorded.remove(&client.meta.uid);
            }
        }
        (_, Operation::Get(..), Outcome::Object(object)) if is_foreign(object) => {
            let message = taken(object.kind().as_str(), &object.meta().key.name);
            // Revocations have a priority of their own.
            let is_revocation = object.meta().key.name.ends_with("-revoked");
            let priority = if is_revocation { RequestPriority::Slots } else { RequestPriority::Maintenance };
            let before = ctx.backoffs.get(answer.request, priority);
            let backoff = Backoff::after(before, Reason::NameTaken, message, ctx.now);
            ctx.backoffs.insert(answer.request, priority, backoff);
        }
        _ => {}
    }
}

/// Whether an object is none that the operator created for a server, so that no watch delivers it.
fn is_foreign(object: &Object) -> bool {
    match object {
        Object::ServerSecret(secret) => secret.role.is_none() || secret.server.is_none(),
        Object::ServerObject(object) => object.server.is_none(),
        _ => false,
    }
}
