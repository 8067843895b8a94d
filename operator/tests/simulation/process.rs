//! A process of the operator, and its requests.

use std::collections::BTreeMap;

use vpn_operator::{
    controllers::{
        ControllerSet, Scope,
        table::{self, CONTROLLERS},
    },
    engine::Engine,
    model::{NewObject, Operation},
    state::Outcome,
};

use crate::watch::{Filter, Watch};

pub struct Process {
    pub engine: Engine,
    pub watches: BTreeMap<Filter, Watch>,
    pub incarnation: u64,
    pub started: u64,
}

/// So few that much has to wait for room.
const LIMITS: [usize; 3] = [8, 1, 1];

/// A request on its way.
pub struct Flight {
    pub process: usize,
    pub incarnation: u64,
    pub id: u64,
    pub op: Operation,
    pub sent: u64,
    /// Set once the server has carried it out.
    pub outcome: Option<Outcome>,
}

/// One process for each controller.
pub fn apart() -> Vec<ControllerSet> {
    CONTROLLERS.into_iter().map(|controller| table::only(controller.name)).collect()
}

pub fn boot(roles: &ControllerSet, incarnation: u64, started: u64) -> Process {
    let filters = roles.watches().into_iter().map(|(kind, scope)| match scope {
        Scope::Verifications => Filter::Verifications(kind),
        Scope::All => Filter::Whole(kind),
    });
    let watches = filters.map(|filter| (filter.clone(), Watch::new(filter))).collect();
    Process { engine: Engine::new(roles.clone()).with_limits(LIMITS), watches, incarnation, started }
}

pub fn begin(process: &mut Process, filter: Filter) {
    process.watches.insert(filter.clone(), Watch::new(filter));
}

pub fn describe(op: &Operation) -> String {
    let detail = match op {
        Operation::PatchStatus(_, _, patch) | Operation::Patch(_, _, patch) | Operation::JsonPatch(_, _, patch) => {
            let mut patch = patch.clone();
            if let Some(status) = patch.get_mut("status").and_then(|status| status.as_object_mut()) {
                status.remove("conditions");
                status.remove("lastUpdated");
            }
            patch.to_string()
        }
        Operation::Delete { uid, propagation, .. } => format!("{uid} {propagation:?}"),
        Operation::Create(_, NewObject::Reservation(reservation)) => reservation.spec.uid.clone(),
        _ => String::new(),
    };
    match op.target() {
        Some((kind, key)) => format!("{} {} {key} {detail}", op.verb(), kind.as_str()),
        None => op.verb().to_owned(),
    }
}

pub fn outcome_name(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Object(object) => format!("{} v{}", object.meta().uid, object.meta().version),
        Outcome::Gone => "gone".to_owned(),
        Outcome::Pods(pods) => format!("{} pods", pods.len()),
        Outcome::NotFound => "404".to_owned(),
        Outcome::AlreadyExists => "409 exists".to_owned(),
        Outcome::Conflict => "409 conflict".to_owned(),
        Outcome::Refused { .. } => "refused".to_owned(),
        Outcome::Unknown { .. } => "unknown".to_owned(),
    }
}
