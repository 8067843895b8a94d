//! Remaining capacity of the cluster: how much is left for one group of Pods, the consumers, when all other Pods have
//! what they request. It is pure.
//!
//! [`Cluster`] holds views of Nodes and Pods. [`Cluster::totals`] are sums over the cluster. [`Cluster::available`]
//! leaves the requests of the consumers out.
//!
//! Invariant: the answer to a query does not depend on how many consumers run, or where. So an autoscaler that scales
//! the consumers on it settles instead of oscillating.
//!
//! Invariant: [`Available::replicas_that_fit`] is never more than what fits. It knows CPU, memory and the number of
//! Pods. It does not know affinity, node selectors, tolerations, volumes and other resources.

mod cluster;
mod nodes;
mod pods;
mod quantity;
mod query;
mod requests;
mod resources;
#[cfg(test)]
mod tests;

pub use cluster::Cluster;
pub use nodes::NodeView;
pub use pods::PodView;
pub use quantity::{QuantityError, millis, units};
pub use query::{Available, Consumers, Query, Totals};
pub use requests::requests;
pub use resources::{Allocatable, Resources};
