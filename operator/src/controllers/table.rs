//! The table of controllers.

use super::{Controller, ControllerSet, consumers, masks, pods, providers, reservations, servers};
use crate::model::{Kind, ReconcileRequest};

/// All controllers, in the order in which they observe changes.
pub const CONTROLLERS: [&Controller; 6] = [
    &masks::CONTROLLER,
    &consumers::CONTROLLER,
    &reservations::CONTROLLER,
    &providers::CONTROLLER,
    &pods::CONTROLLER,
    &servers::CONTROLLER,
];

/// Returns all controllers, to run in one process.
pub fn all() -> ControllerSet {
    CONTROLLERS.into_iter().collect()
}

/// Returns all controllers but those of these names.
pub fn without(names: &[&str]) -> ControllerSet {
    CONTROLLERS.into_iter().filter(|controller| !names.contains(&controller.name)).collect()
}

/// Returns the controller of that name, to run in its own process.
pub fn only(name: &str) -> ControllerSet {
    CONTROLLERS.into_iter().filter(|controller| controller.name == name).collect()
}

/// Returns the controller whose metrics count a reconcile request. A request that no controller handles, such as an
/// object to read back, counts for the controller of its kind. Secrets and Pods count for the consumers controller.
pub fn controller_of(request: &ReconcileRequest) -> &'static Controller {
    let kind = match request {
        ReconcileRequest::Read(kind, _) | ReconcileRequest::Unreadable(kind, _) => *kind,
        _ => Kind::Consumer,
    };
    // All of these belong to servers.
    let kind = match kind {
        Kind::ServerSecret
        | Kind::ConfigMap
        | Kind::Service
        | Kind::Deployment
        | Kind::PodDisruptionBudget
        | Kind::ServerPod => Kind::Server,
        other => other,
    };
    let handler = CONTROLLERS.into_iter().find(|controller| (controller.handles)(request));
    let of_kind = || CONTROLLERS.into_iter().find(|controller| controller.status_of.contains(&kind));
    handler.or_else(of_kind).unwrap_or(&consumers::CONTROLLER)
}
