//! Bad days of the cluster: an API server that answers badly, lost nodes, wrong clocks, objects that cannot be read,
//! crowds. One cluster for all tests here, those with lost nodes apart.

mod absent_nodes;
mod clock;
mod faults;
mod logs;
mod undecodable;

use tokio::sync::Mutex;

/// One at a time: an operator works in all namespaces.
static ALONE: Mutex<()> = Mutex::const_new(());
