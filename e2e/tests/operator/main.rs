//! The operator on a real control plane, as users see it. All tests here share one cluster and one operator.

mod assignment;
mod eviction;
mod in_the_way;
mod kubectl;
mod limits;
mod messages;
mod queue;
mod refusals;
mod release;
mod shared_credentials;
mod slot_secrets;
mod webhooks;
