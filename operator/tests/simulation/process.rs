//! Processes of the operator, and their requests.

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

/// Low limits, so that many requests have to wait.
const LIMITS: [usize; 3] = [8, 1, 1];
/// A low limit, so that inputs arrive while the engine still handles the effects of an earlier one.
const MAX_RECONCILES: usize = 3;

/// A request in flight.
pub struct InFlight {
    pub process: usize,
    pub incarnation: u64,
    pub id: u64,
    pub operation: Operation,
    pub sent: u64,
    /// Set when the API server has handled it.
    pub outcome: Option<Outcome>,
}

/// One process for each controller.
pub fn separate_processes() -> Vec<ControllerSet> {
    CONTROLLERS.into_iter().map(|controller| table::only(controller.name)).collect()
}

pub fn start_process(roles: &ControllerSet, incarnation: u64, started: u64) -> Process {
    let filters = roles.watches().into_iter().map(|(kind, scope)| match scope {
        Scope::Verifications => Filter::Verifications(kind),
        Scope::All => Filter::Whole(kind),
    });
    let watches = filters.map(|filter| (filter.clone(), Watch::new(filter))).collect();
    let engine = Engine::new(roles.clone()).with_limits(LIMITS).with_max_reconciles(MAX_RECONCILES);
    Process { engine, watches, incarnation, started }
}

pub fn start_watch(process: &mut Process, filter: Filter) {
    process.watches.insert(filter.clone(), Watch::new(filter));
}

pub fn describe(operation: &Operation) -> String {
    let detail = match operation {
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
    match operation.target() {
        Some((kind, key)) => format!("{} {} {key} {detail}", operation.verb(), kind.as_str()),
        None => operation.verb().to_owned(),
    }
}

pub fn outcome_name(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Object(object) => format!("{} v{}", object.meta().uid, object.meta().version),
        Outcome::Gone => "gone".to_owned(),
        Outcome::Pods(pods) => format!("{} pods", pods.len()),
        Outcome::ReplicaSets(all) => format!("{} ReplicaSets", all.len()),
        Outcome::Clients(counts) => format!("clients of {} replicas", counts.len()),
        Outcome::Evicted => "evicted".to_owned(),
        Outcome::NotFound => "404".to_owned(),
        Outcome::AlreadyExists => "409 exists".to_owned(),
        Outcome::Conflict => "409 conflict".to_owned(),
        Outcome::Refused { .. } => "refused".to_owned(),
        Outcome::Undecodable { .. } => "undecodable".to_owned(),
        Outcome::Unknown { .. } => "unknown".to_owned(),
    }
}
