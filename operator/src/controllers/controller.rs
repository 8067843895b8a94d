//! What a controller is to the engine.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::context::{Answer, Change, Context, Failure};
use crate::model::{Backoff, Kind, ReconcileRequest, Step};

/// One controller.
pub struct Controller {
    /// The plural of what it looks after, as in `manage-masks` and `vpno_masks_…`.
    pub name: &'static str,
    /// The kinds that it watches.
    pub watches: &'static [(Kind, Scope)],
    /// The kind whose status it writes.
    pub status_of: Kind,
    /// Whether it needs the credentials Secrets of MaskProviders, which are watched by name.
    pub needs_credentials: bool,
    /// What its requests that read ask for, as in the label `action` of its metrics.
    pub reads: &'static [&'static str],
    /// What its requests that write ask for, likewise.
    pub writes: &'static [&'static str],
    /// Whether a request to reconcile is for it.
    pub handles: fn(&ReconcileRequest) -> bool,
    /// The next step towards what an object should be.
    pub reconcile: fn(&mut Context, &ReconcileRequest) -> Step,
    /// Takes in a change, and enqueues what it may concern.
    pub observe: fn(&mut Context, &Change<'_>),
    /// Takes in how one of its own requests to the API server ended, before the stores do.
    pub answered: fn(&mut Context, &Answer<'_>),
    /// Looks at a failure of one of its own requests: the backoff that follows from it, if any.
    pub failed: fn(&mut Context, &Failure<'_>, Backoff) -> Option<Backoff>,
    /// Runs whenever the queue is empty, and may fill it again.
    pub settle: fn(&mut Context),
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// For controllers that take a failure as it is.
pub fn keep_backoff(_: &mut Context, _: &Failure<'_>, backoff: Backoff) -> Option<Backoff> {
    Some(backoff)
}

/// For controllers that have nothing to settle.
pub fn nothing_to_settle(_: &mut Context) {}

/// Which objects of a kind are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Those that belong to the verification of a MaskProvider: they have a label.
    Verifications,
    /// All of them. Of Secrets: the metadata of those that the operator made.
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
    /// Its controllers, in the order in which they take in changes.
    pub fn iter(&self) -> impl Iterator<Item = &'static Controller> + use<> {
        let controllers = self.0.clone();
        (0..controllers.len()).map(move |position| controllers[position])
    }

    /// Whether the controller of that name is one of them.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|controller| controller.name == name)
    }

    /// The controller that a request to reconcile is for, if it is one of them.
    pub fn handler(&self, request: &ReconcileRequest) -> Option<&'static Controller> {
        self.0.iter().find(|controller| (controller.handles)(request)).copied()
    }

    /// The kinds that they watch, each with its widest scope.
    pub fn watches(&self) -> BTreeMap<Kind, Scope> {
        let mut watches = BTreeMap::new();
        for (kind, scope) in self.0.iter().flat_map(|controller| controller.watches) {
            let widest = watches.entry(*kind).or_insert(*scope);
            *widest = (*widest).max(*scope);
        }
        watches
    }

    /// Whether one of them writes the status of that kind.
    pub fn own_status(&self, kind: Kind) -> bool {
        self.0.iter().any(|controller| controller.status_of == kind)
    }

    /// Whether one of them needs the credentials Secrets of MaskProviders.
    pub fn need_credentials(&self) -> bool {
        self.0.iter().any(|controller| controller.needs_credentials)
    }
}
