//! Failure scenarios of a cluster: an API server that answers wrongly, lost nodes, wrong clocks, undecodable objects,
//! and many objects. All tests here share one cluster, except those with lost nodes.

mod absent_nodes;
mod clock;
mod faults;
mod kills;
mod labeled_on_absent_nodes;
mod logs;
mod undecodable;

use tokio::sync::Mutex;

/// One test at a time, because an operator works in all namespaces.
static ALONE: Mutex<()> = Mutex::const_new(());
