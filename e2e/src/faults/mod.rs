//! Fault injection: a proxy between a client, such as the operator, and the API server. It applies a [`Fault`] to the
//! requests that a [`Rule`] selects, and forwards all others.
//!
//! Invariants: the proxy listens only on loopback. It does not change a request that it forwards, credentials included. A
//! request that it started to forward reaches the API server even if the client disconnects.
//!
//! ```ignore
//! let proxy = FaultProxy::start(cluster.admin()).await?;
//! let operator = Operator::start_with(cluster, OperatorOptions::new(layout).via_proxy(&proxy)).await?;
//! let locks = Filter::default().verb("create").resource("maskreservations");
//! let rule = proxy.add(Rule::first(locks, Fault::ResponseDropped).after(2));
//! // …
//! rule.wait_for_hits(1).await?;
//! ```

mod proxy;
mod request;
mod rule;

pub use proxy::FaultProxy;
pub use rule::{ActiveRule, Fault, Rule};
