//! Answers to requests of the servers controller that the stores do not handle.

use vpn_types::Reason;

use crate::{
    controllers::{Answer, Context},
    model::{Backoff, Kind, ObjectKey, Operation, ReconcileRequest, RequestPriority},
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
        (ReconcileRequest::Client(key), Operation::Issue(_), Outcome::Object(_) | Outcome::Unknown { .. }) => {
            if let Some(client) = ctx.state.clients.get(key) {
                ctx.memory.servers.recorded.remove(&client.meta.uid);
            }
        }
        (request, Operation::Get(..), Outcome::Object(object)) if is_foreign(request, object) => {
            let (reason, message) = name_taken(object.kind(), &object.meta().key);
            // Revocations have a priority of their own.
            let is_revocation = object.meta().key.name.ends_with("-revoked");
            let priority = if is_revocation { RequestPriority::Slots } else { RequestPriority::Maintenance };
            let before = ctx.backoffs.get(answer.request, priority);
            let backoff = Backoff::after(before, reason, message, ctx.now);
            ctx.backoffs.insert(answer.request, priority, backoff);
        }
        _ => {}
    }
}

/// Whether an object is none that the operator created for a server.
fn is_foreign(request: &ReconcileRequest, object: &Object) -> bool {
    match object {
        Object::ServerSecret(secret) => secret.role.is_none() || secret.server.is_none(),
        Object::ServerObject(object) => object.server.is_none(),
        Object::Provider(provider) => provider.server.is_none(),
        // The client of a slot has the name of a device.
        Object::Client(client) => matches!(request, ReconcileRequest::Server(_)) && client.owner.is_none(),
        _ => false,
    }
}

/// Returns the reason and the message when something else has the name of an object.
fn name_taken(kind: Kind, key: &ObjectKey) -> (Reason, String) {
    let kind = kind.as_str();
    let message =
        format!("{kind} {} already exists and was not created by the operator; delete or rename it", key.name);
    (Reason::NameTaken, message)
}
