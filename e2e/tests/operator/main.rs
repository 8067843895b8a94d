//! The operator on a real control plane: what users see. One cluster and one operator for all tests here.

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
