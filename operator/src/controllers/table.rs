//! The table of controllers.

use super::{Controller, ControllerSet, consumers, masks, providers, reservations};
use crate::model::{Kind, ReconcileRequest};

/// All controllers, in the order in which they take in changes.
pub const CONTROLLERS: [&Controller; 4] =
    [&masks::CONTROLLER, &consumers::CONTROLLER, &reservations::CONTROLLER, &providers::CONTROLLER];

/// All controllers, in one process.
pub fn all() -> ControllerSet {
    CONTROLLERS.into_iter().collect()
}

/// The controller of that name, in a process of its own.
pub fn only(name: &str) -> ControllerSet {
    CONTROLLERS.into_iter().filter(|controller| controller.name == name).collect()
}

/// The controller that a request to reconcile counts for. One that is nobody's, such as an object to be read back, counts
/// for the controller of its kind; Secrets and Pods are those of consumers.
pub fn controller_of(request: &ReconcileRequest) -> &'static Controller {
    let kind = match request {
        ReconcileRequest::Read(kind, _) | ReconcileRequest::Unreadable(kind, _) => *kind,
        _ => Kind::Consumer,
    };
    let handler = CONTROLLERS.into_iter().find(|controller| (controller.handles)(request));
    let of_kind = || CONTROLLERS.into_iter().find(|controller| controller.status_of == kind);
    handler.or_else(of_kind).unwrap_or(&consumers::CONTROLLER)
}
