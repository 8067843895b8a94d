//! The types that all parts of the operator share, such as keys, requests and effects. This module makes no decisions.

mod backoff;
mod counters;
mod effect;
mod event;
mod intern;
mod issue;
mod key;
mod kind;
mod labels;
mod log_event;
mod meta;
mod operation;
mod quantity;
mod request;
mod scaling;
mod step;
mod text;
mod time;

pub use backoff::Backoff;
pub use counters::Counters;
pub use effect::Effect;
pub use event::{EventRecord, ObjectReference, object_reference};
pub use intern::intern;
pub use issue::Issue;
pub use key::{ObjectKey, Uid};
pub use kind::Kind;
pub use labels::{LabelMatcher, Labels, label, labels};
pub use log_event::LogEvent;
pub use meta::Meta;
pub use operation::{
    NewObject, Operation, Propagation, Replica, SHORTEST_GRACE_PERIOD, add_finalizer, delete, delete_pod,
    delete_unchanged, remove_finalizer,
};
pub use quantity::quantity_suffix;
pub use request::{ReconcileRequest, Request, RequestPriority};
pub use scaling::{CAPACITY_LABELS, CLAIM_LABELS, CLAIM_PARAMETERS, DEFAULT_RESOURCE, WORKLOADS};
pub use step::{Send, Step};
pub use text::beginning;
pub use time::Now;
