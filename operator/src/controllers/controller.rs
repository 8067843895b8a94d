//! The interface between a controller and the engine.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::context::{Answer, Change, Context, Failure};
use crate::model::{Backoff, Kind, ReconcileRequest, Step};

/// A controller.
pub struct Controller {
    /// The plural of the kind that it manages, as in `manage-masks` and `vpno_masks_…`.
    pub name: &'static str,
    /// The kinds that it watches.
    pub watches: &'static [(Kind, Scope)],
    /// The kinds whose status it writes.
    pub status_of: &'static [Kind],
    /// Whether it needs the credentials Secrets of MaskProviders. These are watched by name.
    pub needs_credentials: bool,
    /// Its requests that read, as in the label `action` of its metrics.
    pub reads: &'static [&'static str],
    /// Its requests that write, as in the label `action` of its metrics.
    pub writes: &'static [&'static str],
    /// Whether it handles a reconcile request.
    pub handles: fn(&ReconcileRequest) -> bool,
    /// Returns the next step towards the desired state of an object.
    pub reconcile: fn(&mut Context, &ReconcileRequest) -> Step,
    /// Observes a change, and enqueues the objects that it may affect.
    pub observe: fn(&mut Context, &Change<'_>),
    /// Observes the outcome of one of its own requests, before the stores do.
    pub answered: fn(&mut Context, &Answer<'_>),
    /// Observes a failure of one of its own requests, and returns the backoff to set, if any.
    pub failed: fn(&mut Context, &Failure<'_>, Backoff) -> Option<Backoff>,
    /// Runs whenever the work queue is empty, and may enqueue requests.
    pub settle: fn(&mut Context),
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Keeps the backoff, for controllers that do not handle failures.
pub fn keep_backoff(_: &mut Context, _: &Failure<'_>, backoff: Backoff) -> Option<Backoff> {
    Some(backoff)
}

/// Does nothing, for controllers without a `settle` step.
pub fn nothing_to_settle(_: &mut Context) {}

/// Which objects of a kind are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Objects that belong to the verification of a MaskProvider, selected by label.
    Verifications,
    /// All objects. For Secrets: the metadata of those that the operator created.
    All,
}

/// The controllers of a process.
#[derive(Clone, Debug)]
pub struct ControllerSet(Arc<[&'static Controller]>);

impl FromIterator<&'static Controller> for ControllerSet {
    fn from_iter<T: IntoIterator<Item = &'static Controller>>(controllers: T) -> Self {
        Self(controllers.into_iter().collect())
    }
}

impl ControllerSet {
    /// Returns the controllers in the order in which they observe changes.
    pub fn iter(&self) -> impl Iterator<Item = &'static Controller> + use<> {
        let controllers = self.0.clone();
        (0..controllers.len()).map(move |position| controllers[position])
    }

    /// Whether the set contains the controller of that name.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|controller| controller.name == name)
    }

    /// Returns the controller in this set that handles a reconcile request.
    pub fn handler(&self, request: &ReconcileRequest) -> Option<&'static Controller> {
        self.0.iter().find(|controller| (controller.handles)(request)).copied()
    }

    /// Returns the kinds that the controllers watch, each with its widest scope.
    pub fn watches(&self) -> BTreeMap<Kind, Scope> {
        let mut watches = BTreeMap::new();
        for (kind, scope) in self.0.iter().flat_map(|controller| controller.watches) {
            let widest = watches.entry(*kind).or_insert(*scope);
            *widest = (*widest).max(*scope);
        }
        watches
    }

    /// Whether a controller in this set watches all objects of that kind.
    pub fn watch_all(&self, kind: Kind) -> bool {
        self.0.iter().flat_map(|controller| controller.watches).any(|watched| *watched == (kind, Scope::All))
    }

    /// Whether a controller in this set writes the status of that kind.
    pub fn own_status(&self, kind: Kind) -> bool {
        self.0.iter().any(|controller| controller.status_of.contains(&kind))
    }

    /// Whether a controller in this set needs the credentials Secrets of MaskProviders.
    pub fn need_credentials(&self) -> bool {
        self.0.iter().any(|controller| controller.needs_credentials)
    }
}
