//! The HTTP server: `/healthz` (the process responds), `/readyz` (all watches have listed, else which have not) and
//! `/metrics`.

use std::{net::Ipv4Addr, sync::Arc, time::Instant};

use anyhow::Context;
use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use chrono::Utc;
use tokio::{net::TcpListener, sync::watch};

use super::{UnsyncedKinds, snapshots::SnapshotClient};
use crate::metrics::Metrics;

/// The state of the HTTP server.
#[derive(Clone)]
pub struct ServerState {
    /// The kinds whose first list is not complete.
    pub unsynced: watch::Receiver<UnsyncedKinds>,
    /// Counters and durations.
    pub metrics: Arc<Metrics>,
    /// Takes snapshots of slots and Masks.
    pub snapshots: SnapshotClient,
}

/// Serves on all addresses until the process ends.
///
/// # Errors
/// Returns an error if the port is not available.
pub async fn serve(port: u16, state: ServerState) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await;
    let listener = listener.with_context(|| format!("cannot listen on port {port}"))?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .layer(from_fn_with_state(state.metrics.clone(), count))
        .with_state(state);
    axum::serve(listener, router).await.context("the HTTP server failed")
}

async fn readyz(State(state): State<ServerState>) -> (StatusCode, String) {
    let mut waiting: Vec<_> = state.unsynced.borrow().iter().map(|kind| kind.as_str()).collect();
    // There are several watches on Pods.
    waiting.dedup();
    if waiting.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for the first list of: {}\n", waiting.join(", ")))
    }
}

async fn metrics(State(state): State<ServerState>) -> Response {
    let snapshot = state.snapshots.take().await;
    match state.metrics.encode(snapshot.as_ref(), Utc::now()) {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn count(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let response = next.run(request).await;
    metrics.served(started);
    response
}
