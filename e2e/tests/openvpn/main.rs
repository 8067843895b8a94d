//! What the operator writes for OpenVPN, judged by programs of others: `openssl`, and real servers and clients.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod authorities;
mod certificates;
mod connections;
mod fixtures;
mod lines;
