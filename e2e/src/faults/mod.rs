//! A network and an API server on a bad day: a proxy between a client, such as the operator, and the API server, that
//! does to chosen requests what [`Fault`] lists, and passes all others on.
//!
//! Invariants: it listens on loopback only; it changes nothing of a request that it passes on, credentials included; a
//! request that it has begun to pass on reaches the API server even when its sender hangs up.
//!
//! ```ignore
//! let proxy = FaultProxy::start(cluster.admin()).await?;
//! let operator = Operator::start_with(cluster, &Setup::new(layout).through(&proxy)).await?;
//! let locks = Filter::default().verb("create").resource("maskreservations");
//! let armed = proxy.arm(Rule::first(locks, Fault::AnswerLost).after(2));
//! // …
//! armed.has_struck(1).await?;
//! ```

mod plan;
mod proxy;
mod request;

pub use plan::{Armed, Fault, Rule};
pub use proxy::FaultProxy;
