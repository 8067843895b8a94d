//! A network and an API server on a bad day: a proxy between a client, such as the operator, and the API server, that
//! does to chosen requests what [`Fault`] lists, and passes all others on.
//!
//! Invariants: it listens on loopback only; it changes nothing of a request that it passes on, credentials included; a
//! request that it has begun to pass on reaches the API server even when its sender hangs up.
//!
//! ```ignore
//! let proxy = FaultProxy::start(cluster.admin()).await?;
//! let operator = Operator::start_with(cluster, &OperatorOptions::new(layout).via_proxy(&proxy)).await?;
//! let locks = Filter::default().verb("create").resource("maskreservations");
//! let armed = proxy.add(Rule::first(locks, Fault::ResponseDropped).after(2));
//! // …
//! armed.wait_for_hits(1).await?;
//! ```

mod proxy;
mod request;
mod rule;

pub use proxy::FaultProxy;
pub use rule::{ActiveRule, Fault, Rule};
